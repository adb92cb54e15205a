"""Bars: of the ratio to a reference; of the values where none is told, or where limits hold for them."""

from collections.abc import Iterator
from dataclasses import dataclass

from atomo_gql.cli.bench.figures import is_met, number
from atomo_gql.cli.bench.svg import Drawing, extent, group, line, rect, text, ticks, whisker, wrapped
from atomo_gql.cli.bench.told import Measured, Outcome

_NAMES = 270  # how wide names may be
_LEAST = 200  # how wide bars should be
_THICK = 14
_KINDS = {True: "met", False: "missed", None: "bar"}


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    below: str
    figure: str
    beside: str = ""
    unit: str = ""  # rows of one unit have one scale
    value: float | None = None
    spread: tuple[float, float] = (0, 0)
    wanted: float | None = None
    met: bool | None = None

    def lines(self, width: float) -> list[tuple[str, str, float]]:
        """Words, their kind and their size."""
        name = [(words, "name", 13.0) for words in wrapped(self.name, width, 13)]
        return name + [(words, "", 12.0) for words in wrapped(self.below, width)]


def bars(outcome: Outcome, width: float) -> Drawing:
    """A row for each measure: its name, its bar and its figures."""
    measures = outcome["measures"]
    by_ratio = any(m["ratio"] is not None for m in measures) and not any(m["limits"] for m in measures)
    rows = list(_ratios(measures) if by_ratio else _values(measures))
    figures = width - max(extent(row.beside) + 12 if row.beside else 0 for row in rows)
    right = figures - max(extent(row.figure, 13) for row in rows) - 18
    lines = [row.lines(min(_NAMES, right - _LEAST)) for row in rows]
    left = 14 + max((extent(words, size) for each in lines for words, _, size in each), default=0)
    marks = {row.unit: _marks(rows, row.unit, by_ratio) for row in rows}

    shapes, bottom = "", 4.0
    for row, each in zip(rows, lines, strict=True):
        scale = (right - left) / marks[row.unit][-1]
        height = 17 * len(each) + 14
        middle = bottom + height / 2
        words = [text(0, bottom + 20 + 17 * at, words, kind) for at, (words, kind, _) in enumerate(each)]
        words.append(text(figures, middle + 4.5, row.figure, "figure", "end"))
        words.append(text(width, middle + 4.5, row.beside, "", "end"))
        told = f"{row.name}: {row.figure} {row.beside} {row.below}"
        shapes += group(" ".join(told.split()), *words, _bar(row, left, middle, scale))
        bottom += height

    grid = ""
    for mark in marks[rows[0].unit] if len(marks) == 1 else []:
        x = left + mark * (right - left) / marks[rows[0].unit][-1]
        grid += line(x, 4, x, bottom, "grid") + text(x, bottom + 18, f"{mark:,.10g}", "", "middle")
    if by_ratio:
        one = left + (right - left) / marks[""][-1]
        shapes += line(one, 4, one, bottom, "reference")
    return Drawing(grid + shapes, bottom + 24 * bool(grid), _subject(measures, by_ratio), list(_signs(rows, by_ratio)))


def _ratios(measures: list[Measured]) -> Iterator[_Row]:
    """A reference is named where it is one, and has no bar."""
    references = {m["against"] for m in measures}
    for m in measures:
        value, below = f"{number(m['value'])} {m['unit']}", f"of {m['against']}" if m["against"] else ""
        if m["ratio"] is not None:
            spread = min(m["ratios"]), max(m["ratios"])
            yield _Row(m["name"], below, f"{m['ratio']:.2f}", value, "", m["ratio"], spread, m["wanted"], is_met(m))
        elif m["name"] not in references:
            yield _Row(m["name"], "", "", value)


def _values(measures: list[Measured]) -> Iterator[_Row]:
    """A part that has a limit has a row of its own."""
    for m in measures:
        unit, limits, name = m["unit"], m["limits"], m["name"]
        below = " · ".join(_unbroken(part, value) for part, value in m["more"].items() if part not in limits)
        spread = min(m["values"]), max(m["values"])
        found = {"value": m["value"], **{part: m["more"][part] for part in limits if part != "value"}}
        for part, value in found.items():
            limit = limits.get(part)
            met = None if limit is None else value <= limit
            figure = f"{number(value)} {unit}"
            if part == "value":
                yield _Row(name, below, figure, "", unit, value, spread, limit, met)
            else:
                yield _Row(f"{name}, {part}", "", figure, "", unit, value, (value, value), limit, met)


def _unbroken(part: str, value: float) -> str:
    return f"{part} {number(value)}".replace(" ", "\N{NO-BREAK SPACE}")


def _marks(rows: list[_Row], unit: str, by_ratio: bool) -> list[float]:
    ends = (end for row in rows if row.unit == unit for end in (row.value or 0, row.wanted or 0, *row.spread))
    return ticks(max(1.1 if by_ratio else 0, *ends))


def _bar(row: _Row, left: float, middle: float, scale: float) -> str:
    if row.value is None:
        return ""
    top = middle - _THICK / 2
    bar = rect(left, top, max(1, row.value * scale), _THICK, _KINDS[row.met])
    least, most = (left + end * scale for end in row.spread)
    if row.wanted is None:
        return bar + whisker(least, middle, most, middle)
    at = left + row.wanted * scale
    return bar + whisker(least, middle, most, middle) + line(at, top - 5, at, top + _THICK + 5, "wanted")


def _subject(measures: list[Measured], by_ratio: bool) -> str:
    what = ["Ratio to the reference" if by_ratio else ", ".join(dict.fromkeys(m["unit"] for m in measures))]
    less = {m["lessIsBetter"] for m in measures if m["ratio"] is not None or not by_ratio}
    return ", ".join(what + (["less is better" if less.pop() else "more is better"] if len(less) == 1 else []))


def _signs(rows: list[_Row], by_ratio: bool) -> Iterator[str]:
    yield from (kind for met, kind in _KINDS.items() if met is not None and any(row.met is met for row in rows))
    if by_ratio:
        yield "reference"
    if any(row.wanted is not None for row in rows):
        yield "wanted"
    if any(row.spread[0] < row.spread[1] for row in rows):
        yield "spread"
