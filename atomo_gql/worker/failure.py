"""How an attempt failed, and the error text that it leaves with its job."""

import traceback
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from atomo_gql.worker.encoding import plain_text
from atomo_gql.worker.errors import NonRetryableError, RetryAfter
from atomo_gql.worker.job import Job
from atomo_gql.worker.report import Report

LINE_CHARACTERS = 300
MESSAGE_CHARACTERS = 2_000
TRACEBACK_CHARACTERS = 4_000
_SDK = str(Path(__file__).parent)


@dataclass(frozen=True, slots=True)
class Failure:
    """brief: one line, for the log. error: what the job keeps. retry_after: seconds; None: the usual back-off."""

    brief: str
    error: str
    retryable: bool = True
    retry_after: float | None = None

    @classmethod
    def of(cls, error: BaseException) -> "Failure":
        """What a handler raised."""
        after = error.seconds if isinstance(error, RetryAfter) else None
        return cls(one_line(error), describe(error), not isinstance(error, NonRetryableError), after)

    def report(self, job: Job) -> Report:
        """As the server is told."""
        fields: dict[str, object] = {"error": self.error, "retryable": self.retryable}
        if self.retry_after is not None:
            fields["retryAfterSecs"] = self.retry_after
        return Report("fail", job, fields)


def summary(error: BaseException) -> str:
    """`ValueError: text`, at most 2,000 characters."""
    name = type(error).__name__
    try:
        text = str(error)
    except Exception as broken:
        text = f"(its message cannot be shown: {type(broken).__name__})"
    return _head(plain_text(f"{name}: {text}" if text else name), MESSAGE_CHARACTERS)


def one_line(error: BaseException) -> str:
    """The summary on one line of at most 300 characters, for the log."""
    return _head(" ".join(summary(error).split()), LINE_CHARACTERS)


def describe(error: BaseException) -> str:
    """The summary first, then the innermost part of the traceback, at most 4,000 characters of it."""
    lines = traceback.format_exception(type(error), error, _own_frames_skipped(error.__traceback__), limit=-50)
    return f"{summary(error)}\n\n{_tail(plain_text(''.join(lines)), TRACEBACK_CHARACTERS)}"


def _own_frames_skipped(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the handler's own first frame on."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_SDK):
        trace = trace.tb_next
    return trace


def _head(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]} … ({len(text) - limit} more characters)"


def _tail(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"({len(text) - limit} characters left out) …{text[-limit:]}"
