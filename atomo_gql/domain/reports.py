"""What a worker says of a job it holds, and what becomes of it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from atomo_gql.domain.jobs import Json


class ReportType(StrEnum):
    """What a report can be."""

    HEARTBEAT = "heartbeat"  # I need more time
    PROGRESS = "progress"  # I am so far, and need more time
    COMPLETE = "complete"
    FAIL = "fail"
    RELEASE = "release"  # take it back, unharmed


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A word from the worker while it works. It is fanned out and forgotten."""

    percent: float | None = None
    message: str | None = None
    data: Json = None

    def as_json(self) -> dict[str, Json]:
        """The three fields, as every door shows them."""
        return {"percent": self.percent, "message": self.message, "data": self.data}


class Report(NamedTuple):
    """One report. What the fields below the ids mean depends on its type; the others stay as they are."""

    type: ReportType
    job_id: str  # in canonical form, both
    lease_id: str  # the right to one attempt
    result: Json = None
    visibility_secs: int | None = None  # heartbeat, progress; None: as long as the lease was given for
    progress: Progress | None = None
    error: str | None = None
    retryable: bool = True
    retry_after_secs: int | None = None  # fail; None: the usual back-off


@dataclass(frozen=True, slots=True)
class FailOutcome:
    """What became of a job that failed."""

    delay_secs: int | None  # until the retry, without its jitter; None: it is dead
