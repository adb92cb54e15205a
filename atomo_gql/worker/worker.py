"""The worker: its arguments, its handlers, and how to run and stop it."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from atomo_gql.worker.config import checked_config
from atomo_gql.worker.context import JobContext
from atomo_gql.worker.handlers import Handler
from atomo_gql.worker.runner import Runner
from atomo_gql.worker.signals import stop_on_signals

logger = logging.getLogger("atomo_gql.worker")
_Function = TypeVar("_Function", bound=Callable[[JobContext], Any])


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
        self._has_run = False
        self._stop_asked = self._stop_now_asked = False
        self._running: tuple[asyncio.AbstractEventLoop, Runner] | None = None

    def __repr__(self) -> str:
        config = self._config
        return f"<Worker {config.public_url} queues={list(config.queues)} concurrency={config.concurrency}>"

    def on(self, kind: str) -> Callable[[_Function], _Function]:
        """Decorator: the function handles jobs of this kind. It is given a JobContext.

        An `async def` runs on the event loop, a plain `def` in a thread. What it returns, any JSON value, is the
        job's result. An exception fails the attempt, retryably; NonRetryableError makes the job dead. A job of a
        kind without a handler is dead, too.

        Raises ValueError for a blank kind, for a kind that has a handler, and for what cannot be called.
        """
        if not isinstance(kind, str) or not kind.strip():
            raise ValueError(f"kind must be a name that is not blank, not {kind!r}")

        def register(function: _Function) -> _Function:
            if kind in self._handlers:
                raise ValueError(f"kind {kind!r} has a handler already")
            self._handlers[kind] = Handler.of(function)
            return function

        return register

    def run(self) -> None:
        """Run until SIGTERM or SIGINT, and block meanwhile.

        The first signal: lease no more, finish what is in hand within drain_timeout, hand back the rest. The second:
        hand back at once. Where the program has set up no logging, the worker's own lines go to standard error.

        Raises WorkerRejected when the server refuses the token or a queue; RuntimeError when it ran before.
        """
        if not logger.hasHandlers():
            logging.basicConfig(format="%(asctime)s %(levelname)-7s %(message)s")
            logger.setLevel(logging.INFO)
        asyncio.run(self._run_until_signal())

    async def run_async(self) -> None:
        """Run until stop(), on the caller's event loop and without touching signals.

        When cancelled, it hands back at once what is in hand.

        Raises WorkerRejected when the server refuses the token or a queue; RuntimeError when it ran before.
        """
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
            logger.info("stopped: url %s, queues %s, concurrency %d", *told)

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

    async def _run_until_signal(self) -> None:
        with stop_on_signals(self.stop):
            await self.run_async()
