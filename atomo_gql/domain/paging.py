"""Pages of a list that has an order and a key: the items after one key and before another, from either end.

After the cursor connections of Relay (https://relay.dev/graphql/connections.htm).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypedDict, TypeVar

from atomo_gql.domain.errors import BadUserInput
from atomo_gql.domain.rules import check_range

MAX_PAGE = 100
Key = TypeVar("Key")
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Items in the list's order, and whether there is more on either side."""

    items: Sequence[Item]
    has_next: bool
    has_previous: bool
    resumes_at: object | None = None  # the key from behind which a search goes on that ended before it had seen all


class Walk(TypedDict, Generic[Key]):
    """What a query for a page is told: whence it walks, between which keys, and one more than the page holds."""

    above: Key | None  # exclusive, both
    below: Key | None
    descending: bool
    most: int


@dataclass(frozen=True, slots=True)
class Window(Generic[Key]):
    """Which part of the list is asked for. `after` and `before` are exclusive."""

    most: int
    after: Key | None
    before: Key | None
    is_backwards: bool  # the last so many, not the first

    @classmethod
    def of(
        cls, first: int | None, after: Key | None, last: int | None, before: Key | None, *, default: int = 20
    ) -> "Window[Key]":
        """From Relay's four arguments.

        Raises:
            BadUserInput: both `first` and `last`, or one out of range.
        """
        if first is not None and last is not None:
            raise BadUserInput("first and last must not both be given", field="last")
        name, most = ("last", last) if last is not None else ("first", default if first is None else first)
        return cls(check_range(name, most, 1, MAX_PAGE), after, before, last is not None)

    def walk(self, *, ascending: bool) -> "Walk[Key]":
        """How a query finds the page, in a list that ascends or descends by its key."""
        return {
            "above": self.after if ascending else self.before,
            "below": self.before if ascending else self.after,
            "descending": ascending is self.is_backwards,
            "most": self.most + 1,
        }

    def page(self, found: Sequence[Item], resumes_at: Key | None = None) -> Page[Item]:
        """From what a query found that went as `walk` says; `resumes_at`: it ended there, before it had seen all."""
        items = found[: self.most]
        if len(found) > self.most:
            resumes_at = None
        has_more = len(found) > self.most or resumes_at is not None
        if self.is_backwards:
            return Page(items[::-1], self.before is not None, has_more, resumes_at)
        return Page(items, has_more, self.after is not None, resumes_at)
