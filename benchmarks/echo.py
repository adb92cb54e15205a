"""The reference: a bare Starlette that reads JSON and answers JSON, under the server's uvicorn settings."""

import sys

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def echo(request: Request) -> Response:
    """Read, and answer."""
    body = orjson.loads(await request.body())
    return Response(orjson.dumps({"id": body["queue"]}), 201, media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(
        Starlette(routes=[Route("/jobs", echo, methods=["POST"])]),
        port=int(sys.argv[1]),
        http="httptools",
        ws="websockets-sansio",
        access_log=False,
        log_level="warning",
        server_header=False,
        backlog=2048,
        timeout_keep_alive=75,
        lifespan="off",
    )
