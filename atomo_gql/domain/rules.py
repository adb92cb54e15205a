"""The rules for what callers send, in one place for every door: each refusal names the field and the rule."""

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from atomo_gql.domain.errors import BadUserInput, PayloadTooLarge
from atomo_gql.domain.jobs import Json, LeaseRequest, NewJob

MAX_NAME = 200  # characters of a queue, a kind or a worker's name
MAX_KEY = 512  # characters of an idempotency key
MAX_INDEXED = 2_600  # bytes of what is unique together: what PostgreSQL's indexes hold
MAX_ACTOR = 520  # characters
MAX_TEXT = 65_536  # characters of an error; what is longer is cut, so that no failure report is lost to its length
MAX_MESSAGE = 2_000  # characters of a progress message
MAX_REASON = 1_000  # characters of why something is cancelled
MAX_ATTEMPTS = 1_000
MAX_BATCH = 1_000  # jobs enqueued in one call
MAX_PRIORITY = 32_767
MAX_DEPTH = 250  # levels of nesting in a JSON value
MAX_CAPACITY = 100
MAX_VISIBILITY_SECS = 86_400
MAX_WAIT_SECS = 60
MAX_QUEUES = 1_000  # named in one lease or token
MAX_KINDS = 1_000
MAX_REPORTS = 1_000  # in one call
MAX_REQUEST_ID = 200  # characters
MAX_TIMEOUT_SECS = 604_800  # a week
MAX_RETRY_AFTER_SECS = 604_800
MAX_GRACE_SECS = 2_592_000  # 30 days
INT64 = range(-(2**63), 2**64)  # signed or unsigned
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_ACTOR = re.compile(r"(?:user|system):.")
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ID_SHAPE = "00000000-0000-0000-0000-000000000000"
_NIBBLES = str.maketrans("123456789abcdef", "0" * 15)


def check_text(field: str, value: str, most: int) -> str:
    """A string PostgreSQL can hold, of at most so many characters."""
    if "\x00" in value:
        raise BadUserInput(f"{field} must not contain a NUL character", field=field)
    if _SURROGATE.search(value):
        raise BadUserInput(f"{field} must not contain a lone surrogate", field=field)
    if len(value) > most:
        raise BadUserInput(f"{field} must have at most {most} characters, not {len(value)}", field=field)
    return value


def check_name(field: str, value: str, most: int = MAX_NAME) -> str:
    """A name: not blank, printable, not too long."""
    check_text(field, value, most)
    if not value.strip():
        raise BadUserInput(f"{field} must not be blank", field=field)
    if _CONTROL.search(value):
        raise BadUserInput(f"{field} must not contain control characters", field=field)
    return value


def check_unique(field: str, value: str, *beside: str, names: str) -> str:
    """What is unique together with the values beside it, which are called so: an index must hold them all."""
    if 4 * (len(value) + sum(map(len, beside))) > MAX_INDEXED:  # perhaps; a character has 4 bytes at most
        size = sum(len(part.encode()) for part in (value, *beside))
        if size > MAX_INDEXED:
            rule = f"must have at most {MAX_INDEXED} bytes, together with {names}, not {size}"
            raise BadUserInput(f"{field} {rule}", field=field)
    return value


def check_queue(field: str, value: str) -> str:
    """The name of one queue; "*" is every queue's sign, and no queue's name."""
    if value == "*":
        raise BadUserInput(f'{field} must name one queue; "*" stands for all of them', field=field)
    return check_name(field, value)


def check_queues(field: str, values: Sequence[str]) -> tuple[str, ...]:
    """A list of queues, without doubles; one that has "*" is just that."""
    if not values:
        raise BadUserInput(f"{field} must name at least one queue", field=field)
    if len(values) > MAX_QUEUES:
        raise BadUserInput(f"{field} must name at most {MAX_QUEUES} queues, not {len(values)}", field=field)
    for index, value in enumerate(values):
        check_name(f"{field}[{index}]", value)
    return ("*",) if "*" in values else tuple(dict.fromkeys(values))


def check_kinds(field: str, values: Sequence[str] | None) -> tuple[str, ...] | None:
    """A list of kinds, without doubles; None is any."""
    if values is None:
        return None
    if not 0 < len(values) <= MAX_KINDS:
        raise BadUserInput(f"{field} must name from 1 to {MAX_KINDS} kinds, not {len(values)}", field=field)
    for index, value in enumerate(values):
        check_name(f"{field}[{index}]", value)
    return tuple(dict.fromkeys(values))


def check_actor(value: str) -> str:
    """Who enqueues, as an application says it: a person's subject, or a part of the system."""
    check_name("actor", value, MAX_ACTOR)
    if not _ACTOR.match(value):
        raise BadUserInput("actor must begin with user: or system:", field="actor")
    return value


def check_range(field: str, value: int, least: int, most: int) -> int:
    """A whole number between two bounds, both allowed."""
    if not least <= value <= most:
        raise BadUserInput(f"{field} must be from {least} to {most}, not {value}", field=field)
    return value


def clamp(value: float, least: int, most: int) -> int:
    """The nearest allowed whole number (a NaN is the least)."""
    return least if not value >= least else most if value >= most else int(value)


def check_json(field: str, value: Json, most: int = MAX_DEPTH) -> Json:
    """A JSON value that can be kept: 64-bit whole numbers, finite fractions, no NUL, bounded nesting."""
    stack: list[tuple[Json, int]] = [(value, 1)]
    while stack:
        item, depth = stack.pop()
        if isinstance(item, str):
            if "\x00" in item or _SURROGATE.search(item):
                raise BadUserInput(f"{field} must not contain a NUL character or a lone surrogate", field=field)
        elif item is None or isinstance(item, bool):
            pass
        elif isinstance(item, int):
            if item not in INT64:
                raise BadUserInput(f"{field} must not contain whole numbers beyond 64 bits", field=field)
        elif isinstance(item, float):
            if not math.isfinite(item):
                raise BadUserInput(f"{field} must not contain numbers that are not finite", field=field)
        elif isinstance(item, dict | list | tuple):
            if depth > most:
                raise BadUserInput(f"{field} must not be nested deeper than {most} levels", field=field)
            if isinstance(item, dict):
                stack.extend((key, depth) for key in item)
            stack.extend((inner, depth + 1) for inner in (item.values() if isinstance(item, dict) else item))
        else:
            raise BadUserInput(f"{field} must be a JSON value, not {type(item).__name__}", field=field)
    return value


def check_size(field: str, encoded: bytes, most: int) -> bytes:
    """An encoded value of at most so many bytes."""
    if len(encoded) > most:
        raise PayloadTooLarge(f"{field} must have at most {most} bytes, not {len(encoded)}", field=field)
    return encoded


def check_moment(field: str, value: datetime) -> datetime:
    """A moment with a time zone, within the years that every part of the system can hold."""
    if value.tzinfo is None:
        raise BadUserInput(f"{field} must name its offset from UTC, as in 2030-01-31T12:00:00Z", field=field)
    try:
        moment = value.astimezone(UTC)
    except OverflowError:
        moment = LATEST + timedelta(days=1)
    if not EARLIEST <= moment <= LATEST:
        raise BadUserInput(f"{field} must lie between the years {EARLIEST.year} and {LATEST.year}", field=field)
    return moment


def check_new_job(job: NewJob, prefix: str = "") -> NewJob:
    """Every rule of enqueueing but those of the payload, which `service.encoding` sees to.

    `prefix` names the place in a list, as in `jobs[3].`.
    """
    check_queue(f"{prefix}queue", job.queue)
    check_name(f"{prefix}kind", job.kind)
    if job.idempotency_key is not None:
        check_name(f"{prefix}idempotencyKey", job.idempotency_key, MAX_KEY)
    check_range(f"{prefix}maxAttempts", job.max_attempts, 1, MAX_ATTEMPTS)
    check_range(f"{prefix}priority", job.priority, -MAX_PRIORITY, MAX_PRIORITY)
    if job.timeout_secs is not None:
        check_range(f"{prefix}timeoutSecs", job.timeout_secs, 1, MAX_TIMEOUT_SECS)
    if job.run_at is None and job.deadline is None:
        return job
    run_at = None if job.run_at is None else check_moment(f"{prefix}runAt", job.run_at)
    deadline = None if job.deadline is None else check_moment(f"{prefix}deadline", job.deadline)
    if run_at and deadline and deadline <= run_at:
        raise BadUserInput(f"{prefix}deadline must be after {prefix}runAt", field=f"{prefix}deadline")
    return job._replace(run_at=run_at, deadline=deadline)


def lease_request(
    queues: Sequence[str],
    capacity: int | None,
    visibility_secs: int | None,
    wait_secs: float | None,
    kinds: Sequence[str] | None = None,
    request_id: str | None = None,
) -> LeaseRequest:
    """A lease request with its numbers clamped to what is allowed."""
    return LeaseRequest(
        queues=check_queues("queues", queues),
        capacity=1 if capacity is None else clamp(capacity, 1, MAX_CAPACITY),
        visibility_secs=check_visibility(visibility_secs),
        wait_secs=0.0 if wait_secs is None else float(max(0, min(wait_secs, MAX_WAIT_SECS))),
        kinds=check_kinds("kinds", kinds),
        request_id=None if request_id is None else check_name("requestId", request_id, MAX_REQUEST_ID),
    )


def check_visibility(value: int | None) -> int:
    """Seconds until a lease runs out, clamped; 30 when nothing is said."""
    return 30 if value is None else clamp(value, 1, MAX_VISIBILITY_SECS)


def check_retry_after(value: float | None) -> int | None:
    """Seconds until a retry, rounded up and clamped; None: the usual back-off."""
    return None if value is None else clamp(math.ceil(min(value, MAX_RETRY_AFTER_SECS)), 0, MAX_RETRY_AFTER_SECS)


def check_error(value: str | None) -> str:
    """The error of a failure, cut rather than refused: a report must not fail because its reason is long."""
    text = "the worker gave no reason" if value is None or not value.strip() else value
    check_text("error", text[:MAX_TEXT], MAX_TEXT)
    return text[:MAX_TEXT]


def is_id(value: str) -> bool:
    """Whether it is an id in canonical form."""
    return _ID.fullmatch(value) is not None


def are_ids(values: Sequence[str]) -> bool:
    """Whether each is an id in canonical form; for many at a time."""
    shape = ",".join(values).translate(_NIBBLES)
    return shape == ",".join([_ID_SHAPE] * len(values))


def parse_id(field: str, value: object) -> UUID:
    """A job's, lease's or token's id.

    Raises:
        BadUserInput: it is not a UUID in canonical form.
    """
    if isinstance(value, UUID):
        return value
    if isinstance(value, str) and is_id(value):  # one spelling, so that whoever keys by it is right
        return UUID(value)
    raise BadUserInput(f"{field} must be an id such as 0190f3a8-7c1e-7000-8000-0123456789ab", field=field)
