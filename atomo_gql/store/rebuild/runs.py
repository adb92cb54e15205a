"""Runs of workflows: each one's row, column for column, and the jobs it waits for are what its events say."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any
from uuid import UUID

import orjson

from atomo_gql.domain.events import Event
from atomo_gql.domain.workflows.runs import Run, fold
from atomo_gql.store.rebuild.log import Difference, folded
from atomo_gql.store.runs import encoded_steps, run_of
from atomo_gql.store.statements import statements

IN_EITHER = "rebuild_run_range"
IN_THE_LOG = "rebuild_run_streams"
_SETTLE = 10_000  # waits in one statement

_Waits = dict[str, UUID | None]  # the job that each step waits for


async def compare(connection: Any, events: dict[UUID, list[Event]]) -> list[Difference]:
    """Which of these runs are not what their events say."""
    ids = list(events)
    actual = {row["id"]: row for row in await connection.fetch(statements()["rebuild_runs"].text, ids)}
    waits: dict[UUID, _Waits] = {run_id: {} for run_id in ids}
    for row in await connection.fetch(statements()["rebuild_waits"].text, ids):
        waits[row["run_id"]][row["step"]] = row["job_id"]
    return [
        Difference("run", run_id, detail)
        for run_id, told in events.items()
        if (detail := _difference(actual.get(run_id), waits[run_id], told))
    ]


def _difference(row: Any, waits: _Waits, events: Sequence[Event]) -> str | None:
    expected = folded(fold, events)
    if isinstance(expected, str):
        return f"its events do not make a run: {expected}"
    if row is None:
        return "it has events, but no row"
    try:
        actual = run_of(row)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return f"its row cannot be read: {type(error).__name__}: {error}"
    columns = {f.name: (getattr(actual, f.name), getattr(expected, f.name)) for f in fields(Run)}
    columns["wake_at"] = row["wake_at"], expected.wake_at
    columns["waits"] = waits, {name: state.job_id for name, state in expected.awaited().items()}
    differing = {name: pair for name, pair in columns.items() if not _same(*pair)}
    return ", ".join(f"{name} is {one!r}, should be {other!r}" for name, (one, other) in differing.items()) or None


def _same(one: object, other: object) -> bool:
    """Whether they are equal, and true is not 1."""
    return one == other and (not isinstance(one, dict | list) or _text(one) == _text(other))


def _text(value: object) -> bytes:
    return orjson.dumps(value, default=str, option=orjson.OPT_SORT_KEYS)


async def write(connection: Any, events: dict[UUID, list[Event]]) -> None:
    """The rows of these runs, and what they wait for.

    Raises:
        BrokenStream: a stream contradicts itself.
    """
    runs = [fold(told) for told in events.values()]
    await connection.executemany(statements()["rebuild_put_runs"].text, [_columns(run) for run in runs], timeout=None)
    waits = [
        (state.job_id, run.id, name, state.is_shared)
        for run in runs
        if not run.status.is_final
        for name, state in run.awaited().items()
    ]
    if waits:
        await connection.executemany(statements()["rebuild_put_waits"].text, waits, timeout=None)


async def settle(connection: Any) -> None:
    """Mark the waits for jobs that have ended, once all jobs and all waits are there."""
    while await connection.fetch(statements()["rebuild_settle"].text, _SETTLE, timeout=None):
        pass


def _columns(run: Run) -> tuple[object, ...]:
    began = (run.id, run.tenant or "", run.workflow, run.workflow_id, run.definition_version)
    state = (run.status.value, run.steps_run, run.version, orjson.dumps(run.via), run.started_at, run.changed_at)
    moments = (run.finished_at, run.timeout_at, run.wake_at)
    cause = (run.actor, run.trace, run.key, orjson.dumps(run.trigger))
    return (*began, *state, *moments, *cause, orjson.dumps(run.context), encoded_steps(run), orjson.dumps(run.errors))
