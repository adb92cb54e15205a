"""The references, under uvicorn as it comes, with the server's settings of it: a bare Starlette that reads JSON and
answers JSON, and beside it a trivial Strawberry mutation through Strawberry's own view, with warm caches."""

import sys

import orjson
import strawberry
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from strawberry.asgi import GraphQL
from strawberry.extensions import ParserCache, ValidationCache
from strawberry.scalars import JSON


@strawberry.type
class Query:
    """A schema needs one."""

    nothing: int = 0


@strawberry.type
class Mutation:
    """As little as a mutation of that shape can do."""

    @strawberry.mutation
    async def enqueue_job(self, queue: str, kind: str, payload: JSON | None = None) -> strawberry.ID:
        """Nothing."""
        return strawberry.ID(queue)


async def echo(request: Request) -> Response:
    """Read, and answer."""
    body = orjson.loads(await request.body())
    return Response(orjson.dumps({"id": body["queue"]}), 201, media_type="application/json")


if __name__ == "__main__":
    schema = strawberry.Schema(
        Query, Mutation, extensions=[lambda: ParserCache(maxsize=100), lambda: ValidationCache(maxsize=100)]
    )
    graphql: GraphQL[None, None] = GraphQL(schema)
    uvicorn.run(
        Starlette(routes=[Route("/jobs", echo, methods=["POST"]), Route("/graphql", graphql)]),
        port=int(sys.argv[1]),
        http="httptools",
        ws="websockets-sansio",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        backlog=2048,
        timeout_keep_alive=75,
        lifespan="off",
    )
