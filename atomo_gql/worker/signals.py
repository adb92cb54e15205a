"""SIGTERM and SIGINT."""

import asyncio
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Protocol

logger = logging.getLogger("atomo_gql.worker")
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_ends_process = False


class _Stop(Protocol):
    def __call__(self, *, now: bool) -> None: ...


class StopSignals:
    """The first signal stops a run, the second stops it now, and a third ends the process as if unhandled.

    Once the run has ended, signals are ignored until `handled` ends.
    """

    def __init__(self, stop: _Stop) -> None:
        """`stop` may be called from any thread."""
        self._stop = stop
        self._seen = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._has_ended = False

    @contextmanager
    def handled(self) -> Iterator[None]:
        """For the length of the block. Python allows it in the main thread only; in another one this does nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                following = signal.SIG_DFL if handler is None else handler
                signal.signal(number, signal.SIG_IGN if _ends_process else following)

    @contextmanager
    def during_run(self) -> Iterator[None]:
        """The run, on its event loop."""
        self._loop = asyncio.get_running_loop()
        try:
            yield
        finally:
            self._has_ended = True

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Python calls this between any two instructions of the main thread, so the loop writes the log."""
        if self._loop is None:
            self._count()
            return
        with suppress(RuntimeError):  # the loop is closed: the run has ended
            self._loop.call_soon_threadsafe(self._tell, signal.Signals(number).name)

    def _tell(self, name: str) -> None:
        if self._has_ended:
            return
        logger.info("%s: %s", name, "stopping now" if self._seen else "stopping")
        self._count()

    def _count(self) -> None:
        self._seen += 1
        self._stop(now=self._seen > 1)
        if self._seen > 1:
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)


def end_process_after_run() -> None:
    """Have signals ignored after the run of a worker, for nothing but the end of the process follows it.

    With the handlers from before, a signal that comes just then would end it with another status.
    """
    global _ends_process
    _ends_process = True
