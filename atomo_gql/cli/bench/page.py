"""The outcome as a page of its own: bars for what is compared, a line for what goes over a range. No script, no font,
no image from elsewhere."""

from html import escape
from typing import Any

from atomo_gql.cli.bench.figures import is_met
from atomo_gql.cli.bench.table import number

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --dim: #6b7587; --bar: #4c7df0; --ref: #b9c3d6; --good: #1d8a4e;
        --bad: #c2402e; --back: #fff; --line: #e3e7ee }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaf0; --dim: #98a2b5; --bar: #7ea2ff; --ref: #4a556b;
        --good: #57c98a; --bad: #ff8a78; --back: #12161e; --line: #2a3140 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); max-width: 62rem;
       margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem } p, small { color: var(--dim) }
table { border-collapse: collapse; width: 100% }
td, th { padding: .25rem .6rem .25rem 0; text-align: left; vertical-align: middle }
th { color: var(--dim); font-weight: normal } tr + tr td { border-top: 1px solid var(--line) }
td.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
.met { color: var(--good) } .missed { color: var(--bad) }
svg { display: block; max-width: 100% } text { fill: var(--dim); font: 11px system-ui, sans-serif }
"""
_WIDTH, _HEIGHT = 220, 26  # of a bar's cell
_CURVE = 640, 260


def drawn(told: dict[str, Any]) -> str:
    """HTML."""
    machine = told["machine"]
    sections = "".join(_section(scenario) for scenario in told["scenarios"])
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>atomo-gql bench</title><style>{_STYLE}</style>
<h1>atomo-gql bench</h1>
<p>{escape(told["at"])} · medians of {told["rounds"]} rounds, at {told["scale"]:g} of the size · {machine["cpus"]} CPUs
({escape(machine["processor"])}), Python {escape(machine["python"])}, {escape(machine["system"])}.
A machine is never quiet and never like another: compare the ratios, not the rates.</p>
{sections}</html>
"""


def _section(scenario: dict[str, Any]) -> str:
    rows = "".join(_row(m) for m in scenario["measures"])
    curve = _curve(scenario) if scenario["x"] else ""
    head = "<tr><th><th>median<th>ratio to its reference<th>ratio<th>of<th>wanted"
    return f"<h2>{escape(scenario['title'])}</h2>{curve}<table>{head}{rows}</table>\n"


def _row(m: dict[str, Any]) -> str:
    more = ", ".join(f"{escape(name)} {number(value)}" for name, value in m["more"].items())
    ratio = (
        "" if m["ratio"] is None else f"{m['ratio']:.2f} <small>{min(m['ratios']):.2f}–{max(m['ratios']):.2f}</small>"
    )
    of = m["against"] or ("" if m["reference"] is None else f"{number(m['reference'])} without it")
    return (
        f"<tr><td>{escape(m['name'])}{f'<br><small>{more}</small>' if more else ''}"
        f"<td class=n>{number(m['value'])} {escape(m['unit'])}"
        f"<br><small>{number(min(m['values']))}–{number(max(m['values']))}</small>"
        f"<td>{_bar(m)}<td class=n>{ratio}<td>{escape(of)}<td>{_verdict(m)}"
    )


def _bar(m: dict[str, Any]) -> str:
    """The ratio; a grey line is the reference, a dotted one what is wanted."""
    if m["ratio"] is None:
        return ""
    most = max(1.25, m["ratio"] * 1.1, (m["wanted"] or 0) * 1.1)
    at = _WIDTH / most
    reference = _upright(at, 'stroke="var(--ref)" stroke-width="2"')
    wanted = "" if m["wanted"] is None else _upright(m["wanted"] * at, 'stroke="var(--ink)" stroke-dasharray="2 3"')
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="ratio {m["ratio"]:.2f}">'
        f'<rect y="6" width="{m["ratio"] * at:.1f}" height="14" rx="2" fill="var(--bar)"/>'
        f"{reference}{wanted}</svg>"
    )


def _upright(x: float, style: str) -> str:
    return f'<line x1="{x:.1f}" x2="{x:.1f}" y1="1" y2="{_HEIGHT - 1}" {style}/>'


def _curve(scenario: dict[str, Any]) -> str:
    """Medians over x, with the spread as a whisker; evenly spaced, as the xs grow by factors or by equal steps."""
    measures = [m for m in scenario["measures"] if m["x"] is not None]
    width, height = _CURVE
    left, bottom, top = 60, height - 34, 12
    most: float = max(max(m["values"]) for m in measures) * 1.08
    step = (width - left - 20) / max(1, len(measures) - 1)
    xs = [left + 8 + place * step for place in range(len(measures))]

    def y(value: float) -> float:
        return bottom - (bottom - top) * value / most

    grid = "".join(
        f'<line x1="{left}" x2="{width}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="var(--line)"/>'
        f'<text x="{left - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{number(v)}</text>'
        for v in (most * part / 4 for part in range(5))
    )
    every = -(-len(measures) // 10)
    labels = "".join(
        f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{m["x"]:,.0f}</text>'
        for x, m in list(zip(xs, measures, strict=True))[::every]
    )
    points = " ".join(f"{x:.1f},{y(m['value']):.1f}" for x, m in zip(xs, measures, strict=True))
    whiskers = "".join(
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y(min(m["values"])):.1f}" y2="{y(max(m["values"])):.1f}" '
        f'stroke="var(--ref)" stroke-width="2"/>'
        f'<circle cx="{x:.1f}" cy="{y(m["value"]):.1f}" r="3.5" fill="var(--bar)"/>'
        for x, m in zip(xs, measures, strict=True)
    )
    return (
        f'<svg width="{width}" height="{height}" role="img" aria-label="{escape(scenario["title"])}">{grid}{labels}'
        f'<text x="{width / 2}" y="{height - 2}" text-anchor="middle">{escape(scenario["x"])}</text>'
        f'<polyline points="{points}" fill="none" stroke="var(--bar)" stroke-width="2"/>{whiskers}</svg>'
        f"<small>{escape(measures[0]['unit'])}</small>"
    )


def _verdict(m: dict[str, Any]) -> str:
    verdict = is_met(m)
    if verdict is None:
        return ""
    bounds = [f"{'≤' if m['lessIsBetter'] else '≥'} {m['wanted']:g}"] if m["wanted"] is not None else []
    bounds += [f"{'' if name == 'value' else name + ' '}≤ {limit:g}" for name, limit in m["limits"].items()]
    return (
        f'<span class="{"met" if verdict else "missed"}">{", ".join(bounds)}: {"met" if verdict else "missed"}</span>'
    )
