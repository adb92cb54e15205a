"""A job, what it takes to enqueue one, and a lease on one."""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal, NamedTuple
from uuid import UUID

LATELY = timedelta(minutes=2)  # a worker that is there asks at least once a minute

Json = Any  # a JSON value: None, bool, int of 64 bits, float, str, list or dict of these
Lane = tuple[str, str]  # (tenant, queue); tenant '' is none
Body = Literal["payload", "result", "progress"]  # what of a job may be large


class JobStatus(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"  # waits for a worker, for its time, or for its retry
    LEASED = "leased"  # with a worker
    SUCCEEDED = "succeeded"
    DEAD = "dead"  # attempts used up, not retryable, or cancelled; kept for a person

    @property
    def is_final(self) -> bool:
        """Whether no worker will get it (again) by itself."""
        return self in (JobStatus.SUCCEEDED, JobStatus.DEAD)


class NewJob(NamedTuple):
    """A job to enqueue, its fields already checked by `domain.rules`."""

    queue: str
    kind: str
    payload: Json
    idempotency_key: str | None = None
    max_attempts: int = 5
    priority: int = 0
    run_at: datetime | None = None
    timeout_secs: int | None = None  # that one attempt may take
    deadline: datetime | None = None  # from when it is not worth doing any more


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as it stands: one row of the projection."""

    id: UUID
    tenant: str | None
    queue: str
    kind: str
    status: JobStatus
    priority: int
    attempts: int  # leases given so far, but for those handed back
    deliveries: int  # leases given so far
    max_attempts: int
    run_at: datetime | None  # as asked when it was enqueued
    created_at: datetime
    eligible_at: datetime | None  # since, or from, when a worker may have it; null when it has ended
    leased_at: datetime | None
    lease_id: UUID | None
    lease_expires_at: datetime | None
    worker_id: UUID | None
    finished_at: datetime | None
    version: int  # of its newest event
    idempotency_key: str | None
    timeout_secs: int | None
    deadline: datetime | None
    error: str | None  # of the last attempt that failed
    run_id: UUID | None = None  # of the workflow's run that it is a step of
    result: Json = None
    progress: Json = None  # the newest {percent, message, data} of the attempt under way


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs are asked for. What is None is not asked."""

    statuses: tuple[JobStatus, ...] | None = None
    queue: str | None = None
    kind: str | None = None
    tenant: str | None = None  # for those who see more than one
    idempotency_key: str | None = None
    created_from: datetime | None = None  # inclusive; the ends are exclusive
    created_to: datetime | None = None
    finished_from: datetime | None = None
    finished_to: datetime | None = None
    error: str | None = None  # a part of its text, in any case


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Why a job that is queued is not running."""

    eligible_at: datetime
    is_due: bool
    paused_at: datetime | None
    paused_by: str | None
    ahead: int | None  # jobs that go first, counted up to a bound; None when it is not due
    worker_seen_at: datetime | None  # when one last asked for its queue


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRequest:
    """What a worker asks for. `queues` holds names, or "*" alone for any."""

    queues: tuple[str, ...]
    capacity: int  # 1–100 jobs
    visibility_secs: int  # 1–86,400
    wait_secs: float  # 0–60
    kinds: tuple[str, ...] | None = None  # None: any
    request_id: str | None = None  # the same one again gets the same leases


class LeasedJob(NamedTuple):
    """A job given to a worker.

    told: what the worker is told, everything it needs to do the work and to report: JSON, as the database wrote it.
    """

    id: str
    tenant: str | None
    queue: str
    told: str

    def fields(self) -> dict[str, Any]:
        """What the worker is told, decoded."""
        fields: dict[str, Any] = json.loads(self.told)
        return fields

    @property
    def lease_id(self) -> str:
        """What every report must name."""
        return str(self.fields()["leaseId"])
