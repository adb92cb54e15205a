"""What happens next in a run: pure decisions, made from the definition, the run as it stands, and what it waited for.

A decision is carried out by the engine in one transaction. It walks the definition from its beginning each time and
passes over what is done, so it may be made at any moment and as often as one likes: where nothing is due, nothing
happens. Jobs are ordered, not made: their ids are the database's, and what follows may name them.

The split into deciding and applying is that of the functional event sourcing decider (Jérémie Chassaing, 2021).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any, Generic, TypeVar
from uuid import UUID

from atomo_gql.domain.errors import AtomoError
from atomo_gql.domain.events import EventType
from atomo_gql.domain.jobs import Json, NewJob
from atomo_gql.domain.rules import MAX_KEY
from atomo_gql.domain.workflows.condition import holds
from atomo_gql.domain.workflows.definition import Definition, Delay, JobAction, Parallel, SetVariable, Step
from atomo_gql.domain.workflows.parsing import check_delay
from atomo_gql.domain.workflows.rendering import Renderer, RenderError
from atomo_gql.domain.workflows.runs import Run, StepState, StepStatus

MAX_ERROR = 4_000  # characters of a step's error

Prepared = TypeVar("Prepared")


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How a job ended that a step waits for."""

    result: Json = None
    error: str | None = None  # it is dead


@dataclass(frozen=True, slots=True)
class JobOrder(Generic[Prepared]):
    """A job that a step wants enqueued."""

    step: Step
    attempt: int
    job: Prepared


@dataclass(frozen=True, slots=True)
class RunEvent:
    """Something that has been decided."""

    version: int
    type: EventType
    data: Mapping[str, Any]


class Flow(Enum):
    """How far a sequence of steps is."""

    DONE = auto()
    BLOCKED = auto()
    FAILED = auto()


class Decider(Generic[Prepared]):
    """Decides for one run, in one turn of the engine. `go`, then `placed` for each of `orders`, then `go` again, until
    there are no orders. `events` is what has been decided; the run is as they make it."""

    def __init__(
        self,
        definition: Definition | str,
        run: Run,
        now: datetime,
        *,
        renderer: Renderer,
        prepare: Callable[[NewJob], Prepared],
        size: Callable[[Json], int],
        most_bytes: int,
        ended: Mapping[UUID, JobEnd],
    ) -> None:
        """A definition that is a text cannot be read, and says why. `prepare` checks a job and makes it ready to be
        written; `size` is a JSON value's in bytes, of which the context and the results of the steps may have
        `most_bytes` together; `ended` are jobs that the run waited for.
        """
        self.run = run
        self.events: list[RunEvent] = []
        self.orders: list[JobOrder[Prepared]] = []
        self._definition = definition
        self._now = now
        self._renderer = renderer
        self._prepare = prepare
        self._size = size
        self._used: int | None = None  # bytes of the context and of the results; None: not measured yet
        self._most_bytes = most_bytes
        self._ended = ended

    def go(self) -> None:
        """Decide as far as can be without a job's id, a job's end, or time."""
        self.orders = []
        if isinstance(self._definition, str):
            self.give_up(self._definition)
        if self.run.status.is_final or isinstance(self._definition, str):
            return
        if self.run.timeout_at is not None and self.run.timeout_at <= self._now:
            self._emit(EventType.RUN_FAILED, {"error": f"timed out after {self._definition.timeout_secs} s"})
            return
        flow = self._sequence(self._definition.steps)
        if flow is Flow.DONE:
            self._emit(EventType.RUN_COMPLETED, {})
        elif flow is Flow.FAILED:
            self._emit(EventType.RUN_FAILED, {})

    def placed(self, order: JobOrder[Prepared], job_id: UUID, *, is_new: bool) -> None:
        """An order was carried out: the job has that id, and is new, or was there."""
        data = {**_of(order.step, order.attempt), "jobId": str(job_id)}
        if not (isinstance(order.step.action, JobAction) and order.step.action.wait):
            self._emit(EventType.STEP_COMPLETED, data)
            return
        self._emit(EventType.STEP_WAITING, data if is_new else {**data, "isShared": True})

    def give_up(self, error: str) -> None:
        """The run fails, whatever its definition says."""
        self.orders = []
        if not self.run.status.is_final:
            self._emit(EventType.RUN_FAILED, {"error": error})

    def cancel(self, error: str) -> None:
        """Somebody ends the run."""
        self._emit(EventType.CANCELLED, {"error": error})

    def retry(self) -> None:
        """Somebody has a run that has failed go on from where it failed. Its time begins anew."""
        timeout = None if isinstance(self._definition, str) else self._definition.timeout_secs
        until = None if timeout is None else (self._now + timedelta(seconds=timeout)).isoformat()
        self._emit(EventType.RETRIED, {} if until is None else {"timeoutAt": until})

    def _emit(self, type_: EventType, data: Mapping[str, Any]) -> None:
        self.run.apply(type_, data, self._now)
        self.events.append(RunEvent(self.run.version, type_, data))

    def _sequence(self, steps: Sequence[Step]) -> Flow:
        for step in steps:
            flow = self._step(step)
            if flow is not Flow.DONE:
                return flow
        return Flow.DONE

    def _step(self, step: Step) -> Flow:
        state = self.run.steps.get(step.name)
        if state is None:
            self._begin(step, 1)
        elif state.status is StepStatus.WAITING and state.job_id and state.job_id in self._ended:
            self._job_ended(step, state, self._ended[state.job_id])
        elif state.status is StepStatus.RETRYING and _is_due(state, self._now):
            (self._begin if state.is_unjudged else self._act)(step, state.attempt + 1)
        state = self.run.steps.get(step.name)
        if state is not None and state.status is StepStatus.DELAYED and _is_due(state, self._now):
            self._emit(EventType.STEP_COMPLETED, _of(step, state.attempt))
        if state is not None and state.status is StepStatus.OPEN and isinstance(step.action, Parallel):
            return self._group(step, step.action)
        if state is None or not (state.status.is_done or state.status is StepStatus.FAILED):
            return Flow.BLOCKED
        return Flow.FAILED if state.status is StepStatus.FAILED else Flow.DONE

    def _begin(self, step: Step, attempt: int) -> None:
        if step.condition is not None:
            scope = self.run.scope()
            try:
                is_true = holds(step.condition, self._renderer.render(step.condition.value, scope), scope)
            except RenderError as error:
                self._fail(step, attempt, f"condition: {error}", is_unjudged=True)
                return
            if not is_true:
                self._emit(EventType.STEP_SKIPPED, {"step": step.name})
                return
        self._act(step, attempt)

    def _act(self, step: Step, attempt: int) -> None:
        try:
            match step.action:
                case Parallel():
                    self._emit(EventType.STEP_STARTED, {"step": step.name})
                case SetVariable(key=key, value=value):
                    found = self._renderer.render(value, self.run.scope())
                    self._require_room(key, found)
                    self._emit(EventType.STEP_COMPLETED, {**_of(step, attempt), "set": {key: found}})
                case Delay(seconds=seconds):
                    until = self._now + timedelta(seconds=self._seconds(seconds))
                    self._emit(EventType.STEP_WAITING, {**_of(step, attempt), "until": until.isoformat()})
                case JobAction() as action:
                    self.orders.append(JobOrder(step, attempt, self._prepare(self._job(step, action, attempt))))
        except (AtomoError, RenderError) as error:
            self._fail(step, attempt, str(error))

    def _seconds(self, seconds: float | str) -> float:
        if not isinstance(seconds, str):
            return seconds
        found = self._renderer.render(seconds, self.run.scope())
        try:
            return check_delay("seconds", float(found) if isinstance(found, str) else found)
        except ValueError:
            return check_delay("seconds", found)

    def _job(self, step: Step, action: JobAction, attempt: int) -> NewJob:
        wanted = {"queue": action.queue, "kind": action.kind, "payload": action.payload, "key": action.idempotency_key}
        found = self._renderer.render(wanted, self.run.scope())
        key = f"run:{self.run.id}:{step.name}" if found["key"] is None else _text("idempotency_key", found["key"])
        if attempt > 1:  # the same key would be the same job, which has failed
            own = f"{key[: MAX_KEY - 20]} (attempt {attempt})"
            key = f"{key}:{attempt}" if found["key"] is None else own
        return NewJob(
            queue=_text("queue", found["queue"]),
            kind=_text("kind", found["kind"]),
            payload=found["payload"],
            idempotency_key=key,
            max_attempts=action.max_attempts,
            priority=action.priority,
            timeout_secs=action.timeout_secs,
        )

    def _job_ended(self, step: Step, state: StepState, end: JobEnd) -> None:
        if end.error is not None:
            self._fail(step, state.attempt, f"job {state.job_id} is dead: {end.error}")
            return
        try:
            self._require_room("job_result", end.result, copies=2)
        except (AtomoError, RenderError) as error:
            self._fail(step, state.attempt, str(error))
            return
        data = {**_of(step, state.attempt), "jobId": str(state.job_id), "result": end.result}
        self._emit(EventType.STEP_COMPLETED, data)

    def _group(self, step: Step, action: Parallel) -> Flow:
        flows = [self._sequence(branch) for branch in action.branches]
        if Flow.BLOCKED in flows:
            return Flow.BLOCKED
        if Flow.FAILED not in flows:
            self._emit(EventType.STEP_COMPLETED, {"step": step.name})
            return Flow.DONE
        failed = [s.name for branch in action.branches for s in branch if self._has_failed(s)]
        self._fail(step, 1, f"failed in {', '.join(failed)}", failed)
        return Flow.DONE if step.on_failure.goes_on else Flow.FAILED

    def _has_failed(self, step: Step) -> bool:
        state = self.run.steps.get(step.name)
        return state is not None and state.status is StepStatus.FAILED

    def _fail(
        self, step: Step, attempt: int, error: str, within: Sequence[str] = (), *, is_unjudged: bool = False
    ) -> None:
        data: dict[str, Any] = {**_of(step, attempt), "error": error[:MAX_ERROR]}
        if is_unjudged:
            data["isUnjudged"] = True
        state = self.run.steps.get(step.name)
        tried = attempt - (0 if state is None else state.spent)
        if tried < step.on_failure.max_attempts:
            data["retryAt"] = (self._now + timedelta(seconds=min(5 * 2 ** min(tried - 1, 12), 3600))).isoformat()
        elif step.on_failure.goes_on:
            data["goesOn"] = True
            if within:
                data["within"] = within  # what failed in the group is passed over with it
        self._emit(EventType.STEP_FAILED, data)

    def _require_room(self, name: str, value: Json, *, copies: int = 1) -> None:
        """Refuse a variable that would make the run larger than it may be. Measured once as a whole, then by what comes
        and goes: a run of many steps and a large context would spend its time on nothing else.

        Raises:
            RenderError: it would.
        """
        context = self.run.context
        try:
            if self._used is None:
                results = [state.result for state in self.run.steps.values() if state.result is not None]
                self._used = self._size([context, results])
            gone = self._size([{name: context[name]}]) if name in context else 0
            used = self._used - gone + self._size([{name: value}, value][:copies])
        except AtomoError as error:
            raise RenderError(f"the context and the results of the steps cannot be kept: {error}") from error
        if used > self._most_bytes:
            raise RenderError(
                f"the context and the results of the steps must have at most {self._most_bytes} bytes, not {used}"
            )
        self._used = used


def _of(step: Step, attempt: int) -> dict[str, Any]:
    return {"step": step.name} if attempt == 1 else {"step": step.name, "attempt": attempt}


def _is_due(state: StepState, now: datetime) -> bool:
    return state.until is None or state.until <= now


def _text(name: str, value: Json) -> str:
    """What a template made of the field of that name; a number is written out."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    made = "a list" if isinstance(value, list) else "an object" if isinstance(value, dict) else str(value).lower()
    raise RenderError(f"{name} must be a text, not {'null' if value is None else made}")
