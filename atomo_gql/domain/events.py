"""Events, and the law of the projection: `fold` says what a job is, given what happened to it.

The statements in `sql/` keep the projection as they go; this is the same law written a second time, on purpose: the
tests and `atomo-gql rebuild --verify` hold the two against each other.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from atomo_gql.domain.jobs import Job, JobStatus, Json


class EventType(StrEnum):
    """What can happen; to a job, with the transition it is."""

    ENQUEUED = "enqueued"  # nothing → queued
    LEASED = "leased"  # queued → leased
    RELEASED = "released"  # leased → queued; the attempt is not counted
    RECLAIMED = "reclaimed"  # leased → queued; the lease ran out
    FAILED = "failed"  # leased → queued until its retry time
    SUCCEEDED = "succeeded"  # leased → succeeded
    DEAD = "dead"  # leased → dead
    RETRIED = "retried"  # dead → queued, by hand
    CANCELLED = "cancelled"  # queued or leased → dead, by hand
    PAUSED = "paused"  # a queue; its stream is the pause
    RESUMED = "resumed"
    MINTED = "minted"  # a worker token
    ROTATED = "rotated"
    REVOKED = "revoked"
    REGISTERED = "registered"  # a version of a workflow's definition, or of a binding
    REMOVED = "removed"
    SET_ASIDE = "set_aside"  # a binding that failed
    RECORDED = "recorded"  # something that happened to a model of an application
    RUN_STARTED = "run_started"  # a run of a workflow
    STEP_STARTED = "step_started"  # a group of branches
    STEP_WAITING = "step_waiting"  # for a job's end, or for a time
    STEP_COMPLETED = "step_completed"
    STEP_FAILED = "step_failed"  # with the time of its retry, if there is one
    STEP_SKIPPED = "step_skipped"
    RUN_COMPLETED = "run_completed"
    RUN_FAILED = "run_failed"


class Stream(StrEnum):
    """What has a life that events tell of."""

    JOB = "Job"
    QUEUE = "Queue"  # one pause of a queue
    WORKER_TOKEN = "WorkerToken"  # noqa: S105  # a name
    WORKFLOW = "Workflow"  # one run
    DEFINITION = "Definition"  # of a workflow
    BINDING = "Binding"
    MODEL = "Model"  # one thing of an application, by its model and id


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An immutable fact in a stream."""

    stream_id: UUID
    version: int  # 1, 2, 3 … in the stream, without gaps
    position: int  # in the whole log, unique; readers order by (xid, position)
    xid: int
    at: datetime
    stream: Stream
    type: EventType
    tenant: str | None
    actor: str
    trace: str | None
    data: Json
    size: int = field(default=0, compare=False)  # bytes of its data as text, where the reader asked for it
    queue: str | None = None  # of its job, where the reader asked for it
    kind: str | None = None

    @property
    def place(self) -> "Place":
        """Where it is in the whole log."""
        return Place(self.xid, self.position)


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A place in the log. Readers go by (xid, position): a position is handed out before its event is committed."""

    xid: int = 0
    position: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events are asked for; what is None is not asked."""

    streams: tuple[Stream, ...] = (Stream.JOB,)
    stream_id: UUID | None = None
    queue: str | None = None
    kind: str | None = None
    types: tuple[EventType, ...] | None = None


class BrokenStream(Exception):
    """The events of a stream contradict each other or the law."""


def fold(events: Iterable[Event]) -> Job:
    """The job that these events, in order from the first, make.

    A live lease's deadline and progress are not in the events: `lease_expires_at` and `progress` stay None.

    Raises:
        BrokenStream: a version is missing or double, or a transition is not allowed.
    """
    job: Job | None = None
    queued_at: datetime | None = None  # where the job stood in the queue before its lease
    for event in events:
        expected = 1 if job is None else job.version + 1
        if event.version != expected:
            raise BrokenStream(f"{event.stream_id}: version {event.version} where {expected} was expected")
        job = _enqueued(event) if job is None else replace(_apply(job, event, queued_at), version=event.version)
        if job.status is JobStatus.QUEUED:
            queued_at = job.eligible_at
    if job is None:
        raise BrokenStream("a stream without events")
    return job


def _enqueued(event: Event) -> Job:
    if event.type is not EventType.ENQUEUED:
        raise BrokenStream(f"{event.stream_id}: begins with {event.type}")
    data = event.data
    run_at = _moment(data["runAt"])
    return Job(
        id=event.stream_id,
        tenant=event.tenant,
        queue=data["queue"],
        kind=data["kind"],
        status=JobStatus.QUEUED,
        priority=data["priority"],
        attempts=0,
        deliveries=0,
        max_attempts=data["maxAttempts"],
        run_at=run_at,
        created_at=event.at,
        eligible_at=max(run_at, event.at) if run_at else event.at,
        leased_at=None,
        lease_id=None,
        lease_expires_at=None,
        worker_id=None,
        finished_at=None,
        version=1,
        idempotency_key=data["idempotencyKey"],
        timeout_secs=data.get("timeoutSecs"),
        deadline=_moment(data.get("deadline")),
        error=None,
        run_id=UUID(data["runId"]) if "runId" in data else None,
    )


def _apply(job: Job, event: Event, queued_at: datetime | None) -> Job:
    data = event.data
    if event.type is EventType.LEASED:
        _require(job, event, JobStatus.QUEUED)
        return replace(
            job,
            status=JobStatus.LEASED,
            attempts=data["attempt"],
            deliveries=job.deliveries + 1,
            leased_at=event.at,
            lease_id=UUID(data["leaseId"]),
            worker_id=UUID(event.actor.removeprefix("worker:")),
        )
    if event.type is EventType.RETRIED:
        _require(job, event, JobStatus.DEAD)
        deadline = job.deadline if job.deadline and job.deadline > event.at else None
        return replace(
            job,
            status=JobStatus.QUEUED,
            attempts=0,
            deliveries=0,
            eligible_at=event.at,
            leased_at=None,
            worker_id=None,
            finished_at=None,
            deadline=deadline,
        )
    if event.type is EventType.CANCELLED:
        _require(job, event, JobStatus.QUEUED, JobStatus.LEASED)
        return _ended(job, event, JobStatus.DEAD, data["error"])
    if event.type is EventType.DEAD and "leaseId" not in data:  # its deadline passed while it was queued
        _require(job, event, JobStatus.QUEUED)
        return _ended(job, event, JobStatus.DEAD, data["error"])
    _require(job, event, JobStatus.LEASED)
    if UUID(data["leaseId"]) != job.lease_id:
        raise BrokenStream(f"{job.id}: version {event.version} names a lease that is not the current one")
    free = replace(job, status=JobStatus.QUEUED, leased_at=None, lease_id=None, worker_id=None)
    match event.type:
        case EventType.RELEASED:
            return replace(free, attempts=job.attempts - 1, eligible_at=queued_at)
        case EventType.RECLAIMED:
            return replace(free, eligible_at=event.at, error=data["error"])
        case EventType.FAILED:
            return replace(free, eligible_at=_moment(data["retryAt"]), error=data["error"])
        case EventType.SUCCEEDED:
            return replace(_ended(job, event, JobStatus.SUCCEEDED, None), result=data["result"])
        case EventType.DEAD:
            return _ended(job, event, JobStatus.DEAD, data["error"])
        case _:
            raise BrokenStream(f"{job.id}: version {event.version} is a second {event.type}")


def _ended(job: Job, event: Event, status: JobStatus, error: str | None) -> Job:
    return replace(
        job,
        status=status,
        finished_at=event.at,
        eligible_at=None,
        lease_id=None,
        error=error,
    )


def _require(job: Job, event: Event, *allowed: JobStatus) -> None:
    if job.status not in allowed:
        raise BrokenStream(f"{job.id}: version {event.version} is {event.type}, but the job was {job.status}")


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
