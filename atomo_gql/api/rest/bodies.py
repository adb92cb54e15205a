"""The shapes of what comes in. msgspec checks types and names the field; `domain.rules` check the rest.

What asks for something refuses a field that it does not know: `runat` for `runAt` would be a job that runs at once,
`tenant` for `tenantId` a token for everybody's jobs. What a worker says passes over it: no result is lost for a field
too many.
"""

import json
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from atomo_gql.api.loose import explained, has_surrogate, loosely
from atomo_gql.domain import actions, rules
from atomo_gql.domain.errors import BadUserInput

Name = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": rules.MAX_NAME})]
Moment = Annotated[datetime, Meta(extra_json_schema={"format": "date-time"})]
Shape = TypeVar("Shape")

_KEY = {"minLength": 1, "maxLength": rules.MAX_KEY}
_UNKNOWN = "object contains unknown field "
NO_MOMENT = "must be a moment in RFC 3339, as in 2030-01-31T12:00:00Z"

_REPORTS = {
    "minItems": 1,
    "maxItems": rules.MAX_REPORTS,
    "items": {"$ref": "#/components/schemas/ReportBody"},
}


class EnqueueBody(Struct, rename="camel", forbid_unknown_fields=True):
    """A job to enqueue."""

    queue: Annotated[Name, Meta(description="The lane it waits in.")]
    kind: Annotated[Name, Meta(description="What handler it is for.")]
    payload: Annotated[Any, Meta(description="What the worker gets; any JSON.")] = msgspec.field(default_factory=dict)
    idempotency_key: Annotated[str | None, Meta(description="The same key in the same queue is the same job.")] = None
    max_attempts: Annotated[
        int | None, Meta(description="Leases it may use before it is dead; 1–1,000.", extra_json_schema={"default": 5})
    ] = None
    priority: Annotated[
        int | None, Meta(description="Higher goes first; ±32,767.", extra_json_schema={"default": 0})
    ] = None
    run_at: Annotated[Moment | None, Meta(description="Not before this moment.")] = None
    timeout_secs: Annotated[
        int | None, Meta(description="Seconds that one attempt may take; no heartbeat extends it. 1–604,800.")
    ] = None
    deadline: Annotated[
        Moment | None,
        Meta(description="From this moment on it is not worth doing: no lease lasts longer, then it is dead."),
    ] = None


class BatchBody(Struct, rename="camel", forbid_unknown_fields=True):
    """Jobs to enqueue together, all or none."""

    jobs: Annotated[
        list[EnqueueBody],
        Meta(description="At most 1,000.", extra_json_schema={"minItems": 1, "maxItems": rules.MAX_BATCH}),
    ]


class LeaseBody(Struct, rename="camel"):
    """A worker asks for jobs."""

    queues: Annotated[
        list[str], Meta(description='Names, or ["*"] for every queue.', extra_json_schema={"minItems": 1})
    ]
    capacity: Annotated[
        int | None, Meta(description="At most so many; clamped to 1–100.", extra_json_schema={"default": 1})
    ] = None
    visibility_secs: Annotated[
        int | None,
        Meta(description="Seconds until the leases run out; clamped to 1–86,400.", extra_json_schema={"default": 30}),
    ] = None
    wait_secs: Annotated[
        float | None,
        Meta(
            description="Seconds to wait for a job; clamped to 0–60. With reports there is no waiting.",
            extra_json_schema={"default": 0},
        ),
    ] = None
    kinds: Annotated[
        list[str] | None, Meta(description="Only of these kinds; default: any.", extra_json_schema={"minItems": 1})
    ] = None
    request_id: Annotated[
        str | None,
        Meta(
            description="The same one again, with the same token, gets the same leases and no others.",
            extra_json_schema={"minLength": 1, "maxLength": rules.MAX_REQUEST_ID},
        ),
    ] = None
    reports: Annotated[
        list[msgspec.Raw] | None,
        Meta(description="Applied first; as in POST /jobs/reports.", extra_json_schema=_REPORTS),
    ] = None


class HeartbeatBody(Struct, rename="camel"):
    """A worker needs more time."""

    lease_id: Annotated[str, Meta(description="From the lease.")]
    visibility_secs: Annotated[
        int | None, Meta(description="Seconds from now; clamped to 1–86,400.", extra_json_schema={"default": 30})
    ] = None


class ProgressBody(Struct, rename="camel"):
    """A worker says how far it is."""

    lease_id: Annotated[str, Meta(description="From the lease.")]
    percent: Annotated[float | None, Meta(description="As the worker counts; 0 to 1 is usual.")] = None
    message: Annotated[
        str | None, Meta(description="For people.", extra_json_schema={"maxLength": rules.MAX_MESSAGE})
    ] = None
    data: Annotated[Any, Meta(description="For programs; any JSON.")] = None
    visibility_secs: Annotated[int | None, Meta(description="Seconds from now; default: the lease's own.")] = None


class CompleteBody(Struct, rename="camel"):
    """A worker is done."""

    lease_id: Annotated[str, Meta(description="From the lease.")]
    result: Annotated[Any, Meta(description="What came of it; any JSON.")] = None


class FailBody(Struct, rename="camel"):
    """An attempt failed."""

    lease_id: Annotated[str, Meta(description="From the lease.")]
    error: Annotated[str | None, Meta(description="What went wrong, for people.")] = None
    retryable: Annotated[
        bool | None, Meta(description="Whether another attempt may do better.", extra_json_schema={"default": True})
    ] = None
    retry_after_secs: Annotated[
        float | None,
        Meta(description="Seconds until the retry, in place of the usual back-off; rounded up, clamped to 0–604,800."),
    ] = None


class ReleaseBody(Struct, rename="camel"):
    """A worker hands a job back unharmed."""

    lease_id: Annotated[str, Meta(description="From the lease.")]


class ReportBody(Struct, rename="camel"):
    """What would be the body of POST /jobs/{id}/{type}, and the two names of its path."""

    type: Annotated[
        Literal["heartbeat", "progress", "complete", "fail", "release"], Meta(description="What is reported.")
    ]
    id: Annotated[str, Meta(description="The job's id.")]
    lease_id: Annotated[str, Meta(description="From the lease.")]
    visibility_secs: Annotated[int | None, Meta(description="Of heartbeat and progress.")] = None
    percent: Annotated[float | None, Meta(description="Of progress.")] = None
    message: Annotated[
        str | None, Meta(description="Of progress.", extra_json_schema={"maxLength": rules.MAX_MESSAGE})
    ] = None
    data: Annotated[Any, Meta(description="Of progress; any JSON.")] = None
    result: Annotated[Any, Meta(description="Of complete; any JSON.")] = None
    error: Annotated[str | None, Meta(description="Of fail.")] = None
    retryable: Annotated[bool | None, Meta(description="Of fail.", extra_json_schema={"default": True})] = None
    retry_after_secs: Annotated[float | None, Meta(description="Of fail.")] = None


class ReportsBody(Struct, rename="camel"):
    """Reports on many jobs, each with its own outcome."""

    reports: Annotated[list[msgspec.Raw], Meta(description="At most 1,000.", extra_json_schema=_REPORTS)]


class RotateBody(Struct, rename="camel", forbid_unknown_fields=True):
    """A successor for a worker token."""

    grace_secs: Annotated[
        int | None,
        Meta(description="Seconds that the old token goes on; 0–2,592,000. Default: until it is revoked."),
    ] = None


class MintBody(Struct, rename="camel", forbid_unknown_fields=True):
    """A worker token to make."""

    name: Annotated[Name, Meta(description="For people.")]
    queues: Annotated[list[str], Meta(description='What it may lease; ["*"]: any.', extra_json_schema={"minItems": 1})]
    tenant_id: Annotated[str | None, Meta(description="Bind it to a tenant; for unbound admins.")] = None
    kinds: Annotated[
        list[str] | None, Meta(description="Only jobs of these kinds; default: any.", extra_json_schema={"minItems": 1})
    ] = None
    expires_at: Annotated[Moment | None, Meta(description="Good until then; default: until it is revoked.")] = None


class RecordBody(Struct, rename="camel", forbid_unknown_fields=True):
    """Something that happened to a model of an application."""

    model: Annotated[Name, Meta(description="The model; not Job, of which the service records itself.")]
    event: Annotated[str, Meta(description="What happened.", extra_json_schema={"enum": list(actions.CHANGES)})]
    id: Annotated[str, Meta(description="Which of the model it happened to.", extra_json_schema=_KEY)]
    data: Annotated[Any, Meta(description="As it is now; any JSON.")]
    previous_data: Annotated[dict[str, Any] | None, Meta(description="As it was; for `changedAny`.")] = None
    origin: Annotated[
        str | None, Meta(description="The action that did it, which it does not fire again.", extra_json_schema=_KEY)
    ] = None
    event_id: Annotated[str | None, Meta(description="The same id is the same event.")] = None


class CancelBody(Struct, rename="camel", forbid_unknown_fields=True):
    """Why a run is ended."""

    reason: Annotated[
        str | None, Meta(description="Kept in its errors.", extra_json_schema={"maxLength": rules.MAX_REASON})
    ] = None


class ResumeBody(Struct, rename="camel", forbid_unknown_fields=True):
    """Where a binding that was set aside goes on."""

    skip: Annotated[
        bool | None,
        Meta(
            description="With the next event, and not with the one that it failed on.",
            extra_json_schema={"default": False},
        ),
    ] = None


def decode(raw: bytes, shape: type[Shape]) -> Shape:
    """The body as that shape.

    Raises:
        BadUserInput: not JSON, or not of that shape; names the field and what was expected.
    """
    try:
        if not raw.isascii():
            raw.decode()  # msgspec passes over what stands in a field that the shape does not have
        return msgspec.json.decode(raw, type=shape)
    except msgspec.ValidationError as error:
        raise _explained(error) from None
    except (msgspec.DecodeError, ValueError) as error:
        raise explained(raw, error, "the body") from None
    except RecursionError:
        raise BadUserInput(f"the body must not be nested deeper than {rules.MAX_DEPTH} levels") from None


def decode_listed(raw: bytes, shape: type[Shape]) -> Shape:
    """A body with a list of reports: one that cannot be read is its own concern, and not that of the others.

    Raises:
        BadUserInput: as `decode`, of what is around the list.
    """
    try:
        return decode(raw, shape)
    except BadUserInput:
        value = loosely(raw)
        if not isinstance(value, dict) or not isinstance(value.get("reports"), list):
            raise
        reports = [msgspec.Raw(json.dumps(report).encode()) for report in value["reports"]]
        body = decode(json.dumps({**value, "reports": []}).encode(), shape)
        body.reports = reports  # type: ignore[attr-defined]
        return body


def id_of(raw: bytes) -> str | None:
    """The id that a body names, whatever else is wrong with it."""
    value = loosely(raw)
    named = value.get("id") if isinstance(value, dict) else None
    return named[:100] if isinstance(named, str) and not has_surrogate(named) else None


def _explained(error: msgspec.ValidationError) -> BadUserInput:
    """msgspec says «Expected `int`, got `str` - at `$.capacity`»."""
    text, _, path = str(error).partition(" - at `$")
    field = path.rstrip("`").lstrip(".")
    text = _lower(text).replace("`", "")
    if text.startswith("object missing required field "):
        name = text.removeprefix("object missing required field ")
        field = f"{field}.{name}" if field else name
        return BadUserInput(f"{field} is required", field=field)
    if text.startswith(_UNKNOWN):
        name = text.removeprefix(_UNKNOWN)
        field = f"{field}.{name}" if field else name
        return BadUserInput(f"{field} is not a field of this body; see /openapi.json", field=field)
    if not field:
        return BadUserInput(f"the body must be a JSON object of the documented shape: {text}")
    if text == "invalid RFC3339 encoded datetime":
        return BadUserInput(f"{field} {NO_MOMENT}", field=field)
    return BadUserInput(f"{field}: {text}", field=field)


def _lower(text: str) -> str:
    return text if text[:2].isupper() else text[:1].lower() + text[1:]
