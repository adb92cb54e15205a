"""A scenario's outcome as a plot: a curve where it goes over a range, bars elsewhere. Nothing comes from elsewhere, and
it stands on a ground of its own, as nobody knows the page that it will be on."""

from atomo_gql.cli.bench.bars import bars
from atomo_gql.cli.bench.curve import curve
from atomo_gql.cli.bench.svg import STYLE, Drawing, extent, line, rect, safe, text, wrapped
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
    return _svg(outcome, width, drawing.height + 26, _with_legend(drawing))


def alone(outcome: Outcome, run: Run) -> str:
    """A file."""
    drawing = _drawing(outcome, _WIDTH - 2 * _MARGIN)
    lines = wrapped(outcome["title"], _WIDTH - 2 * _MARGIN, 17)
    head = 44.0 + 22 * (len(lines) - 1)
    title = "".join(text(_MARGIN, 38 + 22 * at, words, "title") for at, words in enumerate(lines))
    if drawing.subject:
        head += 20
        title += text(_MARGIN, head - 3, drawing.subject)
    height = head + 12 + drawing.height + 26 + 34
    card = rect(0.5, 0.5, _WIDTH - 1, height - 1, "card", 8)
    origin = text(_MARGIN, height - 16, _origin(outcome, run))
    plot = f'<g transform="translate({_MARGIN} {head + 12:g})">{_with_legend(drawing)}</g>'
    return _svg(outcome, _WIDTH, height, f"<style>{STYLE}</style>{card}{title}{plot}{origin}", _XML) + "\n"


_XML = 'xmlns="http://www.w3.org/2000/svg" '


def _drawing(outcome: Outcome, width: float) -> Drawing:
    over_a_range = outcome["x"] and any(m["x"] is not None for m in outcome["measures"])
    return (curve if over_a_range else bars)(outcome, width)


def _svg(outcome: Outcome, width: float, height: float, shapes: str, more: str = "") -> str:
    size = f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}"'
    label = safe(outcome["title"])
    return f'<svg {more}{size} class="plot" role="img" aria-label="{label}"><title>{label}</title>{shapes}</svg>'


def _with_legend(drawing: Drawing) -> str:
    shapes, x, y = drawing.shapes, 0.0, drawing.height + 14
    for kind in drawing.signs:
        shapes += _sign(kind, x, y) + text(x + 22, y + 4, _SIGNS[kind])
        x += 22 + extent(_SIGNS[kind]) + 18
    return shapes


def _sign(kind: str, x: float, y: float) -> str:
    if kind in ("reference", "wanted"):
        return line(x + 7, y - 7, x + 7, y + 7, kind)
    if kind == "spread":
        return line(x, y, x + 14, y, kind) + line(x, y - 4, x, y + 4, kind) + line(x + 14, y - 4, x + 14, y + 4, kind)
    return rect(x, y - 5, 14, 10, kind, 2)


def _origin(outcome: Outcome, run: Run) -> str:
    rounds = len(outcome["measures"][0]["values"])
    size = "" if run["scale"] == 1 else f" at {run['scale']:g} of the size"
    of = f"medians of {rounds} rounds" if rounds > 1 else "one round"
    return f"atomo-gql bench {outcome['name']}, {of}{size}, {run['machine']['cpus']} CPUs, {run['at'][:10]}"
