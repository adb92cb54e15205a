"""Threads for plain `def` handlers.

They are daemon threads, which concurrent.futures does not offer: a handler that is deaf to `ctx.cancelled` must not
hold up a process that was told to stop and has handed its job back.
"""

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any

_Work = Callable[[], None]
_Outcome = tuple[Any, BaseException | None]


class Threads:
    """At most `size` threads, started when first needed. The worker never has more jobs in hand than that."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._started = 0
        self._busy = 0
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """`function(*arguments)` in a thread, in a copy of the caller's context.

        A cancelled caller stops waiting; the thread goes on, and its result is dropped.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[_Outcome] = loop.create_future()
        context = contextvars.copy_context()

        def work() -> None:
            outcome: _Outcome
            try:
                outcome = (context.run(function, *arguments), None)
            except BaseException as error:
                outcome = (None, error)
            try:
                loop.call_soon_threadsafe(self._finish, done, outcome)
            except RuntimeError:  # the loop is closed: the worker is gone, and with it whoever waited
                return

        self._busy += 1
        if self._busy > self._started and self._started < self._size:
            self._started += 1
            threading.Thread(target=self._serve, name=f"atomo-worker-{self._started}", daemon=True).start()
        self._work.put(work)
        result, error = await done
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """Let idle threads end. Busy ones end with their handler, or with the process."""
        for _ in range(self._started):
            self._work.put(None)

    def _finish(self, done: "asyncio.Future[_Outcome]", outcome: _Outcome) -> None:
        self._busy -= 1
        if not done.done():
            done.set_result(outcome)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work  # keep no job's payload alive while idle
