"""How long a worker's progress takes to a page, with many pages open, and what a page costs the server.

    python -m benchmarks.watching [--sockets 2000] [--json FILE]

Each socket watches a job of its own over `graphql-transport-ws`. Progress is sent at a steady pace; the time runs from
before the worker's request until the frame is there, in one process and by one clock.
"""

import asyncio
import gc
import json
import os
import resource
import statistics
import time
from pathlib import Path
from typing import Any

import aiohttp
import click
import orjson

from atomo_gql.store import enqueue
from atomo_gql.store.enqueue import EnqueueRow
from benchmarks.rig import Rig, a_rig

_QUEUE = "watched"
_PACE = 200  # progress reports per second
_WATCH = "subscription ($id: ID!) { jobProgress(id: $id) { percent } }"


class Page:
    """A socket that watches one job, and notes when each progress arrives."""

    def __init__(self) -> None:
        self.seen: dict[float, float] = {}  # percent → when
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def watch(self, http: aiohttp.ClientSession, url: str, jwt: str, job_id: str) -> None:
        """Until it is cancelled."""
        async with http.ws_connect(f"{url}/graphql", protocols=["graphql-transport-ws"], max_msg_size=0) as socket:
            await socket.send_json({"type": "connection_init", "payload": {"authorization": f"Bearer {jwt}"}})
            await socket.receive()
            payload = {"query": _WATCH, "variables": {"id": job_id}}
            await socket.send_json({"id": "1", "type": "subscribe", "payload": payload})
            async for message in socket:
                now = time.perf_counter()
                percent = orjson.loads(message.data)["payload"]["data"]["jobProgress"]["percent"]
                if percent is None:
                    if not self.ready.done():
                        self.ready.set_result(None)
                else:
                    self.seen[percent] = now


async def measure(rig: Rig, sockets: int, reports: int) -> dict[str, Any]:
    """The latencies in ms, and the server's memory per socket in KiB."""
    url = f"http://127.0.0.1:{rig.server.port}"
    row = EnqueueRow("", _QUEUE, "noop", b"{}", None, 5, 0, None, "user:bench", None)
    for start in range(0, sockets, 500):
        await enqueue.enqueue(rig.store, [row] * min(500, sockets - start))
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as http:
        worker = await _token(http, url, rig.jwt)
        leased = [job for _ in range(0, sockets, 100) for job in await _lease(http, url, worker)]
        before = _resident_kib(rig.server.pid)
        pages = {job["id"]: Page() for job in leased}
        watching = []
        for job_id, page in pages.items():
            watching.append(asyncio.create_task(page.watch(http, url, rig.jwt, job_id)))
            if len(watching) % 50 == 0:
                await asyncio.gather(*(p.ready for p in list(pages.values())[: len(watching)]))
        await asyncio.gather(*(page.ready for page in pages.values()))
        memory = (_resident_kib(rig.server.pid) - before) / sockets
        sent: dict[tuple[str, float], float] = {}

        async def report(number: int) -> None:
            job, percent = leased[number % len(leased)], float(number)
            sent[job["id"], percent] = time.perf_counter()
            body = {"leaseId": job["leaseId"], "percent": percent}
            async with http.post(f"{url}/jobs/{job['id']}/progress", json=body, headers=worker) as answer:
                assert answer.status == 204, await answer.text()

        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(reports):
                await asyncio.sleep(max(0.0, began + number / _PACE - time.perf_counter()))
                group.create_task(report(number))
        await asyncio.sleep(1)
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
    took = sorted(
        (pages[job_id].seen[percent] - at) * 1000
        for (job_id, percent), at in sent.items()
        if percent in pages[job_id].seen
    )
    cuts = statistics.quantiles(took, n=100)
    return {
        "sockets": sockets,
        "reports": reports,
        "arrived": len(took),
        "p50Milliseconds": cuts[49],
        "p99Milliseconds": cuts[98],
        "memoryPerSocketKiB": memory,
    }


async def _token(http: aiohttp.ClientSession, url: str, jwt: str) -> dict[str, str]:
    body = {"name": "bench", "queues": [_QUEUE]}
    async with http.post(f"{url}/jobs/workers", json=body, headers={"authorization": f"Bearer {jwt}"}) as answer:
        return {"x-worker-token": (await answer.json())["token"]}


async def _lease(http: aiohttp.ClientSession, url: str, worker: dict[str, str]) -> list[Any]:
    body = {"queues": [_QUEUE], "capacity": 100, "visibilitySecs": 3_600}
    async with http.post(f"{url}/jobs/lease", json=body, headers=worker) as answer:
        jobs: list[Any] = (await answer.json())["jobs"]
        return jobs


def _resident_kib(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


@click.command()
@click.option("--sockets", default=2_000, show_default=True, type=click.IntRange(2))
@click.option("--reports", default=2_000, show_default=True, type=click.IntRange(100))
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Also write the figures there.")
def main(sockets: int, reports: int, file: Path | None) -> None:
    """Watch many jobs over many sockets (Linux)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    gc.disable()  # the clock is here: what this process itself stops for is nobody's latency

    async def run() -> dict[str, Any]:
        async with a_rig() as rig:
            return await measure(rig, sockets, reports)

    told = asyncio.run(run())
    click.echo(
        f"{told['sockets']:,} sockets, {told['arrived']:,} of {told['reports']:,} reports at {_PACE}/s seen: "
        f"p50 {told['p50Milliseconds']:.1f} ms, p99 {told['p99Milliseconds']:.1f} ms from the worker's request to the "
        f"frame; {told['memoryPerSocketKiB']:.0f} KiB of the server's memory per socket"
    )
    if file:
        file.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
