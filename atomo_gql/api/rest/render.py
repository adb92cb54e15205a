"""Domain objects as the JSON of the wire."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson

from atomo_gql.domain.actions import Binding
from atomo_gql.domain.errors import Unavailable
from atomo_gql.domain.jobs import Job, LeasedJob
from atomo_gql.domain.principals import WorkerToken
from atomo_gql.domain.reports import FailOutcome
from atomo_gql.domain.workflows.definition import Definition
from atomo_gql.domain.workflows.runs import Run, StepState
from atomo_gql.service.workflows.definitions import Workflow
from atomo_gql.service.workflows.schedules import next_ticks

PENDING = "pending"  # a step that has not begun
_TICKS = 5  # of a schedule, that are told beforehand


def to_json(value: Any) -> bytes:
    """Encode, with times as RFC 3339 in UTC."""
    return orjson.dumps(value, default=_plain, option=orjson.OPT_UTC_Z)


def _plain(value: object) -> str:
    if isinstance(value, UUID):  # the driver's own kind of UUID
        return str(value)
    raise TypeError(f"{type(value).__name__} has no place in an answer")


def job(j: Job) -> dict[str, Any]:
    """A job for those who wait for it."""
    return {
        "id": j.id,
        "queue": j.queue,
        "kind": j.kind,
        "status": j.status,
        "priority": j.priority,
        "attempts": j.attempts,
        "deliveries": j.deliveries,
        "maxAttempts": j.max_attempts,
        "runAt": j.run_at,
        "timeoutSecs": j.timeout_secs,
        "deadline": j.deadline,
        "createdAt": j.created_at,
        "eligibleAt": j.eligible_at,
        "leasedAt": j.leased_at,
        "leaseExpiresAt": j.lease_expires_at,
        "finishedAt": j.finished_at,
        "idempotencyKey": j.idempotency_key,
        "tenantId": j.tenant,
        "progress": j.progress,
        "result": j.result,
        "error": j.error,
        "runId": j.run_id,
    }


def leased(jobs: Sequence[LeasedJob]) -> bytes:
    """Jobs for the worker that has them, encoded."""
    return f"[{','.join([job.told for job in jobs])}]".encode()


def outcome(o: FailOutcome) -> dict[str, Any]:
    """What became of a job that failed."""
    return {"outcome": "dead"} if o.delay_secs is None else {"outcome": "retry", "delaySecs": o.delay_secs}


def worker_token(t: WorkerToken) -> dict[str, Any]:
    """A token, without its secret."""
    return {
        "id": t.id,
        "name": t.name,
        "queues": t.queues,
        "tenantId": t.tenant,
        "isRevoked": t.is_revoked,
        "createdAt": t.created_at,
        "createdBy": t.created_by,
        "revokedAt": t.revoked_at,
        "kinds": t.kinds,
        "expiresAt": t.expires_at,
        "lastUsedAt": t.last_used_at,
    }


def workflow(w: Workflow) -> dict[str, Any]:
    """A workflow in its newest version."""
    row = w.row
    return {
        "id": row.id,
        "name": row.name,
        "description": w.definition.description,
        "definitionVersion": row.definition_version,
        "tenantId": row.tenant or None,
        "trigger": row.source.get("trigger", "Manual"),
        "definition": row.source,
        "isPaused": row.paused_at is not None,
        "pausedAt": row.paused_at,
        "pausedBy": row.paused_by,
        "nextAt": row.next_at,
        "nextTicks": next_ticks(w, _TICKS),
        "registeredAt": row.registered_at,
        "registeredBy": row.registered_by,
        "sourceFile": row.source_file,
    }


def run_line(r: Run) -> dict[str, Any]:
    """A run, in a list of runs."""
    return {
        "id": r.id,
        "workflow": r.workflow,
        "status": r.status,
        "steps_run": r.steps_run,
        "errors": r.errors,
        "definitionVersion": r.definition_version,
        "tenantId": r.tenant,
        "trigger": r.trigger,
        "startedAt": r.started_at,
        "finishedAt": r.finished_at,
    }


def run(r: Run, definition: Definition | Unavailable) -> dict[str, Any]:
    """A run with its context, and its steps in the order of the definition it began with."""
    if isinstance(definition, Definition):
        names = [step.name for step in definition.every_step()]
    else:  # it cannot be read any more
        names = sorted(r.steps, key=lambda name: r.steps[name].began_at)
    return {**run_line(r), "context": r.context, "steps": [_step(name, r.steps.get(name)) for name in names]}


def _step(name: str, state: StepState | None) -> dict[str, Any]:
    return {
        "name": name,
        "status": PENDING if state is None else state.status,
        "attempt": 0 if state is None else state.attempt,
        "jobId": None if state is None else state.job_id,
        "until": None if state is None else state.until,
        "error": None if state is None else state.error,
        "beganAt": None if state is None else state.began_at,
        "endedAt": None if state is None else state.ended_at,
    }


def binding(b: Binding) -> dict[str, Any]:
    """A binding as it stands."""
    what = b.what
    return {
        "id": b.id,
        "model": what.model,
        "event": what.event,
        "action": what.action,
        "queue": what.queue,
        "condition": what.condition,
        "input": what.input,
        "tenantId": b.tenant,
        "isSetAside": b.set_aside_at is not None,
        "setAsideAt": b.set_aside_at,
        "error": b.error,
        "registeredAt": b.registered_at,
        "registeredBy": b.registered_by,
        "sourceFile": b.source_file,
    }
