"""Conditions over a context."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from atomo_gql.domain.jobs import Json


class Operator(StrEnum):
    """How a field is compared with a value."""

    EQ = "eq"
    NEQ = "neq"
    GT = "gt"
    LT = "lt"
    CONTAINS = "contains"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A comparison of what stands at a path of the context."""

    field: str  # names, and numbers of list items, parted by dots
    operator: Operator
    value: Json


def holds(condition: Condition, value: Json, scope: Mapping[str, Json]) -> bool:
    """Whether a condition is true; `value` is its value, filled in.

    What is not there is null. Order is known among numbers and among texts; anything else is neither greater nor less.
    """
    found = look_up(condition.field, scope)
    match condition.operator:
        case Operator.EQ:
            return same(found, value)
        case Operator.NEQ:
            return not same(found, value)
        case Operator.GT:
            return _comparable(found, value) and found > value
        case Operator.LT:
            return _comparable(found, value) and found < value
        case Operator.CONTAINS:
            if isinstance(found, str):
                return isinstance(value, str) and value in found
            if isinstance(found, dict):
                return isinstance(value, str) and value in found
            return isinstance(found, list) and any(same(item, value) for item in found)


def look_up(path: str, scope: Mapping[str, Json]) -> Json:
    """What stands there; null where nothing does."""
    value: Json = scope
    for part in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isascii() and part.isdigit() and int(part[:9]) < len(value):
            value = value[int(part[:9])]
        else:
            return None
    return value


def same(one: Json, other: Json) -> bool:
    """Equality as JSON has it: true is not 1, and 1 is 1.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def _comparable(one: Json, other: Json) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return False
    numbers = isinstance(one, int | float) and isinstance(other, int | float)
    return numbers or (isinstance(one, str) and isinstance(other, str))
