"""A scenario's outcome as a plot: a curve where it goes over a range, bars elsewhere. Nothing comes from elsewhere, and
it stands on a ground of its own, as nobody knows the page that it will be on."""

from dataclasses import replace

from atomo_gql.cli.bench.bars import bars
from atomo_gql.cli.bench.curve import curve
from atomo_gql.cli.bench.svg import STYLE, Drawing, extent, line, rect, safe, text, whisker, wrapped
from atomo_gql.cli.bench.told import Outcome, Run

_WIDTH = 760
_MARGIN = 24
_SIGNS = {
    "met": "as wanted",
    "missed": "not as wanted",
    "reference": "the reference",
    "wanted": "what is wanted",
    "spread": "least to most",
}


def inline(outcome: Outcome) -> str:
    """For a page that has STYLE, and says whose it is."""
    width = _WIDTH - 2 * _MARGIN
    drawing = _drawing(outcome, width)
    return _svg(outcome, width, drawing.height, drawing.shapes)


def alone(outcome: Outcome, run: Run) -> str:
    """A file."""
    drawing = _drawing(outcome, _WIDTH - 2 * _MARGIN)
    lines = wrapped(outcome["title"], _WIDTH - 2 * _MARGIN, 17)
    shapes = "".join(text(_MARGIN, 38 + 22 * at, words, "title") for at, words in enumerate(lines))
    top = 34.0 + 22 * len(lines)
    if drawing.subject:
        shapes += text(_MARGIN, top + 3, drawing.subject)
        top += 18
    shapes += f'<g transform="translate({_MARGIN} {top:g})">{drawing.shapes}</g>'
    height = top + drawing.height + 36
    shapes += text(_MARGIN, height - 18, _origin(outcome, run))
    card = rect(0.5, 0.5, _WIDTH - 1, height - 1, "card", 8)
    name = 'xmlns="http://www.w3.org/2000/svg" '
    return _svg(outcome, _WIDTH, height, f"<style>{STYLE}</style>{card}{shapes}", name) + "\n"


def _drawing(outcome: Outcome, width: float) -> Drawing:
    over_a_range = outcome["x"] and any(m["x"] is not None for m in outcome["measures"])
    return _with_legend((curve if over_a_range else bars)(outcome, width))


def _svg(outcome: Outcome, width: float, height: float, shapes: str, more: str = "") -> str:
    size = f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}"'
    label = safe(outcome["title"])
    return f'<svg {more}{size} class="plot" role="img" aria-label="{label}"><title>{label}</title>{shapes}</svg>'


def _with_legend(drawing: Drawing) -> Drawing:
    if not drawing.signs:
        return drawing
    shapes, x, y = drawing.shapes, 0.0, drawing.height + 14
    for kind in drawing.signs:
        shapes += _sign(kind, x, y) + text(x + 20, y + 4, _SIGNS[kind])
        x += 20 + extent(_SIGNS[kind]) + 20
    return replace(drawing, shapes=shapes, height=y + 12)


def _sign(kind: str, x: float, y: float) -> str:
    if kind in ("reference", "wanted"):
        return line(x + 9, y - 7, x + 9, y + 7, kind)
    if kind == "spread":
        return whisker(x, y, x + 14, y)
    return rect(x, y - 5, 14, 10, kind, 2)


def _origin(outcome: Outcome, run: Run) -> str:
    rounds = len(outcome["measures"][0]["values"])
    size = "" if run["scale"] == 1 else f" at {run['scale']:g} of the size"
    of = f"medians of {rounds} rounds" if rounds > 1 else "one round"
    return f"atomo-gql bench {outcome['name']}, {of}{size}, {run['machine']['cpus']} CPUs, {run['at'][:10]}"
