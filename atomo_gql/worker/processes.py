"""Processes for what keeps a CPU busy.

A thread holds up the event loop while it computes; a process does not, and unlike a thread it can be ended: when the
attempt is over, its process is killed. Processes are started with `spawn`, so the function and its arguments have to be
importable and picklable, and are kept for the next call.
"""

import asyncio
import multiprocessing
import pickle
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

_SPAWN = multiprocessing.get_context("spawn")


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
        """Whether it raised, and what it returned or raised."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[None] = loop.create_future()
        self._pipe.send_bytes(call)
        loop.add_reader(self._pipe.fileno(), _settle, answered)
        try:
            await answered
        finally:
            loop.remove_reader(self._pipe.fileno())
        try:
            answer: tuple[bool, Any] = pickle.loads(self._pipe.recv_bytes())  # noqa: S301 -- from our own process
        except EOFError:
            self._process.join(1)
            raise RuntimeError(f"the process ended with status {self._process.exitcode}") from None
        return answer

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.join(5)
        self._pipe.close()


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _serve(pipe: Connection) -> None:
    """The life of a process: call after call, until the pipe is closed."""
    while True:
        try:
            call = pipe.recv_bytes()
        except (EOFError, KeyboardInterrupt):
            return
        pipe.send_bytes(_answer(call))


def _answer(call: bytes) -> bytes:
    try:
        function, arguments, named = pickle.loads(call)  # noqa: S301 -- from our own process
        return pickle.dumps((False, function(*arguments, **named)))
    except Exception as error:
        trace = traceback.format_exc()
        try:
            return pickle.dumps((True, (error, trace)))
        except Exception:  # it cannot be pickled itself
            return pickle.dumps((True, (RuntimeError(f"{type(error).__name__}: {error}"), trace)))
