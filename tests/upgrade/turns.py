"""Kinds of load: each is a call, or a short story of calls, made again and again until it is told to stop."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from .balancer import Balancer, Refused


@dataclass(frozen=True)
class Turn:
    """A kind of load. `loops` of it run side by side, and each makes a pause after every call."""

    kind: str
    call: Callable[[], Awaitable[None]]
    pause: float = 0.2  # seconds
    loops: int = 1


class Turns:
    """Turns that run. What goes wrong in one of them is noted, and it goes on."""

    def __init__(self, balancer: Balancer, turns: Sequence[Turn]) -> None:
        self._balancer = balancer
        self._stopping = asyncio.Event()
        self._tasks = [asyncio.create_task(self._repeat(turn)) for turn in turns for _ in range(turn.loops)]

    async def stop(self) -> None:
        """No further call is made; those under way are answered."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)

    async def _repeat(self, turn: Turn) -> None:
        while not self._stopping.is_set():
            try:
                await turn.call()
            except Refused:
                pass  # it was noted
            except Exception as error:  # whatever a client meets is what this looks for
                self._balancer.failed(turn.kind, repr(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), turn.pause)
