"""Whether this process can do its work, and what holds it up."""

import asyncio
import logging

from atomo_gql.domain.errors import Unavailable
from atomo_gql.service.context import Resources
from atomo_gql.store import health as store
from atomo_gql.store.steps import misfit, newest_version

log = logging.getLogger("atomo_gql.health")

_LAG_SECS = 60.0  # of the action dispatcher, from which on somebody is looked for
_WARN_SECS = 60.0  # between two warnings


class HealthService:
    """Readiness, and warnings about what nobody would notice."""

    def __init__(self, resources: Resources) -> None:
        self._database = resources.database
        self._newest = newest_version()
        self._look: asyncio.Task[None] | None = None
        self._warned_at = float("-inf")

    async def check_ready(self) -> None:
        """Return when a job could be enqueued and leased now. Those who ask at the same time share one look.

        Raises:
            Unavailable: it could not, and why; within two seconds, whatever the database does.
        """
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._check(), name="look at the database")
            self._look.add_done_callback(lambda look: look.cancelled() or look.exception())  # they may all have gone
        await asyncio.shield(self._look)

    async def _check(self) -> None:
        found = await store.look(self._database)
        if found.version == 0:
            raise Unavailable("the database has no schema atomo: run atomo-gql migrate")
        if reason := misfit(found.version, found.oldest_server, found.made_by, self._newest):
            raise Unavailable(reason)
        if found.is_standby:
            raise Unavailable("the database is a standby, and cannot be written")
        if found.is_read_only:
            raise Unavailable("the database is read-only (default_transaction_read_only)")
        if found.is_standby_missing:
            raise Unavailable("the database waits for a synchronous standby before it commits")
        if not found.may_write:
            raise Unavailable("the database's role may not write the tables of the schema (its rights were changed)")
        if not found.has_partition:
            raise Unavailable("the database has no partition for now; the log says why it could not be made")

    async def explain_lag(self, lag: float) -> None:
        """Where the action dispatcher is far behind, by so many seconds: warn, at most once a minute, who holds it."""
        now = asyncio.get_running_loop().time()
        if lag < _LAG_SECS or now - self._warned_at < _WARN_SECS:
            return
        self._warned_at = now
        holder = await store.horizon_holder(self._database)
        if holder is None:
            log.warning("actions and event workflows are %.0f seconds behind; no open transaction holds them up", lag)
        elif holder.prepared is not None:
            log.warning(
                "actions and event workflows are %.0f seconds behind: the prepared transaction %r in database %s holds "
                "them up; COMMIT PREPARED or ROLLBACK PREPARED it there",
                lag,
                holder.prepared,
                holder.database,
            )
        else:
            log.warning(
                "actions and event workflows are %.0f seconds behind: a transaction of process %s (database %s, role "
                "%s, application %r, open for %s) holds them up; pg_terminate_backend(%s) would end it",
                lag,
                holder.pid,
                holder.database,
                holder.role,
                holder.application or "",
                "a time that this role may not see" if holder.seconds is None else f"{holder.seconds:.0f} seconds",
                holder.pid,
            )
