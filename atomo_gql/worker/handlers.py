"""Which function handles which kind."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from atomo_gql.worker.context import JobContext
from atomo_gql.worker.errors import NonRetryableError
from atomo_gql.worker.threads import Threads


@dataclass(frozen=True, slots=True)
class Handler:
    """One kind's handler. is_async: it runs on the event loop and can be cancelled; otherwise in a thread."""

    function: Callable[[JobContext], Any]
    is_async: bool

    @classmethod
    def of(cls, function: Callable[[JobContext], Any]) -> "Handler":
        """Look at the function once: an `async def`, or an object whose call is one, runs on the event loop."""
        if not callable(function):
            raise ValueError(f"a handler must be callable, not {function!r}")
        is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 -- asks what the call is, not whether there is one
        )
        return cls(function, is_async)

    async def call(self, ctx: JobContext, threads: Threads) -> Any:
        """Run the handler and return what it returns."""
        if self.is_async:
            return await self.function(ctx)
        result = await threads.run(self.function, ctx)
        if inspect.iscoroutine(result):
            result.close()
            raise NonRetryableError("the handler is a plain function that returned a coroutine: make it async def")
        return result
