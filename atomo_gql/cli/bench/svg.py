"""The few shapes that plots are made of. Colours follow the reader's light or dark."""

import math
import textwrap
from dataclasses import dataclass
from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --dim: #5d6778; --bar: #5b86f0; --good: #35a46c; --bad: #dc5a45;
        --back: #ffffff; --line: #e3e7ee; --edge: #d3d9e3 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf1; --dim: #9aa4b5; --bar: #6c93f7; --good: #3fa873;
        --bad: #e8705c; --back: #12161e; --line: #262d3a; --edge: #333c4c } }
.plot text { font: 12px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: var(--dim) }
.plot .title { font-size: 17px; font-weight: 600; fill: var(--ink) }
.plot .name { font-size: 13px; fill: var(--ink) }
.plot .figure { font-size: 13px; font-weight: 600; fill: var(--ink); font-variant-numeric: tabular-nums }
.plot .halo { paint-order: stroke; stroke: var(--back); stroke-width: 4px; stroke-linejoin: round }
.plot .card { fill: var(--back); stroke: var(--edge) }
.plot .bar { fill: var(--bar) } .plot .met { fill: var(--good) } .plot .missed { fill: var(--bad) }
.plot .under { fill: var(--bar); opacity: .12 } .plot .dot { stroke: var(--back); stroke-width: 2 }
.plot line, .plot polyline { fill: none; stroke-linecap: round }
.plot .grid { stroke: var(--line) } .plot .reference { stroke: var(--dim); stroke-width: 1.5 }
.plot .wanted { stroke: var(--ink); stroke-width: 2; stroke-dasharray: .1 4 }
.plot .spread { stroke: var(--ink); stroke-width: 1.5; opacity: .6 }
.plot .curve { stroke: var(--bar); stroke-width: 2.5; stroke-linejoin: round }
"""


def safe(words: str) -> str:
    """Escaped, and without what XML cannot hold."""
    return escape("".join(sign if sign.isprintable() else " " for sign in words))


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """On its base line."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{safe(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """Of a kind that STYLE knows."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def rect(x: float, y: float, width: float, height: float, kind: str, radius: float = 3) -> str:
    """Of a kind that STYLE knows."""
    size = f'width="{width:.1f}" height="{height:.1f}" rx="{radius:g}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" {size} class="{kind}"/>'


def whisker(x1: float, y1: float, x2: float, y2: float) -> str:
    """A level or an upright one, with caps; none where there is no spread."""
    if abs(x2 - x1) + abs(y2 - y1) < 1:
        return ""
    dx, dy = (4, 0) if x1 == x2 else (0, 4)
    caps = (line(x - dx, y - dy, x + dx, y + dy, "spread") for x, y in ((x1, y1), (x2, y2)))
    return line(x1, y1, x2, y2, "spread") + "".join(caps)


def group(told: str, *shapes: str) -> str:
    """Shapes with a title of their own."""
    return f"<g><title>{safe(told)}</title>{''.join(shapes)}</g>"


def ticks(most: float) -> list[float]:
    """Round numbers from 0 to `most` or just above it."""
    if not most:
        return [0.0, 1.0]
    rough = most / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= rough * 0.999)
    return [step * place for place in range(math.ceil(round(most / step, 6)) + 1)]


def extent(words: str, size: float = 12) -> float:
    """About how wide a text is: no font is known here, so rather too wide."""
    return len(words) * size * 0.6


def wrapped(words: str, width: float, size: float = 12) -> list[str]:
    """Its lines."""
    return textwrap.wrap(words, max(8, int(width / (size * 0.6)))) if words else []


@dataclass(frozen=True, slots=True)
class Drawing:
    """Shapes from (0, 0) on, and what is said of them beside."""

    shapes: str
    height: float
    subject: str
    signs: list[str]  # the kinds that a legend explains
