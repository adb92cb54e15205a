"""The functions that a template becomes, but for paths and filters."""

import operator
from collections.abc import Callable
from typing import Any

from atomo_gql.domain.jobs import Json
from atomo_gql.domain.workflows.rendering import RenderError
from atomo_gql.service.workflows.frame import Frame, Missing, is_number, kind
from atomo_gql.service.workflows.paths import Evaluate

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {  # as Jinja calls them
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "lteq": operator.le,
    "gt": operator.gt,
    "gteq": operator.ge,
}


def constant(value: Json) -> Evaluate:
    """Always the same."""
    return lambda frame: value


def text(pieces: list[str | Evaluate]) -> Evaluate:
    """Text, and values within it."""
    fixed = sum(len(piece) for piece in pieces if isinstance(piece, str))

    def evaluate(frame: Frame) -> str:
        frame.charge(fixed)
        parts = []
        for piece in pieces:
            if isinstance(piece, str):
                parts.append(piece)
            else:
                part = frame.text(piece(frame))
                frame.charge(len(part))
                parts.append(part)
        return "".join(parts)

    return evaluate


def default(value: Evaluate, other: Evaluate, also_empty: Evaluate | None = None) -> Evaluate:
    """The value, or the other one where it is missing (or empty, if that is asked for)."""

    def evaluate(frame: Frame) -> Json:
        try:
            found = value(frame)
        except Missing:
            return other(frame)
        return found if found or also_empty is None or not also_empty(frame) else other(frame)

    return evaluate


def is_defined(value: Evaluate) -> Evaluate:
    """Whether the context has it."""

    def evaluate(frame: Frame) -> bool:
        try:
            value(frame)
        except Missing:
            return False
        return True

    return evaluate


def compare(name: str, left: Json, right: Json) -> bool:
    """By value, as JSON: true is not 1.

    Raises:
        RenderError: two lists or objects; or, by size, anything but two numbers or two strings.
    """
    if name in ("eq", "ne"):
        if isinstance(left, list | dict) and isinstance(right, list | dict):
            raise RenderError(f"a template must not compare {kind(left)} and {kind(right)}")
        same = isinstance(left, bool) is isinstance(right, bool) and left == right
        return same is (name == "eq")
    if not (is_number(left) and is_number(right)) and not (isinstance(left, str) and isinstance(right, str)):
        raise RenderError(f"a template must not compare {kind(left)} and {kind(right)} by size")
    return COMPARISONS[name](left, right)
