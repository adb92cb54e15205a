"""Threads for plain `def` handlers.

They are daemon threads, which concurrent.futures does not offer: a handler that is deaf to `ctx.cancelled` must not
hold up a process that was told to stop and has handed its job back.
"""

import asyncio
import contextvars
import logging
import queue
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("atomo_gql.worker")

_Work = Callable[[], None]
_Outcome = tuple[Any, BaseException | None]


class Threads:
    """At most `size` threads, started when first needed. The worker never has more jobs in hand than that.

    left_behind: by kind, threads that nobody waits for any more and that still run, so that there is no room in them.
    on_free: told when one of those has ended.
    """

    def __init__(self, size: int, on_free: Callable[[], None]) -> None:
        self.left_behind: Counter[str] = Counter()
        self._on_free = on_free
        self._size = size
        self._started = 0
        self._busy = 0
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()

    async def run(self, kind: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """`function(*arguments)`, a handler of that kind, in a thread, in a copy of the caller's context.

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
                loop.call_soon_threadsafe(self._finish, kind, done, outcome)
            except RuntimeError:  # the loop is closed: the worker is gone, and with it whoever waited
                return

        self._busy += 1
        if self._busy > self._started and self._started < self._size:
            self._started += 1
            threading.Thread(target=self._serve, name=f"atomo-worker-{self._started}", daemon=True).start()
        self._work.put(work)
        try:
            result, error = await done
        except asyncio.CancelledError:
            if done.cancelled():
                self.left_behind[kind] += 1
                logger.warning("a thread of %s goes on after its attempt has ended: no room in it until it ends", kind)
            raise
        if isinstance(error, KeyboardInterrupt):  # the handler's own; as it is, it would end the event loop
            raise RuntimeError("the handler raised KeyboardInterrupt") from error
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """Let idle threads end. Busy ones end with their handler, or with the process."""
        for _ in range(self._started):
            self._work.put(None)

    def _finish(self, kind: str, done: "asyncio.Future[_Outcome]", outcome: _Outcome) -> None:
        self._busy -= 1
        if not done.done():
            done.set_result(outcome)
        else:
            self.left_behind[kind] -= 1
            self._on_free()

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work  # keep no job's payload alive while idle
