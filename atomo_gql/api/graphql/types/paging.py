"""Relay's connections: pages with opaque cursors that stay good while rows come in."""

import base64
import binascii
from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

import strawberry

from atomo_gql.domain.errors import BadUserInput
from atomo_gql.domain.paging import Page, Window

Key = TypeVar("Key")
Item = TypeVar("Item")


def argument(text: str) -> object:
    """The description of an argument."""
    return strawberry.argument(description=text)


FIRST = argument("The first so many; 1–100. Without first and last: 20.")
AFTER = argument("From behind this cursor.")
LAST = argument("The last so many, instead of the first.")
BEFORE = argument("From before this cursor.")


@strawberry.type(description="Where a page of a connection begins and ends (Relay).")
class PageInfo:
    """Relay's own shape."""

    has_next_page: bool = strawberry.field(description="Whether there is more behind the end.")
    has_previous_page: bool = strawberry.field(description="Whether there is more before the start.")
    start_cursor: str | None = strawberry.field(
        description="Where the page begins; pass it as `before` for the page before."
    )
    end_cursor: str | None = strawberry.field(description="Where the page ends; pass it as `after` for the next page.")

    @classmethod
    def of(cls, page: Page[Item], cursors: list[str]) -> "PageInfo":
        """From the domain."""
        return cls(
            has_next_page=page.has_next,
            has_previous_page=page.has_previous,
            start_cursor=cursors[0] if cursors else None,
            end_cursor=cursors[-1] if cursors else None,
        )


@strawberry.type(description="How many there are, counted up to a bound.")
class Count:
    """A count that costs the same however many there are."""

    value: int = strawberry.field(description="So many, or more.")
    is_exact: bool = strawberry.field(description="Whether there are no more.")


def cursor_of(sort: str, key: str) -> str:
    """An opaque cursor: which list it is of, and the key."""
    return base64.urlsafe_b64encode(f"{sort}:{key}".encode()).decode().rstrip("=")


def window(
    sort: str,
    read: Callable[[str], Key],
    *,
    first: int | None,
    after: str | None,
    last: int | None,
    before: str | None,
) -> Window[Key]:
    """Which part of a list Relay's arguments ask for.

    Raises:
        BadUserInput: a cursor is not of this list, or the numbers are out of range.
    """
    return Window.of(first, _key("after", sort, read, after), last, _key("before", sort, read, before))


def _key(field: str, sort: str, read: Callable[[str], Key], cursor: str | None) -> Key | None:
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
        found, _, key = raw.partition(":")
        if found == sort:
            return read(key)
    except (binascii.Error, ValueError):
        pass
    raise BadUserInput(f"{field} must be a cursor that this connection gave", field=field)


def uuid_key(text: str) -> UUID:
    """The key of lists that are sorted by id."""
    return UUID(text)
