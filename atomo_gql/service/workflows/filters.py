"""The filters of templates: `{{ value | filter(argument, …) }}`.

| filter | gives |
|---|---|
| `default(x)`, `default(x, true)` | `x` for what is missing; with `true` also for what is null, empty, zero or false |
| `length` | how many characters, items or keys |
| `first`, `last` | of a list or a string; nothing there is as good as missing |
| `join(between)` | the items of a list as one text |
| `lower`, `upper`, `trim`, `replace(old, new)`, `urlencode` | of a string |
| `int`, `float`, `round(digits)` | of a number, or (but for `round`) of a string that is one |
| `string`, `tojson` | the value as within text; as JSON |
"""

import math
import re
from collections.abc import Callable
from urllib.parse import quote

from atomo_gql.domain.jobs import Json
from atomo_gql.domain.rules import INT64
from atomo_gql.domain.workflows.rendering import RenderError
from atomo_gql.service.workflows.frame import Frame, Missing, is_number, kind

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?", re.ASCII)


def _string(frame: Frame, name: str, value: Json) -> str:
    if not isinstance(value, str):
        raise RenderError(f"the filter {name} needs a string, not {kind(value)}")
    text: str = value
    frame.spend(len(text))
    return text


def _length(frame: Frame, value: Json) -> int:
    if not isinstance(value, str | list | dict):
        raise RenderError(f"the filter length needs a string, a list or an object, not {kind(value)}")
    return len(value)


def _end(name: str, index: int) -> Callable[[Frame, Json], Json]:
    def end(frame: Frame, value: Json) -> Json:
        if not isinstance(value, str | list):
            raise RenderError(f"the filter {name} needs a list or a string, not {kind(value)}")
        if not value:
            raise Missing(f"the filter {name} found nothing: {kind(value)} is empty")
        return value[index]

    return end


def _join(frame: Frame, value: Json, between: Json = "") -> str:
    if not isinstance(value, list):
        raise RenderError(f"the filter join needs a list, not {kind(value)}")
    separator = _string(frame, "join", between)
    parts = []
    for item in value:
        text = frame.text(item)
        frame.spend(len(text) + len(separator) + 1)
        parts.append(text)
    return separator.join(parts)


def _replace(frame: Frame, value: Json, old: Json, new: Json) -> str:
    text, gone, put = (_string(frame, "replace", part) for part in (value, old, new))
    if not gone:
        raise RenderError("the filter replace must be told what to replace, not an empty string")
    frame.spend(max(0, text.count(gone) * (len(put) - len(gone))))
    return text.replace(gone, put)


def _urlencode(frame: Frame, value: Json) -> str:
    text = _string(frame, "urlencode", value)
    frame.spend(11 * len(text))  # four bytes, as %F0 each, is the most of one character
    return quote(text, safe="")


def _number(name: str, value: Json) -> int | float:
    if isinstance(value, str):
        text = value.strip() if len(value) <= 400 else ""  # the longest fraction in use has about 330 digits
        if not (found := _NUMBER.fullmatch(text)):
            raise RenderError(f"the filter {name} needs a number, not {_quoted(value)}")
        return float(text) if found[1] or found[2] else int(text)
    if not is_number(value):
        raise RenderError(f"the filter {name} needs a number, not {kind(value)}")
    number: int | float = value
    return number


def _quoted(text: str) -> str:
    return f'"{text}"' if len(text) <= 40 else f'"{text[:40]}…"'


def _whole(name: str, number: float) -> int:
    if (isinstance(number, float) and not math.isfinite(number)) or int(number) not in INT64:
        raise RenderError(f"the filter {name} must not make a whole number beyond 64 bits")
    return int(number)


def _int(frame: Frame, value: Json) -> int:
    return _whole("int", _number("int", value))


def _float(frame: Frame, value: Json) -> float:
    try:
        number = float(_number("float", value))
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise RenderError("the filter float must make a number that is finite")
    return number


def _round(frame: Frame, value: Json, digits: Json = 0) -> float:
    if not is_number(value):
        raise RenderError(f"the filter round needs a number, not {kind(value)}")
    if not is_number(digits) or digits not in range(16):
        raise RenderError("the filter round takes from 0 to 15 digits")
    if not digits:
        return _whole("round", round(value))
    return float(round(value, int(digits)))


FILTERS: dict[str, tuple[Callable[..., Json], int, int]] = {  # with the least and the most arguments
    "default": (lambda frame, value, *_: value, 1, 2),  # what else it does is done before its value is known
    "first": (_end("first", 0), 0, 0),
    "float": (_float, 0, 0),
    "int": (_int, 0, 0),
    "join": (_join, 0, 1),
    "last": (_end("last", -1), 0, 0),
    "length": (_length, 0, 0),
    "lower": (lambda frame, value: _string(frame, "lower", value).lower(), 0, 0),
    "replace": (_replace, 2, 2),
    "round": (_round, 0, 1),
    "string": (lambda frame, value: frame.text(value), 0, 0),
    "tojson": (lambda frame, value: frame.json(value), 0, 0),
    "trim": (lambda frame, value: _string(frame, "trim", value).strip(), 0, 0),
    "upper": (lambda frame, value: _string(frame, "upper", value).upper(), 0, 0),
    "urlencode": (_urlencode, 0, 0),
}
