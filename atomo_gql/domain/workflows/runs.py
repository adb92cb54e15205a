"""A run of a workflow: what it is, and the law by which its events make it.

The engine decides which events follow (`deciding`), and a run changes by no other way than by having an event applied.
So a run is, at any moment, what its events say; `fold` replays them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from atomo_gql.domain.events import BrokenStream, Event, EventType
from atomo_gql.domain.jobs import Json


class RunStatus(StrEnum):
    """Where a run is in its life."""

    RUNNING = "Running"  # has something to do now
    PAUSED = "Paused"  # parked until a job ends or a time comes; goes on by itself
    COMPLETED = "Completed"
    FAILED = "Failed"  # or timed out, or cancelled: its last error says so

    @property
    def is_final(self) -> bool:
        """Whether nothing comes after it by itself."""
        return self in (RunStatus.COMPLETED, RunStatus.FAILED)


class StepStatus(StrEnum):
    """Where a step of a run is. One that has not begun has no state."""

    OPEN = "open"  # a group whose branches run
    WAITING = "waiting"  # for its job's end
    DELAYED = "delayed"
    RETRYING = "retrying"  # failed, and will be tried again
    COMPLETED = "completed"
    SKIPPED = "skipped"  # its condition was false
    PASSED = "passed"  # failed, and the run goes on
    FAILED = "failed"
    CANCELLED = "cancelled"  # the run ended while it was under way

    @property
    def is_parked(self) -> bool:
        """Whether it waits for something."""
        return self in (StepStatus.WAITING, StepStatus.DELAYED, StepStatus.RETRYING)

    @property
    def is_done(self) -> bool:
        """Whether what comes after it may begin."""
        return self in (StepStatus.COMPLETED, StepStatus.SKIPPED, StepStatus.PASSED)


@dataclass(slots=True, kw_only=True)
class StepState:
    """A step that has begun."""

    status: StepStatus
    began_at: datetime
    attempt: int = 1  # the present one, or the last
    spent: int = 0  # attempts before the run was last retried by hand
    is_group: bool = False
    job_id: UUID | None = None
    is_shared: bool = False  # somebody else had enqueued the job that it waits for
    is_unjudged: bool = False  # its condition could not be judged, and is looked at again when it is tried again
    until: datetime | None = None  # of a delay, or of a retry
    ended_at: datetime | None = None
    error: str | None = None  # of the last attempt that failed
    result: Json = None  # of its job, once that has succeeded

    def shown(self) -> dict[str, Json]:
        """As templates and conditions see it, under `steps.<name>`."""
        return {
            "status": self.status.value,
            "job_id": None if self.job_id is None else str(self.job_id),
            "job_result": self.result,
            "error": self.error,
        }


class RunBody(NamedTuple):
    """What of a run may be large, for readers who get it apart from the run."""

    context: dict[str, Json]
    results: dict[str, Json]  # of the steps' jobs, by step


@dataclass(slots=True, kw_only=True)
class Run:
    """One run, as it stands: one row of the projection."""

    id: UUID
    tenant: str | None
    workflow: str
    workflow_id: UUID
    definition_version: int  # it keeps the definition it began with
    actor: str  # who began it
    trace: str | None  # W3C traceparent of what began it
    trigger: Json  # what began it: {"kind": "manual"}, an event or a tick
    key: str | None  # its idempotency key, in the workflow and the tenant
    via: list[str]  # the actions, and `workflow:<name>`s, that led to it, the first of them first
    started_at: datetime
    context: dict[str, Json]
    status: RunStatus = RunStatus.RUNNING
    steps: dict[str, StepState] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    steps_run: int = 0
    version: int = 0  # of its newest event
    changed_at: datetime | None = None
    timeout_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def wake_at(self) -> datetime | None:
        """When there is next something to do that no job's end tells of."""
        if self.status is RunStatus.RUNNING:
            return self.changed_at
        if self.status.is_final:
            return None
        moments = [s.until for s in self.steps.values() if s.status.is_parked and s.until is not None]
        if self.timeout_at is not None:
            moments.append(self.timeout_at)
        return min(moments, default=None)

    def awaited(self) -> dict[str, StepState]:
        """The steps that wait for a job's end, by name."""
        return {name: state for name, state in self.steps.items() if state.status is StepStatus.WAITING}

    def scope(self) -> dict[str, Json]:
        """What templates and conditions can name: the context, `run` and `steps`."""
        run = {
            "id": str(self.id),
            "workflow": self.workflow,
            "version": self.definition_version,
            "started_at": self.started_at.isoformat(),
            "tenant": self.tenant,
        }
        return {**self.context, "run": run, "steps": {name: state.shown() for name, state in self.steps.items()}}

    def apply(self, type_: EventType, data: Mapping[str, Any], at: datetime) -> None:
        """Let something have happened.

        Raises:
            BrokenStream: it cannot happen to a run in this state.
        """
        if self.version and self.status.is_final is not (type_ is EventType.RETRIED):
            raise BrokenStream(f"run {self.id}: {type_} while it is {self.status}")
        _APPLY[type_](self, data, at)
        self.version += 1
        self.changed_at = at
        if not self.status.is_final:
            is_parked = any(state.status.is_parked for state in self.steps.values())
            self.status = RunStatus.PAUSED if is_parked else RunStatus.RUNNING


def begin(event: Event) -> Run:
    """The run that its first event makes.

    Raises:
        BrokenStream: it is no beginning.
    """
    data = event.data
    if event.type is not EventType.RUN_STARTED or event.version != 1:
        raise BrokenStream(f"run {event.stream_id}: begins with {event.type}, version {event.version}")
    run = Run(
        id=event.stream_id,
        tenant=event.tenant,
        workflow=data["workflow"],
        workflow_id=UUID(data["workflowId"]),
        definition_version=data["definitionVersion"],
        actor=event.actor,
        trace=event.trace,
        trigger=data["trigger"],
        key=data.get("key"),
        via=list(data.get("via", [])),
        started_at=event.at,
        context=dict(data["context"]),
        timeout_at=_moment(data.get("timeoutAt")),
    )
    run.version, run.changed_at = 1, event.at
    return run


def fold(events: Iterable[Event]) -> Run:
    """The run that these events, in order from the first, make.

    Raises:
        BrokenStream: a version is missing or double, or an event cannot follow.
    """
    run: Run | None = None
    for event in events:
        if run is None:
            run = begin(event)
            continue
        if event.version != run.version + 1:
            raise BrokenStream(f"run {run.id}: version {event.version} where {run.version + 1} was expected")
        run.apply(event.type, event.data, event.at)
    if run is None:
        raise BrokenStream("a stream without events")
    return run


def _opened(run: Run, data: Mapping[str, Any], at: datetime) -> None:
    run.steps[data["step"]] = StepState(status=StepStatus.OPEN, began_at=at, is_group=True)


def _parked(run: Run, data: Mapping[str, Any], at: datetime) -> None:
    state = _entered(run, data, at)
    state.until = _moment(data.get("until"))
    state.status = StepStatus.DELAYED
    if "jobId" in data:
        state.job_id, state.status = UUID(data["jobId"]), StepStatus.WAITING
        state.is_shared = data.get("isShared", False)
        run.context["job_id"] = data["jobId"]


def _completed(run: Run, data: Mapping[str, Any], at: datetime) -> None:
    state = _entered(run, data, at)
    state.status, state.ended_at, state.until = StepStatus.COMPLETED, at, None
    if "jobId" in data:
        state.job_id = UUID(data["jobId"])
        run.context["job_id"] = data["jobId"]
    if "result" in data:
        state.result = run.context["job_result"] = data["result"]
    run.context.update(data.get("set", {}))
    run.steps_run += 1


def _step_failed(run: Run, data: Mapping[str, Any], at: datetime) -> None:
    state = _entered(run, data, at)
    state.error, state.until = data["error"], _moment(data.get("retryAt"))
    state.is_unjudged = data.get("isUnjudged", False)
    if state.until is not None:
        state.status = StepStatus.RETRYING
        return
    state.status = StepStatus.PASSED if data.get("goesOn") else StepStatus.FAILED
    state.ended_at = at
    for name in data.get("within", ()):
        run.steps[name].status = StepStatus.PASSED
    run.errors.append(f"{data['step']}: {data['error']}")
    run.steps_run += 1


def _skipped(run: Run, data: Mapping[str, Any], at: datetime) -> None:
    run.steps[data["step"]] = StepState(status=StepStatus.SKIPPED, began_at=at, ended_at=at)


def _run_completed(run: Run, data: Mapping[str, Any], at: datetime) -> None:
    run.status, run.finished_at = RunStatus.COMPLETED, at


def _run_failed(run: Run, data: Mapping[str, Any], at: datetime) -> None:
    run.status, run.finished_at = RunStatus.FAILED, at
    if "error" in data:
        run.errors.append(data["error"])
    for state in run.steps.values():
        if state.status.is_parked or state.status is StepStatus.OPEN:
            state.status, state.ended_at, state.until = StepStatus.CANCELLED, at, None


def _retried(run: Run, data: Mapping[str, Any], at: datetime) -> None:
    if run.status is not RunStatus.FAILED:
        raise BrokenStream(f"run {run.id}: retried while it is {run.status}")
    run.status, run.finished_at, run.errors = RunStatus.RUNNING, None, []
    run.timeout_at = _moment(data.get("timeoutAt"))
    for state in run.steps.values():
        if state.status in (StepStatus.FAILED, StepStatus.CANCELLED):
            state.ended_at = None
            if state.is_group:
                state.status, state.error = StepStatus.OPEN, None
            else:
                state.status, state.until, state.spent = StepStatus.RETRYING, at, state.attempt


def _entered(run: Run, data: Mapping[str, Any], at: datetime) -> StepState:
    """The state of the step that an event is about, in the attempt it is about."""
    state = run.steps.get(data["step"])
    if state is None:
        state = run.steps[data["step"]] = StepState(status=StepStatus.OPEN, began_at=at)
    state.attempt = data.get("attempt", 1)
    return state


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


_APPLY = {
    EventType.STEP_STARTED: _opened,
    EventType.STEP_WAITING: _parked,
    EventType.STEP_COMPLETED: _completed,
    EventType.STEP_FAILED: _step_failed,
    EventType.STEP_SKIPPED: _skipped,
    EventType.RUN_COMPLETED: _run_completed,
    EventType.RUN_FAILED: _run_failed,
    EventType.CANCELLED: _run_failed,
    EventType.RETRIED: _retried,
}
