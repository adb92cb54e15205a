"""Shorthands for what many tests ask."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.conftest import Server, admin, bearer, token


async def ask(server: Server, query: str, headers: dict[str, str] | None = None, **variables: Any) -> Any:
    """The data of an answer that has no errors."""
    answer = await server.graphql(query, variables, headers=headers or bearer())
    assert "errors" not in answer, answer
    return answer["data"]


async def refused(server: Server, query: str, headers: dict[str, str] | None = None, **variables: Any) -> str:
    """The code of the only error of an answer."""
    [error] = (await server.graphql(query, variables, headers=headers or bearer()))["errors"]
    code: str = error["extensions"]["code"]
    return code


async def as_admin(server: Server, query: str, **variables: Any) -> Any:
    """As an operator who sees all."""
    return await ask(server, query, admin(), **variables)


class Subscription:
    """One operation on a connection of its own."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def next(self) -> Any:
        """The data of its next event, or {"error": code}, or None when it has completed."""
        frame = await self._socket.receive_json(timeout=60)
        match frame["type"]:
            case "next":
                assert "errors" not in frame["payload"], frame
                return frame["payload"]["data"]
            case "error":
                return {"error": frame["payload"][0]["extensions"]["code"]}
            case _:
                return None


@contextlib.asynccontextmanager
async def subscribed(
    server: Server, query: str, *, authorization: str | None = None, **variables: Any
) -> AsyncIterator[Subscription]:
    """A subscription for the length of the block."""
    async with server.http.ws_connect(f"{server.url}/graphql", protocols=["graphql-transport-ws"]) as socket:
        payload = {"authorization": authorization or f"Bearer {token()}"}
        await socket.send_json({"type": "connection_init", "payload": payload})
        assert (await socket.receive_json(timeout=60))["type"] == "connection_ack"
        await socket.send_json({"id": "1", "type": "subscribe", "payload": {"query": query, "variables": variables}})
        yield Subscription(socket)


async def statements_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the statements that the server runs from now on; it grows."""
    await server.warming
    asked: list[str] = []
    database = server.application.database
    for name in ("dispatch", "fetch"):
        real = getattr(database, name)

        async def counted(statement: str, *arguments: object, _real: Any = real) -> Any:
            asked.append(statement)
            return await _real(statement, *arguments)

        monkeypatch.setattr(database, name, counted)
    return asked
