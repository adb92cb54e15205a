"""`GET /realtime/ws`: a WebSocket for pages without a GraphQL client."""

import asyncio
import time
from typing import Any
from uuid import UUID

import orjson
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from atomo_gql.api.errors import STATUS
from atomo_gql.api.rest.endpoint import Doors
from atomo_gql.api.sockets import refuse_upgrade
from atomo_gql.domain.errors import AtomoError, BadUserInput, TooManyRequests
from atomo_gql.domain.principals import remaining_secs
from atomo_gql.domain.rules import parse_id
from atomo_gql.domain.updates import JobUpdate
from atomo_gql.service.watching import Watch

_MAX_FRAME = 4_096  # characters from a client
_MAX_CHANNELS = 1_000
_PREFIX = "job:"


class RealtimeSocket:
    """An ASGI application for one connection."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Authenticate before the upgrade; then read what the client wants, and send what it watches."""
        socket = WebSocket(scope, receive, send)
        try:
            token = socket.query_params.get("token")
            caller = await self._doors.authenticator.caller(
                f"Bearer {token}" if token else socket.headers.get("authorization"), socket.headers.get("x-tenant-id")
            )
        except AtomoError as error:
            await refuse_upgrade(scope, send, error)
            return
        await socket.accept()
        with self._doors.services.watching.open(caller) as watch:
            sending = asyncio.create_task(_send_updates(socket, watch))
            reading = asyncio.create_task(_read_wishes(socket, watch))
            done, pending = await asyncio.wait(
                {sending, reading}, timeout=remaining_secs(caller), return_when=asyncio.FIRST_COMPLETED
            )
            for task in pending:
                task.cancel()
            await asyncio.gather(*done, *pending, return_exceptions=True)
            if not done:
                await socket.close(4403, "the token has expired")


async def _send_updates(socket: WebSocket, watch: Watch) -> None:
    async for update in watch.updates():
        await _send(socket, _frame(update))


def _frame(update: JobUpdate) -> dict[str, Any]:
    return {
        "type": "end" if update.is_last else "progress",
        "channel": f"{_PREFIX}{update.job_id}",
        "jobId": str(update.job_id),
        "status": update.status,
        "attempts": update.attempts,
        "percent": update.percent,
        "message": update.message,
        "data": update.data,
        "result": update.result,
        "error": update.error,
    }


async def _read_wishes(socket: WebSocket, watch: Watch) -> None:
    while True:
        try:
            message = await socket.receive()
        except WebSocketDisconnect:
            return
        if message["type"] == "websocket.disconnect":
            return
        channel: object = None
        try:
            wish = _wish(message)
            channel = wish.get("channel")
            await _grant(socket, watch, wish)
        except AtomoError as error:
            frame = {"type": "error", "channel": channel, "code": error.code, "message": error.detail}
            await _send(socket, {**frame, "status": STATUS[error.code]})


def _wish(message: Any) -> dict[str, Any]:
    text = message.get("text")
    if text is None:
        raise BadUserInput("a frame must be text")
    if len(text) > _MAX_FRAME:
        raise BadUserInput(f"a frame must have at most {_MAX_FRAME} characters")
    try:
        wish = orjson.loads(text)
    except ValueError:
        wish = None
    if not isinstance(wish, dict):
        raise BadUserInput('a frame must be a JSON object such as {"op": "subscribe", "channel": "job:<id>"}')
    return wish


async def _grant(socket: WebSocket, watch: Watch, wish: dict[str, Any]) -> None:
    op = wish.get("op")
    if op == "ping":
        await _send(socket, {"type": "pong", "time": time.time()})
        return
    if op not in ("subscribe", "unsubscribe"):
        raise BadUserInput('op must be "subscribe", "unsubscribe" or "ping"; clients cannot publish', field="op")
    channel = wish.get("channel")
    if not isinstance(channel, str) or not channel.startswith(_PREFIX):
        raise BadUserInput('channel must be "job:<id>"', field="channel")
    job_id: UUID = parse_id("channel", channel.removeprefix(_PREFIX))
    if op == "unsubscribe":
        watch.remove(job_id)
    elif len(watch) >= _MAX_CHANNELS:
        raise TooManyRequests(f"one connection may watch at most {_MAX_CHANNELS} jobs")
    else:
        await watch.add(job_id)


async def _send(socket: WebSocket, frame: dict[str, Any]) -> None:
    await socket.send_text(orjson.dumps(frame).decode())
