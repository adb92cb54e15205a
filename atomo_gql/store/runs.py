"""`sql/queries/runs.sql`: runs of workflows."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from atomo_gql.domain.errors import AnswerTooLarge
from atomo_gql.domain.workflows.deciding import JobEnd, RunEvent
from atomo_gql.domain.workflows.runs import Run, RunBody, RunStatus, StepState, StepStatus
from atomo_gql.store.database import Database, fetch_in


class RunRow(NamedTuple):
    """A run to begin, with its chain, its trigger and its context encoded."""

    workflow_id: UUID
    workflow: str
    definition_version: int
    tenant: str
    actor: str
    trace: str | None
    key: str | None
    via: bytes
    timeout_secs: int | None
    trigger: bytes
    context: bytes


class Begun(NamedTuple):
    """A run, and whether this call began it."""

    id: UUID
    is_new: bool


class Wait(NamedTuple):
    """A step of a run waits for a job."""

    job_id: UUID
    run_id: UUID
    step: str
    is_shared: bool


async def start(connection: Any, runs: Sequence[RunRow]) -> list[Begun]:
    """Begin these runs, or find those that their keys name already."""
    places: dict[tuple[UUID, str, str], int] = {}
    unique: list[RunRow] = []
    place_of: list[int] = []
    for run in runs:
        place = len(unique)
        if run.key is not None:
            place = places.setdefault((run.workflow_id, run.tenant, run.key), place)
        if place == len(unique):
            unique.append(run)
        place_of.append(place)
    found = await fetch_in(connection, "run_start", *(list(column) for column in zip(*unique, strict=True)))
    begun = [Begun(row["id"], row["is_new"]) for row in found]
    return [
        begun[place] if place not in place_of[:index] else begun[place]._replace(is_new=False)
        for index, place in enumerate(place_of)
    ]


async def due(connection: Any, most: int, most_bytes: int) -> list[UUID]:
    """At most so many runs that have something to do, and as many whose jobs have ended, locked; fewer where they are
    larger than so many bytes, and one at least."""
    ids: list[UUID] = []
    for row in await fetch_in(connection, "run_due", most):
        most_bytes -= row["bytes"]
        if ids and most_bytes < 0:
            break
        ids.append(row["id"])
    return ids


async def due_ids(database: Database, most: int) -> list[UUID]:
    """The ids of the same, which nobody holds."""
    return [row["id"] for row in await database.dispatch("run_due_ids", most)]


async def take(connection: Any, ids: Iterable[UUID], tenant: str | None) -> list[Run]:
    """These runs, as far as the tenant may see them, locked."""
    return [run_of(row) for row in await fetch_in(connection, "run_take", list(ids), tenant)]


async def job_ends(connection: Any, ids: Sequence[UUID]) -> dict[UUID, dict[UUID, JobEnd]]:
    """What came of the jobs that these runs waited for and that have ended, by run and job."""
    ends: dict[UUID, dict[UUID, JobEnd]] = {}
    alive: list[tuple[UUID, UUID]] = []
    for row in await fetch_in(connection, "run_job_ends", list(ids)):
        if row["is_alive"]:
            alive.append((row["run_id"], row["job_id"]))
            continue
        error = row["error"] or (None if row["has_succeeded"] else "it is gone: retention took it")
        ends.setdefault(row["run_id"], {})[row["job_id"]] = JobEnd(row["result"], error)
    if alive:
        await fetch_in(connection, "wait_again", [run_id for run_id, _ in alive], [job_id for _, job_id in alive])
    return ends


async def save(connection: Any, runs: Sequence[Run], now: datetime) -> None:
    """Write these runs as they are now."""
    await fetch_in(
        connection,
        "run_save",
        [run.id for run in runs],
        [run.status.value for run in runs],
        [run.steps_run for run in runs],
        [run.version for run in runs],
        now,
        [run.finished_at for run in runs],
        [run.timeout_at for run in runs],
        [run.wake_at for run in runs],
        [orjson.dumps(run.context) for run in runs],
        [encoded_steps(run) for run in runs],
        [orjson.dumps(run.errors) for run in runs],
    )


async def log(
    connection: Any, events: Sequence[tuple[Run, RunEvent]], now: datetime, actor: str, trace: str | None = None
) -> None:
    """Append what happened to runs."""
    await fetch_in(
        connection,
        "run_log",
        [run.id for run, _ in events],
        [event.version for _, event in events],
        [event.type.value for _, event in events],
        [run.tenant or "" for run, _ in events],
        actor,
        trace,
        now,
        [orjson.dumps(event.data) for _, event in events],
    )


async def postpone(connection: Any, ids: Sequence[UUID]) -> None:
    """Let these runs not be due for a minute."""
    await fetch_in(connection, "run_postpone", list(ids))


async def wait_for(connection: Any, waits: Sequence[Wait]) -> None:
    """From now on runs wait for these jobs."""
    await fetch_in(connection, "wait_add", *(list(column) for column in zip(*waits, strict=True)))


async def wait_no_more(connection: Any, waits: Sequence[tuple[UUID, UUID]]) -> None:
    """Runs wait no more for these jobs; pairs of a run and a job."""
    await fetch_in(connection, "wait_remove", [run_id for run_id, _ in waits], [job_id for _, job_id in waits])


async def wanted_by_others(connection: Any, jobs: Sequence[UUID], runs: Sequence[UUID]) -> set[UUID]:
    """Which of these jobs other runs than these wait for."""
    return {row["job_id"] for row in await fetch_in(connection, "wait_wanted", list(jobs), list(runs))}


async def settle_waits(database: Database, most: int) -> int:
    """Mark jobs that ended before somebody began to wait for them; how many there were."""
    return len(await database.dispatch("wait_settle", most))


async def next_wake(database: Database) -> float | None:
    """Seconds until a run has something to do; None: nothing that time will bring."""
    seconds: float | None = (await database.dispatch("run_next_wake"))[0]["seconds"]
    return seconds


async def get(database: Database, ids: Sequence[UUID], tenant: str | None) -> dict[UUID, Run]:
    """These runs, as far as the tenant may see them."""
    return {row["id"]: run_of(row) for row in await database.dispatch("run_get", list(ids), tenant)}


async def listed(database: Database, ids: Sequence[UUID], tenant: str | None) -> dict[UUID, Run]:
    """As `get`, without their contexts and the results of their steps, which may be large."""
    return {row["id"]: run_of(row) for row in await database.dispatch("run_rows", list(ids), tenant)}


async def bodies(database: Database, ids: Sequence[UUID], most: int) -> dict[UUID, RunBody]:
    """The contexts of these runs, and the results of their steps.

    Raises:
        AnswerTooLarge: all together are larger than so many bytes.
    """
    found = await database.dispatch("run_bodies", list(ids), most)
    if any(row["is_beyond"] for row in found):
        raise AnswerTooLarge
    return {
        row["id"]: RunBody(row["context"], {name: state.get("result") for name, state in row["steps"].items()})
        for row in found
    }


async def page(
    database: Database,
    tenant: str | None,
    *,
    workflow: str | None,
    statuses: Sequence[RunStatus] | None,
    key: str | None,
    above: UUID | None,
    below: UUID | None,
    descending: bool,
    most: int,
) -> list[UUID]:
    """The ids of runs that match, by id."""
    names = None if statuses is None else list({status.value: None for status in statuses})
    found = await database.fetch("run_page", tenant, workflow, names, key, above, below, descending, most)
    return [row["id"] for row in found]


async def jobs(database: Database, ids: Sequence[UUID], most: int) -> dict[UUID, list[UUID]]:
    """The jobs of these runs, at most so many of each, oldest first."""
    answers: dict[UUID, list[UUID]] = {run_id: [] for run_id in ids}
    for row in await database.dispatch("run_jobs", list(ids), most):
        answers[row["run_id"]].append(row["id"])
    return answers


async def forget(database: Database, completed: datetime | None, failed: datetime | None, most: int) -> int:
    """Delete at most so many runs that ended before these moments; how many there were."""
    deleted: int = (await database.dispatch("run_forget", completed, failed, most))[0]["deleted"]
    return deleted


def run_of(row: Any) -> Run:
    """A row of `workflow_runs`."""
    return Run(
        id=row["id"],
        tenant=row["tenant"] or None,
        workflow=row["workflow"],
        workflow_id=row["workflow_id"],
        definition_version=row["definition_version"],
        actor=row["actor"],
        trace=row["trace"],
        trigger=row["trigger"],
        key=row["key"],
        via=row["via"],
        started_at=row["started_at"],
        context=row["context"],
        status=RunStatus(row["status"]),
        steps={name: _step(state) for name, state in row["steps"].items()},
        errors=row["errors"],
        steps_run=row["steps_run"],
        version=row["version"],
        changed_at=row["changed_at"],
        timeout_at=row["timeout_at"],
        finished_at=row["finished_at"],
    )


def encoded_steps(run: Run) -> bytes:
    """The states of its steps, as its row has them."""
    shown = {}
    for name, state in run.steps.items():
        kept = {field: value for field in _KEPT if (value := getattr(state, field)) != _DEFAULTS[field]}
        shown[name] = {"status": state.status.value, "began_at": state.began_at, **kept}
    return orjson.dumps(shown, default=str)


def _step(kept: dict[str, Any]) -> StepState:
    values = dict(kept)
    values["status"] = StepStatus(values["status"])
    for field in ("began_at", "until", "ended_at"):
        if values.get(field) is not None:
            values[field] = datetime.fromisoformat(values[field])
    if values.get("job_id") is not None:
        values["job_id"] = UUID(values["job_id"])
    return StepState(**values)


_FLAGS = ("is_group", "is_shared", "is_unjudged")
_KEPT = ("attempt", "spent", *_FLAGS, "job_id", "until", "ended_at", "error", "result")
_DEFAULTS = (
    {"attempt": 1, "spent": 0}
    | dict.fromkeys(_FLAGS, False)
    | dict.fromkeys(("job_id", "until", "ended_at", "error", "result"))
)
