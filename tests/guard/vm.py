"""Counting what the Python VM does in this thread: instructions, and calls of functions, Python's and C's."""

import asyncio
import contextlib
import selectors
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

# How often the event loop turns is a matter of time: how soon the database answers, and in how many pieces.
_LOOP = {
    sys.modules[name].__file__
    for name in (asyncio.base_events.__name__, asyncio.selector_events.__name__, asyncio.events.__name__)
} | {selectors.__file__}


@dataclass(slots=True)
class Count:
    """What was counted."""

    instructions: int = 0
    calls: int = 0

    def start(self) -> None:
        """Count what begins, or goes on, from now on in this thread."""

        def step(frame: FrameType, event: str, _: Any) -> Any:
            if event == "opcode":
                self.instructions += 1
            return step

        def enter(frame: FrameType, event: str, _: Any) -> Any:
            if frame.f_code.co_filename in _LOOP:
                return None
            frame.f_trace_lines, frame.f_trace_opcodes = False, True
            return step

        def profile(frame: FrameType, event: str, _: Any) -> None:
            if event in ("call", "c_call") and frame.f_code.co_filename not in _LOOP:
                self.calls += 1

        sys.setprofile(profile)
        sys.settrace(enter)

    def stop(self) -> None:
        """Count no more."""
        sys.settrace(None)
        sys.setprofile(None)


@contextlib.contextmanager
def counted() -> Iterator[Count]:
    """What this thread does in the block."""
    count = Count()
    count.start()
    try:
        yield count
    finally:
        count.stop()
