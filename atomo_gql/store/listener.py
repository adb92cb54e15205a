"""Hearing NOTIFY on a connection of its own, which is watched, and made again when it is lost."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from typing import Any

import asyncpg

from atomo_gql.address import parse_address
from atomo_gql.store.connecting import Purpose, connect
from atomo_gql.store.failures import in_short

log = logging.getLogger("atomo_gql.database")

_CONNECT_SECS = 5.0
_PING_SECS, _PONG_SECS = 3.0, 2.0
_PURPOSE = Purpose("listener", {"search_path": "atomo", "idle_session_timeout": "0", "statement_timeout": "0"})
_PING = "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean"
_LOST = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class Listener:
    """Calls back for each notification on one channel, and after each time it may have missed some."""

    def __init__(self, dsn: str, channel: str, on_message: Callable[[str], None], on_gap: Callable[[], None]) -> None:
        """`on_gap` is called when listening begins again after a loss: what was sent in between was not heard."""
        self._address = parse_address(dsn)
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
        delay, is_first, is_told = 0.05, True, False
        while True:
            try:
                connection = await self._connect()
            except _LOST as error:
                if not is_told:
                    log.warning("notifications of the database cannot be heard, trying again: %s", in_short(error))
                    is_told = True
                await asyncio.sleep(random.uniform(0, delay))  # noqa: S311  # jitter, not a secret
                delay = min(delay * 2, 2.0)
                continue
            if is_told or not is_first:
                log.info("notifications of the database are heard again")
            delay, is_told = 0.05, False
            if not is_first:
                self._on_gap()
            is_first = False
            self._ready.set()
            try:
                await self._watch(connection)
            finally:
                self._ready.clear()
                connection.terminate()

    async def _connect(self) -> Any:
        async with asyncio.timeout(2 * _CONNECT_SECS):
            connection = await connect(self._address, _PURPOSE, timeout=_CONNECT_SECS)
            try:
                await connection.add_listener(self._channel, lambda *args: self._on_message(args[3]))
            except BaseException:
                connection.terminate()
                raise
            return connection

    async def _watch(self, connection: Any) -> None:
        """Return when the connection is lost: it says so, does not answer, or leads to a server that only reads, where
        nobody notifies."""
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(lost.wait(), _PING_SECS)
            if lost.is_set():
                return
            try:
                if await connection.fetchval(_PING, timeout=_PONG_SECS):
                    return
            except _LOST:
                return
