"""One route: its methods, and for each the plane, the shape of the body, and the handler.

It speaks ASGI itself: on the hot path each layer between the socket and the service costs as much as the service does.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qsl

from starlette.types import Message, Receive, Scope, Send

from atomo_gql.api.auth import Authenticator
from atomo_gql.api.eager import within
from atomo_gql.api.errors import MethodNotAllowed, UnsupportedMediaType, internal, problem
from atomo_gql.api.rest.bodies import decode, decode_listed
from atomo_gql.domain.errors import AtomoError, BadUserInput, PayloadTooLarge, Unauthenticated
from atomo_gql.domain.principals import Caller, WorkerToken
from atomo_gql.service.access import require_admin
from atomo_gql.service.services import Services

log = logging.getLogger("atomo_gql.rest")

MOST_PARAMETERS = 100  # behind a path
BODY_SECS = 60.0  # between two parts of a body
# How long, and how much, of a body that is too large is still taken after the answer.
LINGER_SECS, LINGER_PAUSE_SECS, LINGER_BYTES = 30.0, 2.0, 128 * 1024 * 1024


class Plane(StrEnum):
    """By which credential a route is reached."""

    APP = "app"
    ADMIN = "admin"
    WORKER = "worker"
    OPEN = "open"


@dataclass(slots=True)
class Call:
    """A request that has been let in."""

    services: Services
    path: Mapping[str, str]
    query: Mapping[str, list[str]]
    headers: Mapping[bytes, bytes]
    body: Any
    receive: Receive
    principal: Caller | WorkerToken | None

    @property
    def caller(self) -> Caller:
        """Who calls, on the app and admin planes."""
        assert isinstance(self.principal, Caller)  # noqa: S101  # the plane says so
        return self.principal

    @property
    def worker(self) -> WorkerToken:
        """Who calls, on the worker plane."""
        assert isinstance(self.principal, WorkerToken)  # noqa: S101  # the plane says so
        return self.principal

    def header(self, name: bytes) -> str | None:
        """A header's value."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    async def hung_up(self) -> None:
        """Return when the client has gone."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back."""

    status: int
    body: bytes = b""
    media_type: bytes = b"application/json"


@dataclass(frozen=True, slots=True)
class Method:
    """What one method of a route does."""

    plane: Plane
    handle: Callable[[Call], Awaitable[Answer]]
    shape: type[Any] | None = None
    summary: str = ""
    answers: Mapping[int, Any] | None = None  # documented: status → schema (None: no body)
    is_batch: bool = False  # its body may be as large as a batch's
    is_listed: bool = False  # its body has a list of reports, each to be judged by itself
    is_optional: bool = False  # no body at all is {}
    query: Mapping[str, Any] | None = None  # the parameters it takes behind the path: name → schema
    headers: Mapping[str, str] | None = None  # further headers that it knows, documented


@dataclass(frozen=True, slots=True)
class Doors:
    """What every route needs to let somebody in."""

    services: Services
    authenticator: Authenticator
    max_body: int  # bytes
    max_batch: int  # bytes, where many jobs come at once


class Endpoint:
    """An ASGI application for one path."""

    def __init__(self, doors: Doors, methods: Mapping[str, Method]) -> None:
        self._doors = doors
        self._methods = dict(methods)
        if "GET" in self._methods:
            self._methods["HEAD"] = self._methods["GET"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        extra: list[tuple[bytes, bytes]] = []
        is_unread = False
        try:
            answer = await self._answer(scope, receive)
        except AtomoError as error:
            status, body = problem(error)
            answer = Answer(status, body, b"application/problem+json")
            extra = error_headers(error, self._methods)
            is_unread = isinstance(error, PayloadTooLarge)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            status, body = problem(internal())
            answer = Answer(status, body, b"application/problem+json")
        headers = [(b"content-length", b"%d" % len(answer.body)), *extra]
        if answer.status != 204:
            headers.append((b"content-type", answer.media_type))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        body = b"" if scope["method"] == "HEAD" else answer.body
        if is_unread:
            await send({"type": "http.response.body", "body": body, "more_body": True})
            await read_away(receive)
            body = b""
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        method = self._methods.get(scope["method"])
        if method is None:
            raise MethodNotAllowed(f"{scope['path']} takes {', '.join(sorted(self._methods))}, not {scope['method']}")
        headers = dict(scope["headers"])
        principal = await self._let_in(method.plane, headers)
        body = None
        if method.shape is not None:
            most = self._doors.max_batch if method.is_batch else self._doors.max_body
            if method.is_optional:
                raw = await read_optional(receive, headers, most)
            else:
                check_media_type(headers.get(b"content-type"))
                raw = await read_body(receive, headers, most)
            body = (decode_listed if method.is_listed else decode)(raw, method.shape)
        query = {} if method.query is None else parameters(scope["query_string"], method.query)
        path = scope.get("path_params", {})
        return await method.handle(Call(self._doors.services, path, query, headers, body, receive, principal))

    async def _let_in(self, plane: Plane, headers: Mapping[bytes, bytes]) -> Caller | WorkerToken | None:
        if plane is Plane.OPEN:
            return None
        if plane is Plane.WORKER:
            secret = headers.get(b"x-worker-token")
            if secret is None:
                raise Unauthenticated("a worker token is needed: X-Worker-Token: wkr_…")
            return await self._doors.services.tokens.authenticate(secret.decode("latin-1"))
        authorization, tenant = headers.get(b"authorization"), headers.get(b"x-tenant-id")
        caller = await self._doors.authenticator.caller(
            None if authorization is None else authorization.decode("latin-1"),
            None if tenant is None else header_text("X-Tenant-ID", tenant),
        )
        if plane is Plane.ADMIN:
            require_admin(caller)
        return caller


def parameters(raw: bytes, known: Mapping[str, Any]) -> dict[str, list[str]]:
    """What stands behind the path, by name. One that is empty counts as absent.

    Raises:
        BadUserInput: a parameter that nobody knows, one that is given twice and is no list, or no UTF-8.
    """
    found: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(raw.decode("latin-1"), errors="strict", max_num_fields=MOST_PARAMETERS)
    except ValueError as error:
        said = "in UTF-8" if isinstance(error, UnicodeDecodeError) else f"at most {MOST_PARAMETERS}"
        raise BadUserInput(f"the parameters behind the path must be {said}") from None
    for name, value in pairs:
        if name not in known:
            there = ", ".join(known)
            raise BadUserInput(f"{name[:100]} is not a parameter here; there may be: {there}", field=name[:100])
        found.setdefault(name, []).append(value)
    for name, values in found.items():
        if len(values) > 1 and known[name]["type"] != "array":
            raise BadUserInput(f"{name} must be given once", field=name)
    return found


def header_text(name: str, value: bytes) -> str:
    """A header that may hold more than ASCII, as UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise BadUserInput(f"{name} must be UTF-8", field=name) from None


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], most: int) -> bytes:
    """The whole body.

    Raises:
        PayloadTooLarge: it is larger than `most` bytes; the rest is not read.
        BadUserInput: the client hung up in the middle, or went silent.
    """
    announced = headers.get(b"content-length", b"0")
    if announced.isdigit() and int(announced[:20]) > most:
        raise PayloadTooLarge(f"the body must have at most {most} bytes, not {announced[:20].decode()}")
    message = await _part(receive)
    if not message.get("more_body", False) and message["type"] == "http.request":
        body: bytes = message.get("body", b"")
        if len(body) > most:
            raise PayloadTooLarge(f"the body must have at most {most} bytes, not {len(body)}")
        return body
    chunks: list[bytes] = []
    size = 0
    while True:
        if message["type"] == "http.disconnect":
            raise BadUserInput("the connection ended within the body")
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > most:
            raise PayloadTooLarge(f"the body must have at most {most} bytes")
        if not message.get("more_body", False):
            return b"".join(chunks)
        message = await _part(receive)


async def read_optional(receive: Receive, headers: Mapping[bytes, bytes], most: int) -> bytes:
    """As `read_body`, but nothing is {}, of whatever kind a client says that it is.

    Raises:
        UnsupportedMediaType: there is something, and the header Content-Type says that it is no JSON.
    """
    raw = await read_body(receive, headers, most)
    if not raw:
        return b"{}"
    check_media_type(headers.get(b"content-type"))
    return raw


async def read_away(receive: Receive) -> None:
    """Take what still comes of a body that was refused: whoever still sends would be reset, and miss the answer."""
    left = LINGER_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECS):
            while left > 0:
                message = await asyncio.wait_for(receive(), LINGER_PAUSE_SECS)
                if not message.get("more_body", False):
                    return
                left -= len(message["body"])


async def _part(receive: Receive) -> Message:
    try:
        return await within(BODY_SECS, receive())
    except TimeoutError:
        raise BadUserInput(f"the body must keep coming: there was nothing of it for {BODY_SECS:g} s") from None


def check_media_type(value: bytes | None) -> None:
    """Refuse what is not JSON in UTF-8.

    Raises:
        UnsupportedMediaType: the header Content-Type says something else.
    """
    if value is None or value == b"application/json":
        return
    media_type, *parameters = (part.strip() for part in value.decode("latin-1").lower().split(";"))
    named = dict(parameter.replace(" ", "").partition("=")[::2] for parameter in parameters)
    charset = named.get("charset", "").strip('"')
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise UnsupportedMediaType(f"the body must be application/json, not {media_type[:100]!r}")
    if charset not in ("", "utf-8", "utf8"):
        raise UnsupportedMediaType(f"the body must be in UTF-8, not {charset[:100]!r}")


def error_headers(error: AtomoError, methods: Iterable[str]) -> list[tuple[bytes, bytes]]:
    """What HTTP says of an error beside its body."""
    headers: list[tuple[bytes, bytes]] = []
    match error.code:
        case "METHOD_NOT_ALLOWED":
            headers.append((b"allow", ", ".join(sorted(methods)).encode()))
        case "UNAUTHENTICATED":
            headers.append((b"www-authenticate", b"Bearer"))
        case "UNAVAILABLE" | "TOO_MANY_REQUESTS":
            headers.append((b"retry-after", b"1"))
        case "PAYLOAD_TOO_LARGE":
            headers.append((b"connection", b"close"))  # the rest of the body has not been read
    return headers
