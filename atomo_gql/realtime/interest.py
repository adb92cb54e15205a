"""Who wants to hear what: a replica tells the others, so that nothing is said to nobody.

Most hints would reach no one: a server without pages and idle workers needs none, and one alone has nobody to tell.
What is not known is taken for wanted, and what was missed all the same is made up for by looks at the store.
"""

import asyncio
from collections.abc import Callable
from enum import IntFlag

ANNOUNCE_SECS = 5.0  # between two announcements of the same
FORGET_SECS = 3.2 * ANNOUNCE_SECS  # after the last announcement of a replica
UNKNOWN_SECS = 1.2 * ANNOUNCE_SECS  # after which every replica that is there has announced its wants
LINGER_SECS = 30.0  # a want is announced so long after it was last there: workers ask again and again
SETTLE_SECS = 0.1  # after which the others have heard of a new want


class Want(IntFlag):
    """What a replica wants to hear of."""

    NOTHING = 0
    CHANGES = 1  # which jobs have changed, and their progress: somebody watches jobs
    WAKES = 2  # where jobs may have become eligible: somebody waits for one
    NEWS = 4  # that anything has happened: somebody follows the log
    ALL = 7


class Wants:
    """Of this replica, and of the others."""

    def __init__(self) -> None:
        self._checks: dict[Want, Callable[[], bool]] = {}
        self._last_there: dict[Want, float] = {}
        self._others: dict[str, tuple[Want, float]] = {}  # origin → its wants, and until when they are believed
        self._unknown_until = 0.0

    def provide(self, want: Want, check: Callable[[], bool]) -> None:
        """How to find out whether this replica has a want just now."""
        self._checks[want] = check

    def own(self) -> Want:
        """What this replica wants, or wanted a little while ago."""
        now = asyncio.get_running_loop().time()
        own = Want.NOTHING
        for want, check in self._checks.items():
            if check():
                self._last_there[want] = now
            if now - self._last_there.get(want, float("-inf")) < LINGER_SECS:
                own |= want
        return own

    def heard(self, origin: str, mask: int) -> None:
        """Another replica has announced its wants."""
        self._others[origin] = Want(mask & Want.ALL), asyncio.get_running_loop().time() + FORGET_SECS

    def unknown(self) -> None:
        """Announcements may have been missed, or not yet been made."""
        self._unknown_until = asyncio.get_running_loop().time() + UNKNOWN_SECS

    def of_others(self) -> Want:
        """What any other replica wants, as far as is known."""
        now = asyncio.get_running_loop().time()
        if now < self._unknown_until:
            return Want.ALL
        self._others = {origin: told for origin, told in self._others.items() if told[1] > now}
        wanted = Want.NOTHING
        for mask, _ in self._others.values():
            wanted |= mask
        return wanted
