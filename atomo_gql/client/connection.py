"""REST, GraphQL and subscriptions, on one session."""

import asyncio
import random
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any

import aiohttp
import orjson

from atomo_gql.client.errors import ServiceError, Unreachable

_LONGEST_PAUSE_SECONDS = 15.0
_LOST = (aiohttp.ClientError, OSError, TimeoutError)


class Connection:
    """A service, as the app plane sees it; an async context manager.

    timeout: seconds that a call may take; a subscription has no end.
    """

    def __init__(self, url: str, token: str, *, tenant: str | None = None, timeout: float = 30.0) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._headers = {"Authorization": f"Bearer {token}", **({"X-Tenant-ID": tenant} if tenant else {})}
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Connection":
        self._session = aiohttp.ClientSession(
            headers=self._headers, cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(sock_connect=10)
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    @property
    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("use it as an async context manager: async with …")
        return self._session

    async def rest(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> Any:
        """Call a REST route; its JSON.

        Raises ServiceError and Unreachable.
        """
        try:
            data = None if body is None else orjson.dumps(body, option=orjson.OPT_UTC_Z)
        except TypeError as error:
            raise ValueError(f"what is sent must be JSON: {error}") from error
        said = {**(headers or {}), **({} if data is None else {"Content-Type": "application/json"})}
        try:
            async with self._http.request(
                method, self._url + path, data=data, headers=said, timeout=self._timeout, allow_redirects=False
            ) as response:
                content = await response.read()
        except _LOST as error:
            raise Unreachable(f"the service cannot be reached: {str(error) or type(error).__name__}") from error
        answer = _decoded(content)
        if response.status < 300:
            return answer
        problem = answer if isinstance(answer, dict) else {}
        raise ServiceError(
            str(problem.get("detail") or f"the service answered {response.status}"),
            str(problem.get("code", "")),
            response.status,
            problem.get("field"),
        )

    async def graphql(self, query: str, variables: dict[str, Any] | None = None) -> Any:
        """Run a query or mutation; its data.

        Raises ServiceError and Unreachable.
        """
        return _data(await self.rest("POST", "/graphql", {"query": query, "variables": variables or {}}))

    async def subscribe(self, query: str, variables: dict[str, Any] | None = None) -> AsyncIterator[Any]:
        """Run a subscription over graphql-transport-ws; its data, item by item, until it completes.

        A connection that is lost is made again, and the subscription with it: a subscription on a job begins with its
        present state.

        Raises ServiceError, and Unreachable when there has been no connection for as long as a call may take.
        """
        pause, loop = 0.1, asyncio.get_running_loop()
        lost_at: float | None = None
        while True:
            if lost_at is not None and loop.time() - lost_at > (self._timeout.total or 0.0):
                raise Unreachable("the service cannot be reached: the subscription's connection could not be made")
            lost_at = lost_at or loop.time()
            try:
                async with self._http.ws_connect(
                    f"{self._url}/graphql", protocols=["graphql-transport-ws"], heartbeat=20
                ) as socket:
                    await socket.send_json(
                        {"type": "connection_init", "payload": {"authorization": self._headers["Authorization"]}}
                    )
                    start = {"query": query, "variables": variables or {}}
                    await socket.send_json({"id": "1", "type": "subscribe", "payload": start})
                    async for frame in socket:
                        message = orjson.loads(frame.data)
                        match message["type"]:
                            case "next":
                                pause, lost_at = 0.1, None
                                yield _data(message["payload"])
                            case "error":
                                _data({"errors": message["payload"]})
                            case "complete":
                                return
                            case _:
                                pass
                    if socket.close_code in (4400, 4401, 4403):
                        raise ServiceError(f"the subscription was ended with {socket.close_code}", "UNAUTHENTICATED")
            except aiohttp.WSServerHandshakeError as error:
                if error.status in (401, 403):
                    message = f"the service refused the subscription: {error.status}"
                    raise ServiceError(message, status=error.status) from error
            except _LOST:
                pass
            await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311  # jitter, not a secret
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _decoded(content: bytes) -> Any:
    try:
        return orjson.loads(content) if content else None
    except ValueError:
        return content.decode(errors="replace")


def _data(answer: Any) -> Any:
    if isinstance(answer, dict) and not answer.get("errors") and "data" in answer:
        return answer["data"]
    errors = answer.get("errors") if isinstance(answer, dict) else None
    if not errors:
        raise ServiceError(f"the service answered {answer!r}")
    first = errors[0].get("extensions") or {}
    raise ServiceError(
        "; ".join(error["message"] for error in errors), str(first.get("code", "")), 0, first.get("field")
    )
