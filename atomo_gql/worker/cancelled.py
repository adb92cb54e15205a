"""The flag that tells a handler that its attempt is over, readable from the event loop and from a thread."""

import asyncio
import threading

_making = threading.Lock()  # of what a thread waits on; seldom asked for, so that one does for all


class Cancelled:
    """Set once the lease is lost or the worker hands the job back; it is never cleared.

    An `async def` handler is cancelled as well (it sees `asyncio.CancelledError`), so it seldom needs this. A plain
    `def` handler cannot be killed: one that runs long should look at `is_set()` now and then, and return. Whatever a
    handler returns or raises after the flag is set is dropped.
    """

    __slots__ = ("_for_loop", "_for_threads", "_is_set")

    def __init__(self) -> None:
        self._is_set = False
        # Made for the first who waits: every job has this flag, and hardly any waits for it.
        self._for_loop: asyncio.Event | None = None
        self._for_threads: threading.Event | None = None

    def is_set(self) -> bool:
        """Whether the attempt is over. Callable from anywhere."""
        return self._is_set

    async def wait(self) -> None:
        """Wait until it is set. For code on the worker's event loop."""
        if self._for_loop is None:
            self._for_loop = asyncio.Event()
        if not self._is_set:
            await self._for_loop.wait()

    def wait_in_thread(self, timeout: float | None = None) -> bool:
        """Block until it is set, at most `timeout` seconds (None: no limit); True when it is set.

        For plain `def` handlers: `if ctx.cancelled.wait_in_thread(5): return` is a sleep that ends early.
        """
        with _making:
            if self._for_threads is None:
                self._for_threads = threading.Event()
            if self._is_set:
                self._for_threads.set()
        return self._for_threads.wait(timeout)

    def set(self) -> None:
        """Called by the SDK, on the event loop."""
        with _making:
            self._is_set = True
            if self._for_threads is not None:
                self._for_threads.set()
        if self._for_loop is not None:
            self._for_loop.set()
