"""Those who watch: one job to its end, by WebSocket and by SSE, and all that happens, from a kept position."""

import asyncio
import contextlib
import json
from collections import Counter
from typing import Any
from uuid import UUID

import aiohttp

from tests.conftest import admin, bearer

from .balancer import Balancer
from .enqueuing import Enqueuing
from .turns import Turn

_ONE = "subscription ($id: ID!) { jobProgress(id: $id) { jobId status percent result } }"
_ALL = "subscription ($after: String) { jobEvents(after: $after) { position version type jobId } }"
_FIRST = "query ($id: ID!) { job(id: $id) { events { position } } }"
_THERE = "SELECT stream_id::text AS id, version FROM events WHERE stream = 'Job' AND stream_id > $1"
_SECS = 60  # between two words at most


class Left(Exception):
    """The server closed the connection, as it does when it ends."""


class Watching:
    """Whoever is left by a server that ends goes on at another one. No other server may leave anybody."""

    def __init__(self, balancer: Balancer, enqueuing: Enqueuing) -> None:
        self._balancer = balancer
        self._enqueuing = enqueuing
        self._after = ""
        self._first = UUID(int=0)
        self.told: Counter[tuple[str, int]] = Counter()  # events of jobs, by id and version

    def turns(self) -> list[Turn]:
        """Each watches a job of its own, from its beginning."""
        return [
            Turn("watch by WebSocket", self._by_socket, loops=2),
            Turn("watch by SSE", self._by_sse, loops=2),
        ]

    async def begin(self) -> None:
        """The reader of the log begins behind a first job."""
        job_id = await self._enqueuing.enqueue(self._enqueuing.job("complete"))
        found = await self._balancer.graphql("tail", _FIRST, {"id": job_id})
        self._first, self._after = UUID(job_id), found["job"]["events"][0]["position"]

    async def tail(self) -> None:
        """All that happens to jobs, until it is cancelled."""
        while True:
            with contextlib.suppress(Left):
                await self._subscribe("tail", _ALL, {"after": self._after}, admin(), self._take)

    def _take(self, data: Any) -> None:
        event = data["jobEvents"]
        self.told[event["jobId"], event["version"]] += 1
        self._after = event["position"]
        self._balancer.step.calls["tail"] += 1

    async def _by_socket(self) -> None:
        last: list[Any] = []

        def take(data: Any) -> None:
            last[:] = [data["jobProgress"]]

        await self._until_its_end("watch by WebSocket", last, take)

    async def _until_its_end(self, kind: str, last: list[Any], take: Any) -> None:
        body = self._enqueuing.job("progress")
        job_id = await self._enqueuing.enqueue(body)
        while True:
            with contextlib.suppress(Left):
                await self._subscribe(kind, _ONE, {"id": job_id}, bearer(), take)
                break
        self._check_end(kind, last[-1], body)

    async def _subscribe(self, kind: str, query: str, variables: Any, who: dict[str, str], take: Any) -> None:
        """Take what is told until it is complete.

        Raises:
            Left: the server ends.
        """
        name = self._balancer.next()
        url = f"{self._balancer.rig.url_of(name)}/graphql"
        try:
            async with self._balancer.http.ws_connect(
                url, protocols=["graphql-transport-ws"], timeout=aiohttp.ClientWSTimeout(ws_receive=_SECS)
            ) as socket:
                init = {"type": "connection_init", "payload": {"authorization": who["Authorization"]}}
                await socket.send_json(init)
                subscribe = {"id": "1", "type": "subscribe", "payload": {"query": query, "variables": variables}}
                async for message in socket:
                    frame = json.loads(message.data)
                    match frame["type"]:
                        case "connection_ack":
                            await socket.send_json(subscribe)
                        case "ping":
                            await socket.send_json({"type": "pong"})
                        case "next":
                            assert not frame["payload"].get("errors"), frame
                            take(frame["payload"]["data"])
                        case "complete":
                            return
                        case other:
                            raise AssertionError(f"{other}: {frame}")
                await self._left(kind, name, f"closed with {socket.close_code}")
        except (aiohttp.ClientConnectionError, ConnectionError) as error:
            await self._left(kind, name, repr(error))

    async def _left(self, kind: str, name: str, how: str) -> None:
        await asyncio.sleep(0.05)  # a client's pause before it connects again
        if name not in self._balancer.rig.draining:
            self._balancer.failed(kind, f"a server that does not end: {how}")
        raise Left

    async def _by_sse(self) -> None:
        body = self._enqueuing.job("progress")
        job_id = await self._enqueuing.enqueue(body)
        while True:
            with contextlib.suppress(Left):
                last = await self._stream({"query": _ONE, "variables": {"id": job_id}})
                break
        self._check_end("watch by SSE", last, body)

    async def _stream(self, body: Any) -> Any:
        """The last that was told before it was complete."""
        name = self._balancer.next()
        headers = bearer() | {"Accept": "text/event-stream"}
        event, last = b"", None
        try:
            async with self._balancer.http.post(
                f"{self._balancer.rig.url_of(name)}/graphql", json=body, headers=headers
            ) as stream:
                assert stream.status == 200, await stream.text()
                async for line in stream.content:
                    if line.startswith(b"event: "):
                        event = line[7:].strip()
                    if event == b"complete":
                        return last
                    if line.startswith(b"data: ") and event == b"next":
                        told = json.loads(line[6:])
                        assert not told.get("errors"), told
                        last = told["data"]["jobProgress"]
            await self._left("watch by SSE", name, "the stream ended before it was complete")
        except (aiohttp.ClientError, ConnectionError) as error:
            await self._left("watch by SSE", name, repr(error))

    def _check_end(self, kind: str, last: Any, body: Any) -> None:
        self._balancer.step.calls[kind] += 1
        assert last["status"] == "SUCCEEDED", last
        assert last["result"] == body["payload"], last

    async def missed(self, sql: Any) -> int:
        """How many events of jobs the tail has not been told yet."""
        there: int = await sql.fetchval(f"SELECT count(*) FROM ({_THERE}) AS t", self._first)
        return there - self._count()

    async def check(self, sql: Any) -> None:
        """The tail was told each event of a job once."""
        rows = await sql.fetch(_THERE, self._first)
        there = Counter((row["id"], row["version"]) for row in rows)
        assert there - self.told == {}, "events that the reader of the log has missed"
        assert self.told - there == {(str(self._first), n): 1 for n in (2, 3)}, "or was told twice"

    def _count(self) -> int:
        return sum(1 for job_id, _ in self.told if job_id != str(self._first))
