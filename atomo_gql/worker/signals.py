"""SIGTERM and SIGINT."""

import asyncio
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

logger = logging.getLogger("atomo_gql.worker")
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class _Stop(Protocol):
    def __call__(self, *, now: bool) -> None: ...


@contextmanager
def stop_on_signals(stop: _Stop) -> Iterator[None]:
    """Within it the first signal stops, the second stops now, and a third ends the process as if unhandled.

    Python allows this in the main thread only; in another one it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    seen = 0

    def told(name: str) -> None:
        nonlocal seen
        seen += 1
        logger.info("%s: %s", name, "stopping" if seen == 1 else "stopping now")
        stop(now=seen > 1)
        if seen > 1:
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)

    def on_signal(number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(told, signal.Signals(number).name)

    previous = {number: signal.signal(number, on_signal) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
