"""Waiting with a time limit that costs nothing where there is nothing to wait for."""

import asyncio
from collections.abc import Awaitable, Generator
from typing import Any, TypeVar, cast

Value = TypeVar("Value")


async def within(seconds: float, awaitable: Awaitable[Value]) -> Value:
    """What the awaitable gives. Only where it does not give it at once is a timer set.

    Raises:
        TimeoutError: it took longer than that.
    """
    steps: Generator[Any, Any, Value] = awaitable.__await__()
    try:
        waits_for = next(steps)
    except StopIteration as done:
        return cast("Value", done.value)
    async with asyncio.timeout(seconds):
        return cast("Value", await _Rest(steps, waits_for))


class _Rest:
    """What is left of an awaitable that has waited for something already."""

    def __init__(self, steps: Generator[Any, Any, Any], waits_for: Any) -> None:
        self._steps = steps
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, Any]:
        waits_for, move, thing = self._waits_for, self._steps.send, None
        while True:
            try:
                thing = yield waits_for
                move = self._steps.send
            except BaseException as error:
                move, thing = cast("Any", self._steps.throw), error
            try:
                waits_for = move(thing)
            except StopIteration as done:
                return done.value
