"""Templates in JSON values: a string may hold `{{ expression }}`, filled in from the context of a run.

- A string that is just `{{ … }}` becomes the value itself: a number, an object, null. With text around it, it becomes
  text: strings as they are, null as nothing, all else as JSON. Keys of objects are never templates.
- An expression names a variable and the way into it (`deal.items[0].id`, `deal["odd key"]`, `names[deal.lang]`), sends
  it through filters (see `filters`), compares, chooses (`a if b else c`, `a or b`), and may hold constants, lists and
  objects. It cannot call, calculate, loop or set, and reaches keys and indices only.
- What the context does not have is an error, unless `default` follows; null is a value like others. `null` and `none`
  both write it.
- Braces as they are: `{{ '{{' }}` and `{{ '{%' }}`. `{# comments #}` leave nothing, `{{-` and `-}}` eat the blanks
  beside them.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from atomo_gql.domain.errors import BadUserInput
from atomo_gql.domain.jobs import Json
from atomo_gql.domain.rules import MAX_DEPTH
from atomo_gql.domain.workflows.rendering import Renderer, RenderError
from atomo_gql.service.workflows.compiler import Refused
from atomo_gql.service.workflows.expressions import read
from atomo_gql.service.workflows.frame import Frame
from atomo_gql.service.workflows.paths import Evaluate

MAX_CHARACTERS = 262_144  # of the different templates in one value
MAX_PARTS = 5_000  # of them: names, filters, constants
_MOST_KEPT = 4_096  # templates
_MOST_KEPT_BYTES = 16 * 1_048_576
_NODE_BYTES = 500  # of memory, about

_Path: TypeAlias = "tuple[_Path, str] | None"  # the path of what holds it, and the last part


class Templates(Renderer):
    """Fills in templates, and keeps those it has read.

    Args:
        most_bytes: characters that the templates of one call may make; values taken over count as their JSON.
    """

    def __init__(self, most_bytes: int = 1_048_576) -> None:
        self._most = most_bytes
        self._kept: OrderedDict[str, tuple[Evaluate, int]] = OrderedDict()
        self._kept_bytes = 0

    def check(self, field: str, value: Json) -> None:
        """Look at every template of a value.

        Raises:
            BadUserInput: one is not allowed, or there are too many.
        """
        seen: set[str] = set()
        characters = parts = 0
        for path, text in _strings(field, value):
            if text in seen or not _is_template(text):
                continue
            seen.add(text)
            characters += len(text)
            try:
                if characters <= MAX_CHARACTERS:
                    parts += self._read(text)[1]
            except Refused as refused:
                place = _written(path)
                raise BadUserInput(f"{place}: {refused}", field=place) from None
            if characters > MAX_CHARACTERS or parts > MAX_PARTS:
                rule = f"must hold templates of at most {MAX_CHARACTERS} characters and {MAX_PARTS} parts in all"
                raise BadUserInput(f"{field} {rule}", field=field)

    def render(self, value: Json, scope: Mapping[str, Json]) -> Json:
        """The value filled in.

        Raises:
            RenderError: a variable is missing, a filter does not fit, or it makes too much.
        """
        try:
            return self._fill(value, Frame(scope, self._most), 0)
        except Refused as refused:
            raise RenderError(str(refused)) from None
        except RecursionError:
            raise RenderError("a value with templates must not be nested so deeply") from None

    def _fill(self, value: Json, frame: Frame, depth: int) -> Json:
        if isinstance(value, str):
            return self._read(value)[0](frame) if "{" in value and _is_template(value) else value
        if isinstance(value, dict | list) and depth >= MAX_DEPTH:
            raise RenderError(f"a value with templates must not be nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, dict):
            return {key: self._fill(inner, frame, depth + 1) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._fill(inner, frame, depth + 1) for inner in value]
        return value

    def _read(self, text: str) -> tuple[Evaluate, int]:
        if (known := self._kept.get(text)) is not None:
            self._kept.move_to_end(text)
            return known
        self._kept[text] = made = read(text)
        self._kept_bytes += _size(text, made[1])
        while len(self._kept) > _MOST_KEPT or self._kept_bytes > _MOST_KEPT_BYTES:
            gone, (_, count) = self._kept.popitem(last=False)
            self._kept_bytes -= _size(gone, count)
        return made


def _size(text: str, count: int) -> int:
    return 4 * len(text) + count * _NODE_BYTES


def _is_template(text: str) -> bool:
    return "{{" in text or "{%" in text or "{#" in text


def _strings(field: str, value: Json) -> Iterator[tuple[_Path, str]]:
    """Every string but the keys, with its path."""
    stack: list[tuple[_Path, Json]] = [((None, field), value)]
    while stack:
        path, item = stack.pop()
        if isinstance(item, str):
            yield path, item
        elif isinstance(item, dict):
            stack.extend(((path, f".{key[:100]}"), item[key]) for key in reversed(item))
        elif isinstance(item, list):
            stack.extend(((path, f"[{index}]"), item[index]) for index in reversed(range(len(item))))


def _written(path: _Path) -> str:
    parts = []
    while path:
        path, part = path
        parts.append(part)
    return "".join(reversed(parts))
