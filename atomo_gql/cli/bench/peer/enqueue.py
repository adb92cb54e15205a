"""Jobs, over HTTP."""

import asyncio
import json
import time
from collections.abc import Awaitable, Iterator
from typing import Any

from atomo_gql.cli.bench.peer.kept import URL, kept, say
from atomo_gql.client import AsyncClient

_PADDING = "x" * 80
_now = time.monotonic


async def run(dsn: str, asked: dict[str, Any]) -> None:
    """Over HTTP, `c` requests at a time."""
    count, first, flights = asked["n"], asked.get("start", 0), asked.get("c", 1)
    times: list[tuple[int, float, float]] = []
    async with AsyncClient(URL, json.loads(kept(dsn).read_text())["jwt"]) as client:

        async def one(numbers: Iterator[int]) -> None:
            for number in numbers:
                await client.enqueue("bench", "noop", _payload(number))

        async def many(batches: Iterator[range]) -> None:
            for batch in batches:
                await client.enqueue_many(
                    [{"queue": "bench", "kind": "noop", "payload": _payload(number)} for number in batch]
                )

        async def paced() -> None:
            began = _now()
            for index in range(count):
                await asyncio.sleep(max(0.0, began + index * asked.get("every", 0.05) - _now()))
                called = _now()
                await client.enqueue("bench", "noop", _payload(first + index))
                times.append((first + index, called, _now()))

        numbers = range(first, first + count)
        work: list[Awaitable[None]]
        if asked["mode"] == "lat":
            work = [paced()]
        elif asked["mode"] == "batch":
            size = asked.get("batch", 1_000)
            batches = iter([numbers[at : at + size] for at in range(0, count, size)])
            work = [many(batches) for _ in range(flights)]
        else:
            each = iter(numbers)
            work = [one(each) for _ in range(flights)]
        began = _now()
        await asyncio.gather(*work)
        say(ev="enqueued", n=count, t0=began, t1=_now(), lat=times or None)


def _payload(number: int) -> dict[str, Any]:
    return {"i": number, "pad": _PADDING}
