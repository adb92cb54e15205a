"""SIGINT, SIGTERM and SIGHUP, handled from the start of a command to the end of its process.

The handlers of asyncio end with its event loop, and those of Python before the interpreter does. A signal that came in
between would end the process as if it were not handled: with -15, where the first signal has promised 0. So a command
that has something to put in order runs by `run`, whose handlers have no such gap.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, TypeVar, cast

Result = TypeVar("Result")


class _Signals:
    """The signals of the work that runs."""

    def __init__(self, work: "asyncio.Task[Any]") -> None:
        self._loop = asyncio.get_running_loop()
        self._work = work
        self._callback: Callable[[], None] | None = None
        self._has_come = False
        self.cancelled_by: int | None = None  # the signal's number

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Python calls this between any two instructions of the main thread; the loop does the rest."""
        self._loop.call_soon_threadsafe(self._tell, number)

    def call(self, callback: Callable[[], None]) -> None:
        """From now on call this; once for those that have come already."""
        self._callback = callback
        if self._has_come:
            self._loop.call_soon(callback)

    def _tell(self, number: int) -> None:
        if self._callback:
            self._callback()
        elif not self._has_come:
            self.cancelled_by = number
            self._work.cancel()
        self._has_come = True


_current: _Signals | None = None


def run(work: Coroutine[Any, Any, Result], *, ends_process: bool = True) -> Result:
    """Run this as `asyncio.run` does, with the signals handled as `on_signals` says.

    Until the work has called `on_signals`, the first signal cancels it, and it can end what it has started; further
    signals do nothing.

    Args:
        work: what to run, in the main thread.
        ends_process: nothing but the end of the process follows, so signals are ignored once the work has ended.
            Otherwise they do again what they did before.

    Raises:
        SystemExit: a signal has cancelled the work; the status is 128 and the signal's number.
    """
    cancelled_by: int | None = None

    async def with_signals() -> Result:
        global _current
        nonlocal cancelled_by
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        _current = signals = _Signals(task)
        previous = {number: signal.signal(number, signals.on_signal) for number in _numbers()}
        try:
            return await work
        finally:
            cancelled_by = signals.cancelled_by
            _current = None
            if ends_process:
                ignore_signals()
            else:
                for number, handler in previous.items():
                    signal.signal(number, signal.SIG_DFL if handler is None else handler)

    try:
        return asyncio.run(with_signals())
    except BaseException:  # of several things that were cancelled, one may have failed by that
        if cancelled_by is None:
            raise
        raise SystemExit(128 + cancelled_by) from None
    finally:
        work.close()  # it has not begun where SIGINT came before the handlers were there


def on_signals(callback: Callable[[], None]) -> None:
    """From now on call this, on the event loop, at each signal; at once if one has come already.

    Raises:
        RuntimeError: what calls this is not run by `run`.
    """
    if _current is None:
        raise RuntimeError("on_signals works within signals.run alone")
    _current.call(callback)


def send(process: asyncio.subprocess.Process, number: int) -> None:
    """Send a signal to a child process, which may have ended.

    `Process.send_signal` of Python 3.11 looks whether it has, and so takes its exit status away from `Process.wait`.
    """
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def ignore_signals() -> None:
    """From now on signals do nothing: nothing but the end of the process follows.

    No handler of Python's would do, since the interpreter takes those back while it ends.
    """
    for number in _numbers():
        signal.signal(number, signal.SIG_IGN)


def _numbers() -> list[signal.Signals]:
    """The signals that ask a process to end. `nohup` has SIGHUP ignored, and so it stays."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return numbers
