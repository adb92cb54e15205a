"""Which function handles which kind, and what is around it."""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from atomo_gql.worker.context import JobContext
from atomo_gql.worker.errors import NonRetryableError
from atomo_gql.worker.payloads import Convert, converter_of
from atomo_gql.worker.threads import Threads

Next = Callable[[], Awaitable[Any]]
Middleware = Callable[[JobContext, Next], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Handler:
    """One kind's handler.

    is_async: it runs on the event loop and can be cancelled; otherwise in a thread. concurrency: how many at a time;
    None: as many as the worker has room for. convert: makes its second argument of the payload; None: it has none.
    """

    function: Callable[..., Any]
    is_async: bool
    concurrency: int | None = None
    convert: Convert | None = None
    middleware: Sequence[Middleware] = ()  # the worker's own list, the first one outermost

    @classmethod
    def of(
        cls, function: Callable[..., Any], concurrency: int | None = None, middleware: Sequence[Middleware] = ()
    ) -> "Handler":
        """Look at the function once: an `async def`, or an object whose call is one, runs on the event loop."""
        if not callable(function):
            raise ValueError(f"a handler must be callable, not {function!r}")
        is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 -- asks what the call is, not whether there is one
        )
        return cls(function, is_async, concurrency, converter_of(function), middleware)

    def call(self, ctx: JobContext, threads: Threads) -> Awaitable[Any]:
        """Run the handler, with the middleware around it; what it returns, once awaited."""
        if not self.middleware:
            if self.is_async and self.convert is None:
                made: Awaitable[Any] = self.function(ctx)
                return made
            return self._innermost(ctx, threads)

        def after(place: int) -> Next:
            if place == len(self.middleware):
                return lambda: self._innermost(ctx, threads)
            return lambda: self.middleware[place](ctx, after(place + 1))

        return after(0)()

    async def _innermost(self, ctx: JobContext, threads: Threads) -> Any:
        arguments = (ctx,) if self.convert is None else (ctx, self.convert(ctx.job.payload))
        if self.is_async:
            return await self.function(*arguments)
        result = await threads.run(ctx.job.kind, self.function, *arguments)
        if inspect.iscoroutine(result):
            result.close()
            raise NonRetryableError("the handler is a plain function that returned a coroutine: make it async def")
        return result
