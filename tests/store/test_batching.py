"""When flights leave, and with whom: the batcher without a database."""

import asyncio
from collections.abc import Sequence

import asyncpg
import pytest

from atomo_gql.domain.errors import Unavailable
from atomo_gql.store.batching import Batcher


class Air:
    """What is under way, and lands when it is told to."""

    def __init__(self, *, size: int = 10, late: float = 0.0, beside: float = 1.0) -> None:
        self.flights: list[list[int]] = []
        self._landings: list[asyncio.Event] = []
        self.batcher: Batcher[int, int] = Batcher(self._fly, size=size, late=late, beside=beside)

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


async def test_another_leaves_beside_it_when_it_would_be_as_large() -> None:
    air = Air(late=60)
    calls = [asyncio.create_task(air.batcher.submit(n)) for n in (1, 2, 3)]
    await _turns()
    for n in (4, 5, 6, 7):
        assert air.flights == [[1, 2, 3]]
        calls.append(asyncio.create_task(air.batcher.submit(n)))
        await _turns()
        if n == 6:
            assert air.flights.pop() == [4, 5, 6]
    air.land(0)
    await _turns()
    assert air.flights == [[1, 2, 3]]  # of three that are under way, one does not make two
    air.land(1)
    await _turns()
    assert air.flights[1:] == [[7]]
    air.land(2)
    assert await asyncio.gather(*calls) == [-n for n in range(1, 8)]


async def test_a_full_load_leaves_beside_a_larger_one() -> None:
    air = Air(size=3, late=60)
    many = asyncio.create_task(air.batcher.submit_many([1, 2, 3, 4, 5]))
    await _turns()
    calls = [asyncio.create_task(air.batcher.submit(n)) for n in (6, 7)]
    await _turns()
    assert air.flights == [[1, 2, 3, 4, 5]]
    calls.append(asyncio.create_task(air.batcher.submit(8)))
    await _turns()
    assert air.flights[1:] == [[6, 7, 8]]
    air.land(0)
    air.land(1)
    assert await many == [-1, -2, -3, -4, -5]
    assert await asyncio.gather(*calls) == [-6, -7, -8]


async def test_one_that_is_late_is_joined_by_whoever_waits() -> None:
    air = Air(late=0.05)
    first = asyncio.create_task(air.batcher.submit_many([1, 2]))
    await _turns()
    second = asyncio.create_task(air.batcher.submit(3))
    await _turns()
    assert air.flights == [[1, 2]]
    async with asyncio.timeout(60):
        while len(air.flights) < 2:
            await asyncio.sleep(0.01)
    air.land(1)
    assert await second == -3
    air.land(0)
    assert await first == [-1, -2]


async def test_what_failed_or_was_given_up_makes_room_again() -> None:
    async def fail(_: Sequence[int]) -> Sequence[int]:
        raise RuntimeError("lost")

    batcher: Batcher[int, int] = Batcher(fail, late=60)
    for _ in range(5):
        calls = [asyncio.create_task(batcher.submit(n)) for n in (1, 2)]
        await asyncio.sleep(0)
        calls[0].cancel()
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(done[0], asyncio.CancelledError)
        assert isinstance(done[1], RuntimeError)


async def test_another_leaves_beside_it_when_it_would_be_so_many_times_as_large_or_full() -> None:
    for size, leaves_at in ((10, 6), (5, 5)):  # one and a half of four, or all that goes
        air = Air(size=size, late=60, beside=1.5)
        calls = [asyncio.create_task(air.batcher.submit(n)) for n in range(4)]
        await _turns()
        for n in range(leaves_at):
            assert air.flights == [[0, 1, 2, 3]]
            calls.append(asyncio.create_task(air.batcher.submit(n)))
            await _turns()
        assert air.flights == [[0, 1, 2, 3], list(range(leaves_at))]
        air.land(0)
        air.land(1)
        await asyncio.gather(*calls)


async def test_what_waits_is_bounded_in_weight_and_without_those_who_have_left() -> None:
    landing = asyncio.Event()
    flown: list[int] = []

    async def fly(items: Sequence[int]) -> Sequence[int]:
        flown.extend(items)
        await landing.wait()
        return items

    batcher: Batcher[int, int] = Batcher(fly, flights=1, weigh=lambda item: item, backlog_weight=100)
    calls = []
    for n in (1, 60, 40):
        calls.append(asyncio.create_task(batcher.submit(n)))
        await _turns()
    with pytest.raises(Unavailable):
        await batcher.submit(1)
    calls[1].cancel()
    landing.set()
    assert [await calls[0], await calls[2]] == [1, 40]
    assert flown == [1, 40]
    assert await batcher.submit(99) == 99


async def test_one_that_is_refused_is_found_in_few_flights() -> None:
    flights: list[int] = []

    async def fly(items: Sequence[int]) -> Sequence[int]:
        flights.append(len(items))
        if 77 in items:
            raise asyncpg.DataError("77")
        return items

    batcher: Batcher[int, int] = Batcher(fly)
    answers = await asyncio.gather(*(batcher.submit(n) for n in range(128)), return_exceptions=True)
    assert [n for n, answer in enumerate(answers) if answer != n] == [77]
    assert len(flights) <= 2 * 7 + 1
