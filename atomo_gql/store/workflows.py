"""`sql/queries/workflows.sql`: definitions of workflows, and their schedules."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from atomo_gql.domain.errors import AnswerTooLarge
from atomo_gql.domain.jobs import Json
from atomo_gql.store.database import Database, fetch_in


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowRow:
    """A workflow in its newest version; `source` is its definition as it was given."""

    id: UUID
    tenant: str  # '' is: of the service, for every tenant
    name: str
    definition_version: int  # 0: it has just been made, and has none yet
    model: str | None
    event_type: str | None
    since_xid: int
    is_scheduled: bool
    next_at: datetime | None
    paused_at: datetime | None
    paused_by: str | None
    registered_at: datetime
    registered_by: str
    source_file: str | None
    removed_at: datetime | None
    source: Json = None
    now: datetime | None = None  # by the database's clock, where the statement tells


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinitionRow:
    """One version of a definition."""

    workflow_id: UUID
    version: int
    registered_at: datetime
    registered_by: str
    source: Json = None


async def lock(connection: Any, tenant: str, name: str, actor: str, source_file: str | None) -> WorkflowRow:
    """The workflow of that name, made if there is none, and locked."""
    return _workflow((await fetch_in(connection, "workflow_lock", tenant, name, actor, source_file))[0])


async def put(
    connection: Any,
    workflow_id: UUID,
    source: Json,
    *,
    actor: str,
    trace: str | None,
    source_file: str | None,
    model: str | None,
    event_type: str | None,
    is_scheduled: bool,
    next_at: datetime | None,
    timeout_secs: int | None,
) -> WorkflowRow:
    """Keep a new version of its definition."""
    text = orjson.dumps(source).decode()
    columns = (workflow_id, text, actor, trace, source_file, model, event_type, is_scheduled, next_at, timeout_secs)
    return _workflow((await fetch_in(connection, "workflow_put", *columns))[0])


async def adopt(connection: Any, workflow_id: UUID, source_file: str) -> None:
    """From now on it goes with that file."""
    await fetch_in(connection, "workflow_adopt", workflow_id, source_file)


async def change(
    connection: Any, workflow_id: UUID, type_: str, actor: str, trace: str | None, next_at: datetime | None
) -> WorkflowRow | None:
    """`removed`, `paused` or `resumed`; None: it was so already."""
    rows = await fetch_in(connection, "workflow_change", workflow_id, type_, actor, trace, next_at)
    return _workflow(rows[0]) if rows else None


async def find(database: Database, names: Sequence[str], tenant: str) -> dict[str, WorkflowRow]:
    """The workflows of these names that a tenant can run, by name: its own before the service's."""
    rows = await database.dispatch("workflow_find", list(names), tenant)
    return {row["name"]: _workflow(row) for row in rows}


async def listed(database: Database, tenant: str | None) -> list[WorkflowRow]:
    """Those that a tenant can see (None: every one), by name."""
    return [_workflow(row) for row in await database.fetch("workflow_list", tenant)]


async def page(
    database: Database,
    tenant: str | None,
    *,
    is_scheduled: bool,
    above: Sequence[str] | None,
    below: Sequence[str] | None,
    descending: bool,
    most: int,
) -> list[WorkflowRow]:
    """The same in pages, or schedules alone; `above` and `below` are a name and a tenant."""
    found = await database.fetch("workflow_page", tenant, is_scheduled, above, below, descending, most)
    return [_workflow(row) for row in found]


async def versions(connection: Any, wanted: Sequence[tuple[UUID, int]]) -> list[DefinitionRow]:
    """The definitions of these versions."""
    ids, numbers = [workflow_id for workflow_id, _ in wanted], [number for _, number in wanted]
    return [_definition(row) for row in await fetch_in(connection, "workflow_versions", ids, numbers)]


async def sources(
    database: Database, wanted: Sequence[tuple[UUID, int]], most_bytes: int
) -> dict[tuple[UUID, int], Json]:
    """These versions as they were given.

    Raises:
        AnswerTooLarge: all together are larger than so many bytes.
    """
    ids, numbers = [workflow_id for workflow_id, _ in wanted], [number for _, number in wanted]
    found = await database.fetch("workflow_sources", ids, numbers, most_bytes)
    if any(row["is_beyond"] for row in found):
        raise AnswerTooLarge
    return {(row["workflow_id"], row["version"]): orjson.loads(row["source"]) for row in found}


async def history(database: Database, ids: Sequence[UUID], most: int) -> dict[UUID, list[DefinitionRow]]:
    """The versions of these workflows, newest first, at most so many of each, without the definitions."""
    answers: dict[UUID, list[DefinitionRow]] = {workflow_id: [] for workflow_id in ids}
    for row in await database.fetch("workflow_history", list(ids), most):
        answers[row["workflow_id"]].append(DefinitionRow(**row))
    return answers


async def schedules_due(connection: Any, now: datetime | None, most: int) -> list[WorkflowRow]:
    """At most so many whose next tick has come, locked; None: by the database's clock."""
    return [_workflow(row) for row in await fetch_in(connection, "schedule_due", now, most)]


async def schedules_ahead(connection: Any, after: UUID, most: int) -> list[WorkflowRow]:
    """At most so many, behind that id, whose next tick is more than an hour away, locked."""
    return [_workflow(row) for row in await fetch_in(connection, "schedule_ahead", after, most)]


async def move_schedules(connection: Any, next_ats: Sequence[tuple[UUID, datetime | None]]) -> None:
    """Set their next ticks."""
    ids, moments = [workflow_id for workflow_id, _ in next_ats], [moment for _, moment in next_ats]
    await fetch_in(connection, "schedule_move", ids, moments)


async def now(connection: Any) -> datetime:
    """By the database's clock."""
    moment: datetime = (await fetch_in(connection, "database_now"))[0]["now"]
    return moment


def _workflow(row: Any) -> WorkflowRow:
    values = {name: row[name] for name in _COLUMNS}
    source = row.get("source")
    return WorkflowRow(**values, source=None if source is None else orjson.loads(source), now=row.get("now"))


def _definition(row: Any) -> DefinitionRow:
    return DefinitionRow(**{**row, "source": orjson.loads(row["source"])})


_COLUMNS = [name for name in WorkflowRow.__dataclass_fields__ if name not in ("source", "now")]
