"""The outcome as a page of its own: each scenario's plot, and all figures. No script, no font, no image from
elsewhere."""

from collections.abc import Sequence
from html import escape

from atomo_gql.cli.bench.figures import bounds, is_met, number, rounds_of
from atomo_gql.cli.bench.plots import inline
from atomo_gql.cli.bench.svg import STYLE
from atomo_gql.cli.bench.told import Measured, Outcome, Run

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); max-width: 62rem;
       margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin: 2.6rem 0 .6rem } p, small { color: var(--dim) }
table { border-collapse: collapse; width: 100%; margin-top: 1rem }
td, th { padding: .25rem .9rem .25rem 0; text-align: left; vertical-align: middle; overflow-wrap: anywhere }
table + p { margin-top: 3.5rem }
th { color: var(--dim); font-weight: normal } tr + tr td { border-top: 1px solid var(--line) }
:is(td, th).n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
.met { color: var(--good) } .missed { color: var(--bad) }
svg { display: block; max-width: 100%; height: auto }
"""


def drawn(runs: Sequence[Run]) -> str:
    """HTML."""
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>atomo-gql bench</title><style>{STYLE}{_STYLE}</style>
<h1>atomo-gql bench</h1>
<p>A machine is never quiet and never like another: compare the ratios, not the rates.</p>
{"".join(_run(run) for run in runs)}</html>
"""


def _run(run: Run) -> str:
    machine = run["machine"]
    system = f"({escape(machine['processor'])}), Python {escape(machine['python'])}, {escape(machine['system'])}"
    sections = "".join(_section(outcome) for outcome in run["scenarios"])
    return f"""<p>{escape(run["at"])} · {rounds_of(run)}, at {run["scale"]:g} of the size ·
{machine["cpus"]} CPUs {system}</p>
{sections}"""


def _section(outcome: Outcome) -> str:
    rows = "".join(_row(m) for m in outcome["measures"])
    head = "<tr><th><th class=n>median<th class=n>ratio<th>of<th>wanted"
    return f"<h2>{escape(outcome['title'])}</h2>{inline(outcome)}<table>{head}{rows}</table>\n"


def _row(m: Measured) -> str:
    more = ", ".join(f"{escape(name)} {number(value)}" for name, value in m["more"].items())
    ratio = (
        "" if m["ratio"] is None else f"{m['ratio']:.2f} <small>{min(m['ratios']):.2f}–{max(m['ratios']):.2f}</small>"
    )
    of = m["against"] or ("" if m["reference"] is None else f"{number(m['reference'])} without it")
    return (
        f"<tr><td>{escape(m['name'])}{f'<br><small>{more}</small>' if more else ''}"
        f"<td class=n>{number(m['value'])} {escape(m['unit'])}"
        f"<br><small>{number(min(m['values']))}–{number(max(m['values']))}</small>"
        f"<td class=n>{ratio}<td>{escape(of)}<td>{_verdict(m)}"
    )


def _verdict(m: Measured) -> str:
    verdict = is_met(m)
    if verdict is None:
        return ""
    kind = "met" if verdict else "missed"
    return f'<span class="{kind}">{escape(bounds(m))}: {kind}</span>'
