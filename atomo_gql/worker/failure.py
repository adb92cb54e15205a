"""The error text that a failed attempt leaves with its job."""

import traceback
from pathlib import Path
from types import TracebackType

from atomo_gql.worker.encoding import plain_text

LINE_CHARACTERS = 300
MESSAGE_CHARACTERS = 2_000
TRACEBACK_CHARACTERS = 4_000
_SDK = str(Path(__file__).parent)


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
