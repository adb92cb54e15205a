"""What one rendering may reach and what it may cost."""

from collections.abc import Mapping

import orjson

from atomo_gql.domain.jobs import Json
from atomo_gql.domain.workflows.rendering import RenderError

_WORK = 16  # times the output: what filters may make on the way to it


class Missing(RenderError):
    """A variable that the context does not have; the filter `default` excuses it."""


class Frame:
    """The scope of one rendering, and what is left of its budgets. Charge first, then build."""

    __slots__ = ("_most", "_output", "_work", "scope")

    def __init__(self, scope: Mapping[str, Json], most: int) -> None:
        self.scope = scope if isinstance(scope, dict) else dict(scope)
        self._most = most  # characters
        self._output = most
        self._work = most * _WORK

    def charge(self, size: int) -> None:
        """So many characters go into the output.

        Raises:
            RenderError: that is more than it may have.
        """
        self._output -= size
        if self._output < 0:
            raise RenderError(f"templates must not make more than {self._most} characters")

    def spend(self, size: int) -> None:
        """A filter makes so many characters.

        Raises:
            RenderError: filters have made enough.
        """
        self._work -= size
        if self._work < 0:
            raise RenderError(f"filters must not make more than {self._most * _WORK} characters on the way")

    def insert(self, value: Json) -> Json:
        """A value as it is: charged as its JSON."""
        self.charge(len(value) + 2 if isinstance(value, str) else _measure(value, self._output))
        return value

    def text(self, value: Json) -> str:
        """A value within text: a string as it is, null as nothing, all else as JSON."""
        return value if isinstance(value, str) else "" if value is None else self.json(value)

    def json(self, value: Json) -> str:
        """Compact JSON."""
        if _measure(value, self._most) > self._most:
            self.charge(self._most + 1)
        try:
            text = orjson.dumps(value).decode()
        except TypeError as error:
            raise RenderError(f"a value cannot be written as JSON: {error}") from None
        self.spend(len(text))
        return text


def _measure(value: Json, most: int) -> int:
    """About the characters of a value's JSON: escapes are not counted, and beyond `most` nothing is."""
    if value is None or isinstance(value, bool | int | float):
        return 5
    size, stack = 0, [value]
    while stack and size <= most:
        item = stack.pop()
        if isinstance(item, str):
            size += len(item) + 3
        elif isinstance(item, dict):
            size += 2 + 4 * len(item) + sum(map(len, item))
            stack.extend(item.values())
        elif isinstance(item, list):
            size += 2 + len(item)
            if size <= most:
                stack.extend(item)
        else:
            size += 5
    return size


def kind(value: Json) -> str:
    """What a value is, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    names = {str: "a string", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), "no JSON value")


def is_number(value: Json) -> bool:
    """Whether it is a number of JSON's; to Python, true is one as well."""
    return isinstance(value, int | float) and not isinstance(value, bool)
