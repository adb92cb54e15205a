"""Natural batching: concurrent single calls share one statement.

A call goes out at once when the database is idle; while calls are in flight the next ones gather, and go together as
soon as one is back. A larger flight is cheaper for each in it, so another one leaves beside it only when it would be as
large, or larger, or when the one before it is late: what waits beside a flight waits for its return, and a bounded time
at most.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from atomo_gql.domain.errors import Unavailable
from atomo_gql.store.database import is_data_error

Item = TypeVar("Item")
Result = TypeVar("Result")
_Group = tuple[Sequence[Item], int, "asyncio.Future[Sequence[Result]]"]  # what came together, and its weight


class Batcher(Generic[Item, Result]):
    """Gathers items, and runs them together."""

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        flights: int = 2,
        beside: float = 1.0,
        size: int = 500,
        weigh: Callable[[Item], int] = lambda item: 0,
        most_weight: int = 8_000_000,
        late: float = 0.02,
        backlog: int = 20_000,
        backlog_weight: int = 128_000_000,
    ) -> None:
        """`run` answers a result per item, in order. At most `flights` runs at once, each of `size` items and
        `most_weight` (bytes, by `weigh`); where `backlog` items or `backlog_weight` wait, more are refused. Another
        leaves beside one when `beside` times as many wait as are in it. `late`: seconds that one is under way alone
        while fewer wait; several times what a flight of some hundreds takes."""
        self._run = run
        self._most_flights = flights
        self._beside = beside
        self._late = late
        self._left_at = 0.0  # the last flight, by the event loop's time
        self._timer: asyncio.TimerHandle | None = None
        self._size = size
        self._weigh = weigh
        self._most_weight = most_weight
        self._backlog = backlog
        self._backlog_weight = backlog_weight
        self._waiting: deque[_Group[Item, Result]] = deque()
        self._count = 0  # items waiting
        self._weight = 0
        self._in_air = 0
        self._flights: set[asyncio.Task[None]] = set()
        self._scheduled = False

    async def submit(self, item: Item) -> Result:
        """Run one item, in company if there is any.

        Raises:
            Unavailable: too many are waiting already, or the database was lost; and whatever `run` raises.
        """
        return (await self._put([item]))[0]

    async def submit_many(self, items: Sequence[Item]) -> Sequence[Result]:
        """Run items that came together, and stay so.

        Raises:
            As `submit`, for all of them.
        """
        return await self._put(items) if items else []

    def _put(self, items: Sequence[Item]) -> "asyncio.Future[Sequence[Result]]":
        if self._count >= self._backlog or self._weight >= self._backlog_weight:
            raise Unavailable("the server has more requests waiting for the database than it may hold; try again")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Sequence[Result]] = loop.create_future()
        weight = sum(map(self._weigh, items))
        self._waiting.append((items, weight, future))
        self._count += len(items)
        self._weight += weight
        if not self._scheduled and len(self._flights) < self._most_flights:
            # At the end of this turn of the loop: requests that arrived together go together.
            self._scheduled = True
            loop.call_soon(self._launch)
        return future

    def _launch(self) -> None:
        self._scheduled = False
        while self._waiting and self._may_leave():
            batch: list[_Group[Item, Result]] = []
            count, weight = 0, 0
            while self._waiting and (not batch or count < self._size):
                items, its_weight, future = self._waiting[0]
                if batch and weight + its_weight >= self._most_weight:
                    break
                self._waiting.popleft()
                self._count -= len(items)
                self._weight -= its_weight
                if future.cancelled():  # nobody is there for it any more
                    continue
                batch.append((items, its_weight, future))
                count += len(items)
                weight += its_weight
            if not batch:
                return
            self._in_air += count
            loop = asyncio.get_running_loop()
            self._left_at = loop.time()
            task = loop.create_task(self._fly(batch, count))
            self._flights.add(task)
            task.add_done_callback(self._landed)

    def _may_leave(self) -> bool:
        if not self._flights:
            return True
        if len(self._flights) == self._most_flights:
            return False
        if self._count >= min(self._beside * self._in_air, self._size) or self._weight >= self._most_weight:
            return True
        loop = asyncio.get_running_loop()
        if (late_at := self._left_at + self._late) <= loop.time():
            return True
        if self._timer is None:
            self._timer = loop.call_at(late_at, self._look_again)
        return False

    def _look_again(self) -> None:
        self._timer = None
        self._launch()

    async def _fly(self, batch: "list[_Group[Item, Result]]", count: int) -> None:
        try:
            await self._settle(batch)
        finally:
            self._in_air -= count

    def _landed(self, flight: "asyncio.Task[None]") -> None:
        self._flights.discard(flight)
        self._launch()

    async def _settle(self, batch: "list[_Group[Item, Result]]") -> None:
        try:
            results = await self._run([item for items, _, _ in batch for item in items])
        except Exception as error:
            if len(batch) > 1 and is_data_error(error):
                # One of them is to blame; none of them was written. It is in one half of them.
                middle = len(batch) // 2
                await self._settle(batch[:middle])
                await self._settle(batch[middle:])
                return
            for _, _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        begin = 0
        for items, _, future in batch:
            end = begin + len(items)
            if not future.done():
                future.set_result(results[begin:end])
            begin = end
