"""Processes for what keeps a CPU busy.

A thread holds up the event loop while it computes; a process does not, and unlike a thread it can be ended: when the
attempt is over, its process is killed. Processes are started with `spawn`, so the function and its arguments have to be
importable and picklable, and are kept for the next call.
"""

import asyncio
import contextlib
import multiprocessing
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

_SPAWN = multiprocessing.get_context("spawn")
UNGUARDED = 78  # the status of a process that would have become a worker
GUARD = 'put worker.run() behind `if __name__ == "__main__":`'


class RemoteError(Exception):
    """The traceback of the other process, as the cause of what was raised there."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class Processes:
    """Idle ones are kept; there are never more than calls under way at a time."""

    def __init__(self) -> None:
        self._idle: list[_Process] = []

    async def run(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """`function(*arguments, **named)` in a process; a caller that is cancelled kills it.

        Raises ValueError for what cannot be pickled, and whatever the function raises.
        """
        try:
            call = pickle.dumps((function, arguments, named))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ValueError(
                f"run_in_process needs a function of a module, and picklable arguments: {error}"
            ) from error
        process = self._idle.pop() if self._idle else _Process()
        try:
            is_error, answer = await process.call(call)
        except BaseException:
            process.kill()
            raise
        self._idle.append(process)
        if not is_error:
            return answer
        raised, trace = answer
        raise raised from RemoteError(trace)

    def close(self) -> None:
        """End those that are idle."""
        for process in self._idle:
            process.kill()
        self._idle.clear()


class _Process:
    def __init__(self) -> None:
        self._pipe, theirs = _SPAWN.Pipe()
        self._process: BaseProcess = _SPAWN.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    async def call(self, call: bytes) -> tuple[bool, Any]:
        """Whether it raised, and what it returned or raised. A thread speaks to it: a pipe may be full for long."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[tuple[bool, Any] | None] = loop.create_future()
        threading.Thread(target=self._exchange, args=(call, loop, answered), daemon=True).start()
        answer = await answered
        if answer is None:
            self._process.join(1)
            if self._process.exitcode == UNGUARDED:
                raise RuntimeError(f"run_in_process needs a script that can be imported: {GUARD}")
            raise RuntimeError(f"the process ended with status {self._process.exitcode}")
        return answer

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.join(5)
        self._pipe.close()

    def _exchange(self, call: bytes, loop: asyncio.AbstractEventLoop, answered: "asyncio.Future[Any]") -> None:
        try:
            self._pipe.send_bytes(call)
            answer = pickle.loads(self._pipe.recv_bytes())  # noqa: S301 -- from our own process
        except (EOFError, OSError):
            answer = None
        with contextlib.suppress(RuntimeError):  # the loop is closed: the worker is gone
            loop.call_soon_threadsafe(_settle, answered, answer)


def _settle(future: "asyncio.Future[Any]", answer: Any) -> None:
    if not future.done():
        future.set_result(answer)


def refuse_in_child() -> None:
    """End a process that is being started, and by importing the worker's script would become a worker itself."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.stderr.write(f"atomo_gql.worker: {GUARD}\n")
        raise SystemExit(UNGUARDED)


def _serve(pipe: Connection) -> None:
    """The life of a process: call after call, until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the worker drains
    while True:
        try:
            call = pipe.recv_bytes()
        except EOFError:
            return
        pipe.send_bytes(_answer(call))


def _answer(call: bytes) -> bytes:
    try:
        function, arguments, named = pickle.loads(call)  # noqa: S301 -- from our own process
        return pickle.dumps((False, function(*arguments, **named)))
    except Exception as error:
        trace = traceback.format_exc()
        try:
            answer = pickle.dumps((True, (error, trace)))
            pickle.loads(answer)  # noqa: S301 -- some can be pickled, and not be made again
            return answer
        except Exception:
            return pickle.dumps((True, (RuntimeError(f"{type(error).__name__}: {error}"), trace)))
