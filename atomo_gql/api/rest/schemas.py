"""The shapes of what goes out, for the OpenAPI document. A test holds them against real answers."""

from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from atomo_gql.api.rest.bodies import Moment
from atomo_gql.domain.jobs import JobStatus
from atomo_gql.domain.workflows.runs import RunStatus, StepStatus

AnyObject = dict[str, Any]
_Ended = Annotated[
    Literal["succeeded", "failed", "dead", "released", "reclaimed", "cancelled"],
    Meta(description="Of LEASE_LOST: what ended the lease, where it was this worker's own."),
]


class Created(Struct):
    """A job was made, or found by its idempotency key."""

    id: UUID


class CreatedBatch(Struct):
    """The jobs, in the order of the request."""

    jobs: list[Created]


class ProgressView(Struct, rename="camel"):
    """The newest progress of the attempt under way."""

    percent: float | None
    message: str | None
    data: Any


class JobView(Struct, rename="camel"):
    """A job as it stands."""

    id: UUID
    queue: str
    kind: str
    status: JobStatus
    priority: int
    attempts: Annotated[int, Meta(description="Leases given so far, but for those handed back.")]
    deliveries: Annotated[int, Meta(description="Leases given so far.")]
    max_attempts: int
    run_at: Moment | None
    timeout_secs: Annotated[int | None, Meta(description="That one attempt may take.")]
    deadline: Annotated[Moment | None, Meta(description="From when it is not worth doing.")]
    created_at: Moment
    eligible_at: Annotated[Moment | None, Meta(description="Since, or from, when a worker may have it.")]
    leased_at: Moment | None
    lease_expires_at: Moment | None
    finished_at: Moment | None
    idempotency_key: str | None
    tenant_id: str | None
    progress: ProgressView | None
    result: Annotated[Any, Meta(description="Once it has succeeded.")]
    error: Annotated[str | None, Meta(description="Of the last attempt that failed.")]
    run_id: Annotated[UUID | None, Meta(description="The run of a workflow that it is a step of.")]


class LeasedJobView(Struct, rename="camel"):
    """A job for the worker that has it."""

    id: UUID
    queue: str
    kind: str
    payload: Any
    attempts: Annotated[int, Meta(description="This one: 1, 2, 3 …")]
    deliveries: Annotated[int, Meta(description="Leases given so far, this one included.")]
    max_attempts: int
    lease_id: Annotated[UUID, Meta(description="Every report must name it.")]
    lease_expires_at: Moment
    timeout_secs: Annotated[int | None, Meta(description="That this attempt may take; no heartbeat extends it.")]
    deadline: Annotated[Moment | None, Meta(description="From when it is not worth doing; no heartbeat extends it.")]
    priority: int
    created_at: Moment
    traceparent: str | None
    tenant_id: str | None


class ReportOutcome(Struct, rename="camel"):
    """What its own call would have been answered: a status, and the fields of that answer's body."""

    id: Annotated[str | None, Meta(description="As it was given; null when it could not be read.")]
    status: Annotated[int, Meta(description="204, 200 with outcome, 400, 409 or 413.")]
    outcome: Annotated[Literal["retry", "dead"], Meta(description="Of fail.")] | msgspec.UnsetType = msgspec.UNSET
    delay_secs: Annotated[int, Meta(description="Of fail, with retry.")] | msgspec.UnsetType = msgspec.UNSET
    code: Annotated[str, Meta(description="Of an error.")] | msgspec.UnsetType = msgspec.UNSET
    detail: Annotated[str, Meta(description="Of an error.")] | msgspec.UnsetType = msgspec.UNSET
    field: Annotated[str, Meta(description="Of an error.")] | msgspec.UnsetType = msgspec.UNSET
    ended: _Ended | msgspec.UnsetType = msgspec.UNSET


class ReportOutcomes(Struct):
    """In the order of the reports."""

    outcomes: list[ReportOutcome]


class Leased(Struct):
    """The jobs leased; none when the time was up. With reports, their outcomes."""

    jobs: list[LeasedJobView]
    outcomes: list[ReportOutcome] | msgspec.UnsetType = msgspec.UNSET


class FailOutcome(Struct, rename="camel"):
    """What became of a job that failed."""

    outcome: Literal["retry", "dead"]
    delay_secs: Annotated[int, Meta(description="Seconds until the retry, without jitter; only with retry.")] = 0


class WorkerTokenView(Struct, rename="camel"):
    """A worker token, without its secret."""

    id: UUID
    name: str
    queues: list[str]
    tenant_id: str | None
    is_revoked: bool
    created_at: Moment
    created_by: str
    revoked_at: Moment | None
    kinds: Annotated[list[str] | None, Meta(description="Only jobs of these kinds; null: any.")]
    expires_at: Annotated[Moment | None, Meta(description="Good until then; null: until it is revoked.")]
    last_used_at: Annotated[Moment | None, Meta(description="Give or take a minute.")]


class MintedToken(WorkerTokenView, rename="camel", kw_only=True):
    """A new worker token. The secret is shown this once."""

    token: str


class WorkerTokens(Struct):
    """Every token the caller may see, revoked ones too."""

    workers: list[WorkerTokenView]


class WorkflowView(Struct, rename="camel"):
    """A workflow in its newest version."""

    id: UUID
    name: str
    description: Annotated[str | None, Meta(description="Of the definition; or why that cannot be read any more.")]
    definition_version: Annotated[int, Meta(description="1, 2, 3 … A run keeps the one it began with.")]
    tenant_id: Annotated[str | None, Meta(description="Whose it is; null: the service's, for every tenant.")]
    trigger: Annotated[Any, Meta(description="Of the definition.")]
    definition: Annotated[dict[str, Any], Meta(description="As it was registered.")]
    is_paused: Annotated[bool, Meta(description="Neither its schedule nor events begin it.")]
    paused_at: Moment | None
    paused_by: str | None
    next_at: Annotated[Moment | None, Meta(description="The next tick of its schedule.")]
    next_ticks: Annotated[list[Moment], Meta(description="That one, and some after it.")]
    registered_at: Moment
    registered_by: str
    source_file: Annotated[str | None, Meta(description="That it was read from at boot.")]


class Workflows(Struct):
    """Those that the caller can see, by name."""

    workflows: list[WorkflowView]


_RUN_NAMES = {  # all but steps_run, which the contract has in another style
    "definition_version": "definitionVersion",
    "tenant_id": "tenantId",
    "started_at": "startedAt",
    "finished_at": "finishedAt",
}


class RunLine(Struct, rename=_RUN_NAMES):
    """A run, in a list of runs."""

    id: UUID
    workflow: str
    status: Annotated[
        RunStatus, Meta(description="Paused: it waits for a job, a delay or a retry, and goes on by itself.")
    ]
    steps_run: Annotated[int, Meta(description="Steps that have completed, or failed for good.")]
    errors: Annotated[list[str], Meta(description="Of the steps that failed, and of the run.")]
    definition_version: Annotated[int, Meta(description="The one it began with.")]
    tenant_id: str | None
    trigger: Annotated[AnyObject, Meta(description="What began it: kind is manual, event or schedule.")]
    started_at: Moment
    finished_at: Moment | None


class StepView(Struct, rename="camel"):
    """A step of a run."""

    name: str
    status: Annotated[
        str,
        Meta(
            description="pending: it has not begun. passed: it failed, and the run goes on.",
            extra_json_schema={"enum": ["pending", *StepStatus]},
        ),
    ]
    attempt: Annotated[int, Meta(description="The present one, or the last: 1, 2, 3 …")]
    job_id: Annotated[UUID | None, Meta(description="The job that it enqueued.")]
    until: Annotated[Moment | None, Meta(description="When its delay or its wait for a retry is over.")]
    error: Annotated[str | None, Meta(description="Of the last attempt that failed.")]
    began_at: Moment | None
    ended_at: Moment | None


class RunView(RunLine, rename=_RUN_NAMES, kw_only=True):
    """A run as it stands."""

    context: AnyObject
    steps: Annotated[list[StepView], Meta(description="In the order of the definition, those of a group after it.")]


class Runs(Struct, rename="camel"):
    """The newest first."""

    runs: list[RunLine]
    has_more: Annotated[bool, Meta(description="There are more `after` the last of them.")]


class Recorded(Struct, rename="camel"):
    """An event in the log."""

    event_id: str
    is_new: Annotated[bool, Meta(description="Whether this call put it there.")]


class BindingView(Struct, rename="camel"):
    """Which action fires on which event."""

    id: UUID
    model: str
    event: str
    action: str
    queue: str
    condition: AnyObject | None
    input: Annotated[list[str] | None, Meta(description="The fields of the data that its job gets; null: all.")]
    tenant_id: Annotated[str | None, Meta(description="Whose it is; null: the service's, for every tenant.")]
    is_set_aside: Annotated[bool, Meta(description="It failed, and fires no more until it is resumed.")]
    set_aside_at: Moment | None
    error: str | None
    registered_at: Moment
    registered_by: str
    source_file: Annotated[str | None, Meta(description="That it was read from at boot.")]


class Bindings(Struct):
    """Those that the caller can see, oldest first."""

    bindings: list[BindingView]


class Status(Struct):
    """How it is."""

    status: str


class Problem(Struct):
    """An error (RFC 9457)."""

    type: str
    status: int
    title: str
    detail: Annotated[str, Meta(description="Names the field and the rule.")]
    code: Annotated[str, Meta(description="Stable; for programs.")]
    field: str = ""
    ended: _Ended | msgspec.UnsetType = msgspec.UNSET
