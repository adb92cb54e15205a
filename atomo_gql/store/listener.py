"""Hearing NOTIFY on a connection of its own, which is watched, and made again when it is lost."""

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Any

import asyncpg

_PING_SECS = 5.0


class Listener:
    """Calls back for each notification on one channel, and after each time it may have missed some."""

    def __init__(self, dsn: str, channel: str, on_message: Callable[[str], None], on_gap: Callable[[], None]) -> None:
        """`on_gap` is called when listening begins again after a loss: what was sent in between was not heard."""
        self._dsn = dsn
        self._channel = channel
        self._on_message = on_message
        self._on_gap = on_gap
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    async def start(self) -> None:
        """Begin; returns once the channel is heard for the first time."""
        self._task = asyncio.create_task(self._run(), name=f"listen {self._channel}")
        await self._ready.wait()

    async def stop(self) -> None:
        """End."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @property
    def is_hearing(self) -> bool:
        """Whether the connection is up."""
        return self._ready.is_set()

    async def _run(self) -> None:
        delay, is_first = 0.05, True
        while True:
            try:
                async with asyncio.timeout(10):
                    connection: Any = await asyncpg.connect(
                        self._dsn, timeout=5, server_settings={"application_name": "atomo-gql listener"}
                    )
                    await connection.add_listener(self._channel, lambda *args: self._on_message(args[3]))
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await asyncio.sleep(random.uniform(0, delay))  # noqa: S311  # jitter, not a secret
                delay = min(delay * 2, 2.0)
                continue
            delay = 0.05
            if not is_first:
                self._on_gap()
            is_first = False
            self._ready.set()
            try:
                await self._watch(connection)
            finally:
                self._ready.clear()
                connection.terminate()

    async def _watch(self, connection: Any) -> None:
        """Return when the connection is lost: it says so, or does not answer."""
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(lost.wait(), _PING_SECS)
            if lost.is_set():
                return
            try:
                await connection.fetchval("SELECT 1", timeout=_PING_SECS)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
                return
