"""What a workflow is.

A definition is a sequence of steps. A step acts, or is a group of branches that run side by side; a branch is itself a
sequence. Groups do not nest, so a definition is at most two levels deep.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from atomo_gql.domain.jobs import Json
from atomo_gql.domain.workflows.condition import Condition


@dataclass(frozen=True, slots=True, kw_only=True)
class JobAction:
    """Enqueue a job, and perhaps wait for its end. Strings may be templates."""

    queue: str
    kind: str
    payload: Json = field(default_factory=dict)
    idempotency_key: str | None = None
    max_attempts: int = 5
    priority: int = 0
    timeout_secs: int | None = None
    wait: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SetVariable:
    """Put a value into the context."""

    key: str
    value: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """Let time pass."""

    seconds: float | str  # a string is a template


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallel:
    """Run branches side by side."""

    branches: "tuple[tuple[Step, ...], ...]"


Action = JobAction | SetVariable | Delay | Parallel


@dataclass(frozen=True, slots=True, kw_only=True)
class OnFailure:
    """What a failed step means for the run."""

    goes_on: bool = False  # the next step follows all the same
    max_attempts: int = 1  # of the step; with more than one it is tried again


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step; its name is unique in the definition."""

    name: str
    action: Action
    condition: Condition | None = None
    on_failure: OnFailure = field(default_factory=OnFailure)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manual:
    """Somebody starts it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnEvent:
    """An event of a model starts it."""

    model: str
    event_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The clock starts it."""

    cron: str
    timezone: str = "UTC"
    missed: str = "latest"  # of ticks that passed while no server ran: "latest", "all" or "skip"


Trigger = Manual | OnEvent | Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A workflow, ready to run."""

    name: str
    trigger: Trigger
    steps: tuple[Step, ...]
    timeout_secs: int | None = None  # that a whole run may take
    description: str | None = None

    def every_step(self) -> Iterator[Step]:
        """All steps, those of branches after their group."""
        for step in self.steps:
            yield step
            if isinstance(step.action, Parallel):
                for branch in step.action.branches:
                    yield from branch
