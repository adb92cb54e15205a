"""Natural batching: concurrent single calls share one statement.

A call goes out at once when the database is idle; while calls are in flight the next ones gather, and go together as
soon as one is back. There is no timer, so nothing waits for company that may not come.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from atomo_gql.domain.errors import Unavailable
from atomo_gql.store.database import is_data_error

Item = TypeVar("Item")
Result = TypeVar("Result")
_Group = tuple[Sequence[Item], "asyncio.Future[Sequence[Result]]"]  # what came together


class Batcher(Generic[Item, Result]):
    """Gathers items, and runs them together."""

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        flights: int = 2,
        size: int = 500,
        weigh: Callable[[Item], int] = lambda item: 0,
        most_weight: int = 8_000_000,
        backlog: int = 20_000,
    ) -> None:
        """`run` answers a result per item, in order. At most `flights` runs at once, each of `size` items and
        `most_weight` (bytes, by `weigh`); more than `backlog` items waiting are refused."""
        self._run = run
        self._free = flights
        self._size = size
        self._weigh = weigh
        self._most_weight = most_weight
        self._backlog = backlog
        self._waiting: deque[_Group[Item, Result]] = deque()
        self._count = 0  # items waiting
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
        if self._count >= self._backlog:
            raise Unavailable("the server has more requests waiting for the database than it may hold; try again")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Sequence[Result]] = loop.create_future()
        self._waiting.append((items, future))
        self._count += len(items)
        if not self._scheduled and self._free:
            # At the end of this turn of the loop: requests that arrived together go together.
            self._scheduled = True
            loop.call_soon(self._launch)
        return future

    def _launch(self) -> None:
        self._scheduled = False
        while self._free and self._waiting:
            batch: list[_Group[Item, Result]] = []
            count, weight = 0, 0
            while self._waiting and (not batch or count < self._size):
                weight += sum(map(self._weigh, self._waiting[0][0]))
                if batch and weight >= self._most_weight:
                    break
                batch.append(self._waiting.popleft())
                count += len(batch[-1][0])
            self._count -= count
            self._free -= 1
            task = asyncio.create_task(self._fly(batch))
            self._flights.add(task)
            task.add_done_callback(self._flights.discard)

    async def _fly(self, batch: "list[_Group[Item, Result]]") -> None:
        try:
            await self._settle(batch)
        finally:
            self._free += 1
            self._launch()

    async def _settle(self, batch: "list[_Group[Item, Result]]") -> None:
        try:
            results = await self._run([item for items, _ in batch for item in items])
        except Exception as error:
            if len(batch) > 1 and is_data_error(error):
                # One of them is to blame; none of them was written. Each for itself, then.
                for group in batch:
                    await self._settle([group])
                return
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        begin = 0
        for items, future in batch:
            end = begin + len(items)
            if not future.done():
                future.set_result(results[begin:end])
            begin = end
