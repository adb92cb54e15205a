"""`sql/queries/manage.sql`: what people do by hand."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from atomo_gql.store.database import Database, fetch_in

_CANCEL = "job_cancel"
EVERYBODY = "\x1f"  # in the place of a tenant's name, which it cannot be


@dataclass(frozen=True, slots=True)
class Changed:
    """A job that was changed, and the lane it is in."""

    id: UUID
    tenant: str
    queue: str


async def retry(
    database: Database, ids: Sequence[UUID], tenant: str | None, actor: str, trace: str | None
) -> list[Changed]:
    """Queue those that are dead again ('': jobs without a tenant; None: anybody's)."""
    return [Changed(**row) for row in await database.dispatch("job_retry", list(ids), tenant, actor, trace)]


async def cancel(
    database: Database, ids: Sequence[UUID], tenant: str | None, actor: str, trace: str | None, error: str
) -> list[Changed]:
    """End those that are queued or leased. One that moves between the two at this moment is missed."""
    return [Changed(**row) for row in await database.dispatch(_CANCEL, list(ids), tenant, actor, trace, error)]


async def cancel_in(connection: Any, ids: Sequence[UUID], actor: str, error: str) -> list[Changed]:
    """The same, of anybody's jobs, within a transaction."""
    return [Changed(**row) for row in await fetch_in(connection, _CANCEL, list(ids), None, actor, None, error)]


async def pause(database: Database, queue: str, tenant: str, actor: str, trace: str | None) -> bool:
    """Lease nothing from a queue; False: it was paused already."""
    return await database.fetch_one("queue_pause", queue, tenant, actor, trace) is not None


async def resume(database: Database, queue: str, tenant: str, actor: str, trace: str | None) -> bool:
    """The end of a pause; False: there was none."""
    return await database.fetch_one("queue_resume", queue, tenant, actor, trace) is not None


async def lanes(database: Database, queue: str) -> list[tuple[str, str]]:
    """(tenant, queue) of everybody whose jobs have been in it."""
    return [(row["tenant"], queue) for row in await database.fetch("queue_lanes", queue)]
