"""A run played without a database: what the engine does in its transactions, done by hand."""

import copy
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson

from atomo_gql.domain.events import Event, EventType, Stream
from atomo_gql.domain.jobs import Json, NewJob
from atomo_gql.domain.rules import check_new_job
from atomo_gql.domain.workflows.deciding import Decider, JobEnd
from atomo_gql.domain.workflows.definition import Definition
from atomo_gql.domain.workflows.parsing import parse_definition
from atomo_gql.domain.workflows.runs import Run, fold
from atomo_gql.service.workflows.templates import Templates

TEMPLATES = Templates()
START = datetime(2026, 1, 1, 12, tzinfo=UTC)


def define(*steps: Any, **more: Any) -> Definition:
    """A workflow of these steps."""
    return parse_definition({"name": "w", "steps": list(steps), **more}, TEMPLATES)


def job(name: str, *, on_failure: Any = "Stop", condition: Any = None, **more: Any) -> dict[str, Any]:
    """A step that waits for a job, whose kind is the step's name."""
    fields = {"queue": "q", "kind": name, "wait": True, **more}
    return {"name": name, "action": {"Job": fields}, "on_failure": on_failure, "condition": condition}


def put(name: str, value: Json, *, key: str | None = None, **more: Any) -> dict[str, Any]:
    """A step that sets the variable of its name."""
    return {"name": name, "action": {"SetVariable": {"key": key or name, "value": value}}, **more}


def delay(name: str, seconds: Json = 60, **more: Any) -> dict[str, Any]:
    """A step that lets time pass."""
    return {"name": name, "action": {"Delay": {"seconds": seconds}}, **more}


def group(name: str, *branches: Any, on_failure: str = "Stop", **more: Any) -> dict[str, Any]:
    """Branches side by side."""
    return {"name": name, "parallel": list(branches), "on_failure": on_failure, **more}


class Play:
    """One run, its events, and the jobs it has made."""

    def __init__(self, definition: Definition | str, context: Mapping[str, Json] | None = None, **more: Any) -> None:
        self.definition = definition
        self.now = START
        self.events: list[Event] = []
        self.jobs: dict[str, tuple[UUID, NewJob]] = {}  # by the key
        self.most_bytes = 1_000_000
        timeout = None if isinstance(definition, str) else definition.timeout_secs
        until = {} if timeout is None else {"timeoutAt": (START + timedelta(seconds=timeout)).isoformat()}
        data = {"workflow": "w", "workflowId": str(UUID(int=7)), "definitionVersion": 1, "trigger": {"kind": "manual"}}
        self._log(EventType.RUN_STARTED, {**data, "context": dict(context or {}), **until, **more})
        self.run: Run = fold(self.events)

    def go(self, **ends: Json | Exception) -> "Play":
        """One turn of the engine, in which the jobs of these steps are found to have ended."""
        ended: dict[UUID, JobEnd] = {}
        for step, result in ends.items():
            job_id = self.run.steps[step].job_id
            assert job_id is not None
            ended[job_id] = JobEnd(None, str(result)) if isinstance(result, Exception) else JobEnd(result)
        decider = self._decider(ended)
        self._decide(decider)
        return self

    def retry(self) -> "Play":
        """By hand."""
        decider = self._decider({})
        decider.retry()
        self._decide(decider)
        return self

    def cancel(self) -> "Play":
        """By hand."""
        decider = self._decider({})
        decider.cancel("cancelled by user:x")
        self._decide(decider)
        return self

    def wait(self, seconds: float) -> "Play":
        """Let time pass."""
        self.now += timedelta(seconds=seconds)
        return self

    def _decider(self, ended: Mapping[UUID, JobEnd]) -> Decider[NewJob]:
        return Decider(
            self.definition,
            self.run,
            self.now,
            renderer=TEMPLATES,
            prepare=check_new_job,
            size=lambda value: len(orjson.dumps(value)),
            most_bytes=self.most_bytes,
            ended=ended,
        )

    def _decide(self, decider: Decider[NewJob]) -> None:
        while True:
            decider.go()
            for order in decider.orders:
                key = f"{order.job.queue} {order.job.idempotency_key}"
                is_new = key not in self.jobs
                job_id, _ = self.jobs.setdefault(key, (UUID(int=1_000 + len(self.jobs)), order.job))
                decider.placed(order, job_id, is_new=is_new)
            if not decider.orders:
                break
        for event in decider.events:
            self._log(event.type, event.data)
            assert self.events[-1].version == event.version
        assert fold(self.events) == self.run

    def _log(self, type_: EventType, data: Mapping[str, Any]) -> None:
        event = Event(
            stream_id=UUID(int=1),
            version=len(self.events) + 1,
            position=len(self.events) + 1,
            xid=1,
            at=self.now,
            stream=Stream.WORKFLOW,
            type=type_,
            tenant=None,
            actor="user:x",
            trace=None,
            data=copy.deepcopy(orjson.loads(orjson.dumps(data))),
        )
        self.events.append(event)

    @property
    def told(self) -> list[str]:
        """What has happened, briefly."""
        shown = [f"{e.type.value} {e.data['step']}" if "step" in e.data else e.type.value for e in self.events[1:]]
        return [text.removeprefix("step_") for text in shown]

    @property
    def states(self) -> dict[str, str]:
        """Of the steps that have begun."""
        return {name: state.status.value for name, state in self.run.steps.items()}

    @property
    def status(self) -> str:
        """Of the run."""
        return self.run.status.value
