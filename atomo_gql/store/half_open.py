"""Finding connections that have gone silent.

A proxy, a firewall or a host that died may leave a connection that takes what is sent and never answers. The limit of
time of a statement would find it out, but a busy database may need that time. So, when an answer is late, PostgreSQL is
asked from outside, on a new connection, whether it is at work on that statement at all.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from atomo_gql.store.connecting import Connection
from atomo_gql.store.failures import unavailable
from atomo_gql.store.statements import statements

log = logging.getLogger("atomo_gql.database")

_TICK_SECS = 0.5
_LATE_SECS = 1.5  # that a connection is in use, after which it is looked at
_LOOK_SECS = 2.0  # for the look itself
_STALLED_SECS = 0.5  # that this process was late itself: then what looks silent may have answered


class Watch:
    """Looks at the connections of one process that have been in use for long."""

    def __init__(
        self,
        busy: Mapping[Any, float],
        look: Callable[[float], Awaitable[Connection]],
        on_found: Callable[[], Awaitable[None]],
    ) -> None:
        """`busy`: connections in use, and since when by the event loop's clock. `look` makes a new connection in so
        many seconds. `on_found` is called when a silent one was found, and ended."""
        self._busy = busy
        self._look = look
        self._on_found = on_found
        self._suspects: dict[Any, tuple[float, object]] = {}  # since when in use, and since when the server is idle
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="watch for silent connections")

    async def stop(self) -> None:
        """End."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _TICK_SECS
            await asyncio.sleep(_TICK_SECS)
            late = {c: since for c, since in self._busy.items() if loop.time() - since > _LATE_SECS}
            if not late or loop.time() - due > _STALLED_SECS:
                self._suspects.clear()
                continue
            try:
                idle = await self._idle(late)
            except Exception as error:
                if unavailable(error) is None:
                    log.exception("looking for silent connections failed")
                self._suspects.clear()  # the database itself is away, or too busy to say
                continue
            await self._judge(late, idle)

    async def _judge(self, late: Mapping[Any, float], idle: Mapping[Any, object]) -> None:
        """End those that were in use, while their server was idle in the same way, at two looks in a row."""
        found = 0
        suspects = {c: (late[c], idle_since) for c, idle_since in idle.items() if self._busy.get(c) == late[c]}
        for connection, signs in suspects.items():
            if self._suspects.get(connection) == signs:
                found += 1
                connection.terminate()
        self._suspects = suspects
        if found:
            log.warning("ended %d connections to the database that had gone silent", found)
            await self._on_found()

    async def _idle(self, late: Mapping[Any, float]) -> dict[Any, object]:
        """Those that the server is not at work for, with a sign that changes when it does something for them."""
        async with asyncio.timeout(_LOOK_SECS):
            connection = await self._look(_LOOK_SECS)
            try:
                pids = [pid for c in late if (pid := c.backend_pid)]
                rows = await connection.fetch(statements()["backends_idle"].text, pids)
            finally:
                connection.terminate()
        [told] = rows
        idle_since = dict(zip(told["pids"], told["idle_since"], strict=True))
        found: dict[Any, object] = {}
        for c in late:
            if pid := c.backend_pid:
                if pid not in told["active"]:
                    found[c] = idle_since.get(pid)  # None: the server has no such process any more
            elif c.is_waiting and not told["is_any_active"]:
                found[c] = c.begun
        return found
