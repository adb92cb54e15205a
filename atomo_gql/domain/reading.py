"""Reading JSON whose shape is fixed: every refusal names the place, as in `steps[2].action.Job.queue`, and the rule."""

from collections.abc import Collection
from typing import Any

from atomo_gql.domain.errors import BadUserInput
from atomo_gql.domain.jobs import Json
from atomo_gql.domain.rules import check_range


def read_object(
    place: str, source: Json, known: Collection[str], required: tuple[str, ...] = (), *, whole: str = ""
) -> dict[str, Any]:
    """An object with these fields. A place of "" is the whole, which is called by that name.

    Raises:
        BadUserInput: it is none, has others, or lacks one.
    """
    if not isinstance(source, dict):
        raise BadUserInput(f"{place or whole} must be an object", field=place or whole)
    at = place and f"{place}."
    for name in source:
        if name not in known:
            field = f"{at}{name[:100]}"
            raise BadUserInput(f"{field} is not a field here; there may be: {', '.join(known) or 'none'}", field=field)
    for name in required:
        if name not in source:
            raise BadUserInput(f"{at}{name} is required", field=f"{at}{name}")
    return source


def read_tagged(place: str, source: Json, kinds: Collection[str]) -> tuple[str, Json]:
    """An object with one field, whose name says what it is.

    Raises:
        BadUserInput: it is none, or says something else.
    """
    if not isinstance(source, dict) or len(source) != 1 or next(iter(source)) not in kinds:
        names = " or ".join(f'{{"{kind}": …}}' for kind in kinds)
        raise BadUserInput(f"{place} must be {names}", field=place)
    [(kind, body)] = source.items()
    return kind, body


def read_text(place: str, source: Json) -> str:
    """A string.

    Raises:
        BadUserInput: it is none.
    """
    if not isinstance(source, str):
        raise BadUserInput(f"{place} must be a string", field=place)
    return source


def read_whole(place: str, source: Json, least: int, most: int) -> int:
    """A whole number between two bounds, both allowed.

    Raises:
        BadUserInput: it is none, or lies beyond.
    """
    if isinstance(source, bool) or not isinstance(source, int):
        raise BadUserInput(f"{place} must be a whole number", field=place)
    return check_range(place, source, least, most)
