"""GraphQL over WebSocket, in the two protocols that clients speak.

`graphql-transport-ws` (npm graphql-ws) and the older `graphql-ws` (npm subscriptions-transport-ws) are the same
conversation in other words. A frame that breaks the protocol closes the connection with a code and a reason; an
operation that fails ends alone.
"""

import asyncio
import contextlib
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from atomo_gql.api.auth import Authenticator
from atomo_gql.api.graphql.context import Context
from atomo_gql.api.graphql.engine import Engine, Refused, Reply, refusal, request_of
from atomo_gql.api.graphql.http import parse_json, to_json
from atomo_gql.api.loose import loosely
from atomo_gql.domain.errors import AtomoError, BadUserInput, TooManyRequests, Unauthenticated
from atomo_gql.domain.principals import remaining_secs

MAX_OPERATIONS = 100  # under way on one connection
_INIT_SECS = 10  # until connection_init
_MAX_ID = 200  # characters of an operation's id
_MAX_REASON = 120  # bytes of a close frame's reason, which the WebSocket protocol bounds


@dataclass(frozen=True, slots=True)
class Dialect:
    """The words of one protocol."""

    start: str
    stop: str
    next: str
    errors_in_list: bool  # whether an error frame carries all errors, or the first
    rejected: int  # the close code when connection_init is not accepted


_DIALECTS = {
    "graphql-transport-ws": Dialect("subscribe", "complete", "next", True, 4403),
    "graphql-ws": Dialect("start", "stop", "data", False, 1011),
}


class _Close(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason.encode()[:_MAX_REASON].decode(errors="ignore")


class GraphQLSocket:
    """One connection."""

    def __init__(self, engine: Engine, authenticator: Authenticator, context: Context, scope: Scope) -> None:
        """`context` has its caller already when the handshake brought a token."""
        self._engine = engine
        self._authenticator = authenticator
        self._context = context
        self._offered: list[str] = scope.get("subprotocols", [])
        self._dialect = _DIALECTS["graphql-transport-ws"]
        self._operations: dict[str, asyncio.Task[None]] = {}
        self._is_acknowledged = False

    async def converse(self, receive: Receive, send: Send) -> None:
        """Until one of the two hangs up."""
        self._send_message = send
        protocol = next((name for name in self._offered if name in _DIALECTS), None)
        await receive()  # websocket.connect
        await send({"type": "websocket.accept", "subprotocol": protocol})
        try:
            if protocol is None:
                raise _Close(4406, f"Subprotocol not acceptable: offer {' or '.join(_DIALECTS)}")
            self._dialect = _DIALECTS[protocol]
            await self._listen(receive)
        except _Close as close:
            with contextlib.suppress(OSError, RuntimeError):
                await send({"type": "websocket.close", "code": close.code, "reason": close.reason})
        except OSError:
            pass  # the client is gone
        finally:
            for task in self._operations.values():
                task.cancel()
            await asyncio.gather(*self._operations.values(), return_exceptions=True)

    async def _listen(self, receive: Receive) -> None:
        loop = asyncio.get_running_loop()
        deadline: float | None = loop.time() + _INIT_SECS
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                if self._is_acknowledged:
                    raise _Close(4403, "Forbidden: the token has expired") from None
                raise _Close(4408, "Connection initialisation timeout") from None
            if message["type"] == "websocket.disconnect":
                return
            was_acknowledged = self._is_acknowledged
            try:
                frame = _frame(message)
            except BadUserInput as error:  # of an operation that can be named; the others go on
                self._require_acknowledged()
                await self._send_errors(_id_of(loosely(message["text"])), [refusal(error)])
                continue
            await self._take(frame)
            if self._is_acknowledged and not was_acknowledged:
                left = remaining_secs(self._context.caller)
                deadline = None if left is None else loop.time() + left

    async def _take(self, frame: dict[str, Any]) -> None:
        dialect = self._dialect
        match frame.get("type"):
            case "connection_init":
                await self._initialise(frame.get("payload"))
            case "ping":
                await self._send({"type": "pong"})
            case "pong":
                pass
            case "connection_terminate" if dialect.start == "start":
                raise _Close(1000, "")
            case dialect.start:
                await self._start(_id_of(frame), frame.get("payload"))
            case dialect.stop:
                if task := self._operations.pop(_id_of(frame), None):
                    task.cancel()
            case other:
                raise _Close(4400, f"Unknown message type: {str(other)[:60]}")

    async def _initialise(self, payload: object) -> None:
        if self._is_acknowledged:
            raise _Close(4429, "Too many initialisation requests")
        try:
            self._context.maybe_caller = await self._caller(payload)
        except AtomoError as error:
            if self._dialect.rejected != 4403:
                told = {"message": error.detail, **error.extensions}
                await self._send({"type": "connection_error", "payload": told})
            raise _Close(self._dialect.rejected, f"Forbidden: {error.detail}") from None
        self._is_acknowledged = True
        await self._send({"type": "connection_ack"})
        if self._dialect.rejected != 4403:
            await self._send({"type": "ka"})

    async def _caller(self, payload: object) -> Any:
        if payload is not None and not isinstance(payload, dict):
            raise _Close(4400, "Invalid connection init payload")
        given = {str(name).lower(): value for name, value in (payload or {}).items()}
        authorization, tenant = given.get("authorization"), given.get("x-tenant-id", self._context.tenant_header)
        if authorization is None and self._context.maybe_caller is not None:
            return self._context.maybe_caller
        if not isinstance(authorization, str | None) or not isinstance(tenant, str | None):
            raise Unauthenticated("authorization and X-Tenant-ID must be strings")
        return await self._authenticator.caller(authorization, tenant)

    async def _start(self, operation_id: str, payload: object) -> None:
        self._require_acknowledged()
        if operation_id in self._operations:
            raise _Close(4409, f"Subscriber for {operation_id} already exists")
        if len(self._operations) >= MAX_OPERATIONS:
            error = TooManyRequests(f"one connection may have at most {MAX_OPERATIONS} operations under way")
            await self._send_errors(operation_id, [refusal(error)])
            return
        task = asyncio.create_task(self._run(operation_id, payload), name=f"operation {operation_id}")
        self._operations[operation_id] = task

    def _require_acknowledged(self) -> None:
        if not self._is_acknowledged:
            raise _Close(4401, "Unauthorized: send connection_init first")

    async def _run(self, operation_id: str, payload: object) -> None:
        errors: list[Reply] = []
        with contextlib.suppress(OSError, RuntimeError):  # the client is gone; `_listen` sees it too
            try:
                await self._answer(operation_id, payload)
            except AtomoError as error:
                errors = [refusal(error)]
            except Refused as refused:
                errors = refused.errors
            finally:
                # Free before the last word is out: the client may use the id again at once.
                if self._operations.get(operation_id) is asyncio.current_task():
                    del self._operations[operation_id]
            if errors:
                await self._send_errors(operation_id, errors)
            else:
                await self._send({"id": operation_id, "type": "complete"})

    async def _answer(self, operation_id: str, payload: object) -> None:
        request = request_of(payload)
        operation = self._engine.prepare(request)
        context = self._context.fresh()
        if not operation.is_subscription:
            await self._send_next(operation_id, await self._engine.run(operation, request, context))
            return
        async with aclosing(self._engine.stream(operation, request, context)) as replies:
            async for reply in replies:
                await self._send_next(operation_id, reply)

    async def _send_next(self, operation_id: str, reply: Reply) -> None:
        await self._send({"id": operation_id, "type": self._dialect.next, "payload": reply})

    async def _send_errors(self, operation_id: str, errors: list[Reply]) -> None:
        payload = errors if self._dialect.errors_in_list else errors[0]
        await self._send({"id": operation_id, "type": "error", "payload": payload})

    async def _send(self, frame: Reply) -> None:
        await self._send_message({"type": "websocket.send", "text": to_json(frame).decode()})


def _frame(message: Message) -> dict[str, Any]:
    text = message.get("text")
    if text is None:
        raise _Close(4400, "WebSocket message type must be text")
    try:
        frame = parse_json(text)
    except BadUserInput:
        if isinstance(loose := loosely(text), dict) and isinstance(loose.get("payload"), dict) and "id" in loose:
            raise
        raise _Close(4400, "WebSocket message must be valid JSON") from None
    if not isinstance(frame, dict):
        raise _Close(4400, "WebSocket message must be a JSON object")
    return frame


def _id_of(frame: dict[str, Any]) -> str:
    operation_id = frame.get("id")
    if isinstance(operation_id, int) and not isinstance(operation_id, bool):
        operation_id = str(operation_id)  # some older clients count
    if not isinstance(operation_id, str) or not 0 < len(operation_id) <= _MAX_ID:
        raise _Close(4400, f"id must be a string of 1 to {_MAX_ID} characters")
    return operation_id
