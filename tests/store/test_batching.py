"""When flights leave, and with whom: the batcher without a database."""

import asyncio
from collections.abc import Sequence

from atomo_gql.store.batching import Batcher


class Air:
    """What is under way, and lands when it is told to."""

    def __init__(self, *, size: int = 10, late: float = 0.0) -> None:
        self.flights: list[list[int]] = []
        self._landings: list[asyncio.Event] = []
        self.batcher: Batcher[int, int] = Batcher(self._fly, size=size, late=late)

    async def _fly(self, items: Sequence[int]) -> Sequence[int]:
        landing = asyncio.Event()
        self.flights.append(list(items))
        self._landings.append(landing)
        await landing.wait()
        return [-item for item in items]

    def land(self, number: int) -> None:
        """Let it come back."""
        self._landings[number].set()


async def _turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_comes_in_one_turn_of_the_loop_flies_together_and_at_once() -> None:
    air = Air()
    calls = [asyncio.create_task(air.batcher.submit(n)) for n in (1, 2, 3)]
    await _turns()
    assert air.flights == [[1, 2, 3]]
    air.land(0)
    assert await asyncio.gather(*calls) == [-1, -2, -3]


async def test_two_flights_are_under_way_at_most_and_the_rest_gathers() -> None:
    air = Air()
    calls = []
    for n in (1, 2, 3, 4):
        calls.append(asyncio.create_task(air.batcher.submit(n)))
        await _turns()
    assert air.flights == [[1], [2]]
    air.land(1)
    await _turns()
    assert air.flights == [[1], [2], [3, 4]]
    air.land(0)
    air.land(2)
    assert await asyncio.gather(*calls) == [-1, -2, -3, -4]


async def test_one_that_may_be_alone_is_joined_by_a_full_load() -> None:
    air = Air(size=3, late=60)
    calls = []
    for n in (1, 2, 3, 4):
        calls.append(asyncio.create_task(air.batcher.submit(n)))
        await _turns()
        assert len(air.flights) == (2 if n == 4 else 1)
    assert air.flights == [[1], [2, 3, 4]]
    last = asyncio.create_task(air.batcher.submit(5))
    await _turns()
    assert len(air.flights) == 2
    air.land(0)
    await _turns()
    assert len(air.flights) == 2  # the other one is under way, and not late
    air.land(1)
    await _turns()
    assert air.flights[2:] == [[5]]
    air.land(2)
    assert await asyncio.gather(*calls, last) == [-1, -2, -3, -4, -5]


async def test_one_that_is_late_is_joined_by_whoever_waits() -> None:
    air = Air(late=0.05)
    first = asyncio.create_task(air.batcher.submit(1))
    await _turns()
    second = asyncio.create_task(air.batcher.submit(2))
    await _turns()
    assert air.flights == [[1]]
    async with asyncio.timeout(20):
        while len(air.flights) < 2:
            await asyncio.sleep(0.01)
    air.land(1)
    assert await second == -2
    air.land(0)
    assert await first == -1
