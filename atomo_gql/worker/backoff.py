"""How long to wait before the next try."""

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

FIRST_SECONDS = 0.1
LONGEST_SECONDS = 15.0
LONGEST_RETRY_AFTER_SECONDS = 300.0


class Backoff:
    """Exponential back-off with full jitter: uniform between nothing and a bound that doubles with each pause.

    first, longest: the first and the last bound, in seconds.
    """

    __slots__ = ("_bound", "_first", "_longest")

    def __init__(self, first: float = FIRST_SECONDS, longest: float = LONGEST_SECONDS) -> None:
        self._first = first
        self._longest = longest
        self._bound = first

    def pause(self, retry_after: float | None = None) -> float:
        """Seconds to wait now; never less than `retry_after`, the seconds that the server asked for."""
        jittered = random.uniform(0, self._bound)  # noqa: S311 -- spreads the load, keeps no secret
        self._bound = min(self._bound * 2, self._longest)
        return jittered if retry_after is None else retry_after + jittered

    def reset(self) -> None:
        """Begin again at the first bound, after a success."""
        self._bound = self._first


def parse_retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds from a `Retry-After` header, which holds seconds or an HTTP date; None when absent or unreadable.

    A server that asks for more than five minutes is asked again after five.
    """
    if not value:
        return None
    try:
        seconds = float(int(value))
    except ValueError:
        try:
            at = parsedate_to_datetime(value)
        except ValueError:
            return None
        if at.tzinfo is None:  # "-0000": UTC by RFC 5322
            at = at.replace(tzinfo=UTC)
        seconds = (at - (now or datetime.now(UTC))).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS)
