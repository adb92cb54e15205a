"""An idle WebSocket is kept open by pings, or proxies between would close it."""

import asyncio

import aiohttp

from tests.conftest import Server, bearer


async def test_an_idle_socket_is_pinged_by_the_server(server: Server) -> None:
    """uvicorn pings every 20 s; versions that do not are below our bound."""
    url = server.url.replace("http", "ws") + "/graphql"
    async with (
        server.http.ws_connect(url, protocols=["graphql-transport-ws"], autoping=False) as socket,
        asyncio.timeout(30),
    ):
        await socket.send_json({"type": "connection_init", "payload": {"authorization": bearer()["Authorization"]}})
        message = await socket.receive()
        while message.type is not aiohttp.WSMsgType.PING:
            assert message.type is aiohttp.WSMsgType.TEXT, message
            message = await socket.receive()
