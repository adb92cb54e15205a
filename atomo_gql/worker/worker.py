"""The worker: its arguments, its handlers, and how to run and stop it."""

import asyncio
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from atomo_gql.worker.collector import calm_collector
from atomo_gql.worker.config import checked_config, whole
from atomo_gql.worker.handlers import Handler, Middleware
from atomo_gql.worker.processes import refuse_in_child
from atomo_gql.worker.runner import Runner
from atomo_gql.worker.signals import StopSignals

logger = logging.getLogger("atomo_gql.worker")
_Function = TypeVar("_Function", bound=Callable[..., Any])


class Worker:
    """Leases jobs from queues, runs their handlers, and reports how they ended. It runs once.

    url: the server's address, with a path prefix where it has one; default: the variable ATOMO_URL.
    token: the worker token (`wkr_…`); default: the variable ATOMO_WORKER_TOKEN. It is never logged.
    queues: names of the queues to lease from; `["*"]`: every queue, for a token that has it.
    concurrency: jobs in hand at most (1–10000), and threads for plain `def` handlers.
    visibility: seconds that a lease lasts without a heartbeat (1–86400); heartbeats go out each third of it.
    wait: seconds that an idle lease request waits on the server (0–60).
    drain_timeout: seconds that jobs in hand may take to finish after a stop; the rest is handed back.

    Raises ValueError, naming the argument and the rule.
    """

    def __init__(
        self,
        *,
        url: str | None = None,
        token: str | None = None,
        queues: Sequence[str],
        concurrency: int = 1,
        visibility: int = 30,
        wait: int = 25,
        drain_timeout: float = 25.0,
    ) -> None:
        self._config = checked_config(
            url=url,
            token=token,
            queues=queues,
            concurrency=concurrency,
            visibility=visibility,
            wait=wait,
            drain_timeout=drain_timeout,
        )
        self._handlers: dict[str, Handler] = {}
        self._middleware: list[Middleware] = []
        self._has_run = False
        self._stop_asked = self._stop_now_asked = False
        self._running: tuple[asyncio.AbstractEventLoop, Runner] | None = None

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """Which kinds it handles, and how."""
        return self._handlers

    def __repr__(self) -> str:
        config = self._config
        return f"<Worker {config.public_url} queues={list(config.queues)} concurrency={config.concurrency}>"

    def on(self, kind: str, *, concurrency: int | None = None) -> Callable[[_Function], _Function]:
        """Decorator: the function handles jobs of this kind. It is given a JobContext, and, where it has a second
        parameter, the payload: as the type of its annotation (a dataclass, a TypedDict, a pydantic model …), or as it
        came where there is none. A payload that does not fit makes the job dead, with an error that says where.

        concurrency: how many of this kind at a time (1–10000); None: as many as the worker has room for.

        An `async def` runs on the event loop, a plain `def` in a thread. What it returns, any JSON value, is the
        job's result. An exception fails the attempt, retryably; NonRetryableError makes the job dead. A job of a
        kind without a handler is dead, too.

        Raises ValueError for a blank kind, for a kind that has a handler, for what cannot be called with these, and
        for an annotation that no payload can be.
        """
        if not isinstance(kind, str) or not kind.strip():
            raise ValueError(f"kind must be a name that is not blank, not {kind!r}")
        if concurrency is not None:
            whole("concurrency", concurrency, 1, 10_000)

        def register(function: _Function) -> _Function:
            if kind in self._handlers:
                raise ValueError(f"kind {kind!r} has a handler already")
            self._handlers[kind] = Handler.of(function, concurrency, self._middleware)
            return function

        return register

    def middleware(self, function: Middleware) -> Middleware:
        """Decorator: the function is around every handler, those declared before it too. It is given the JobContext
        and `call_next`, and returns what is to be the result:

            @worker.middleware
            async def timed(ctx, call_next):
                began = time.perf_counter()
                try:
                    return await call_next()
                finally:
                    ctx.logger.info("took %.3f s", time.perf_counter() - began)

        The first one declared is the outermost. It runs on the event loop, and what it raises fails the attempt.

        Raises ValueError for what is no `async def`.
        """
        if not inspect.iscoroutinefunction(function):
            raise ValueError(f"middleware must be an async def that takes (ctx, call_next), not {function!r}")
        self._middleware.append(function)
        return function

    def run(self) -> None:
        """Run until SIGTERM or SIGINT, and block meanwhile.

        The first signal: lease no more, finish what is in hand within drain_timeout, hand back the rest. The second:
        hand back at once. Where the program has set up no logging, the worker's own lines go to standard error.

        Raises WorkerRejected when the server refuses the token or a queue; RuntimeError when it ran before.
        """
        refuse_in_child()
        if not logger.hasHandlers():
            logging.basicConfig(format="%(asctime)s %(levelname)-7s %(message)s")
            logging.getLogger("atomo_gql").setLevel(logging.INFO)
        signals = StopSignals(self.stop)
        with calm_collector(), signals.handled():
            asyncio.run(self._run_until_signal(signals))

    async def run_async(self) -> None:
        """Run until stop(), on the caller's event loop and without touching signals.

        When cancelled, it hands back at once what is in hand.

        Raises WorkerRejected when the server refuses the token or a queue; RuntimeError when it ran before.
        """
        refuse_in_child()
        if self._has_run:
            raise RuntimeError("a Worker runs once: make a new one")
        self._has_run = True
        config = self._config
        told = (config.public_url, ",".join(config.queues), config.concurrency)
        if not self._handlers:
            logger.warning("no kind has a handler: every leased job will be dead")
        runner = Runner(config, dict(self._handlers))
        self._running = (asyncio.get_running_loop(), runner)
        if self._stop_asked:
            runner.stop(now=self._stop_now_asked)
        logger.info("started: url %s, queues %s, concurrency %d, kinds %s", *told, ",".join(self._handlers) or "none")
        try:
            await runner.run()
        finally:
            self._running = None
            logger.info("stopped: %s", runner.tally)

    def stop(self, *, now: bool = False) -> None:
        """Stop the run, from any thread: drain, then hand back; `now`: hand back at once. Returns immediately.

        Before the run it makes it end at once; after it, and when repeated, it does nothing.
        """
        self._stop_asked = True
        self._stop_now_asked |= now
        if (running := self._running) is not None:
            loop, runner = running
            with suppress(RuntimeError):  # the loop was closed meanwhile: it has ended
                loop.call_soon_threadsafe(lambda: runner.stop(now=now))

    async def _run_until_signal(self, signals: StopSignals) -> None:
        with signals.during_run():
            await self.run_async()
