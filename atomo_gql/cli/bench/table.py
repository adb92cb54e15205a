"""The outcome in the terminal: a table for each scenario, and what was wanted of it."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from atomo_gql.cli.bench.figures import bounds, is_met, number, rounds_of
from atomo_gql.cli.bench.told import Measured, Outcome, Run

_WIDE = 120  # columns for a table


def show(runs: Sequence[Run]) -> None:
    """All tables."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    for run in runs:
        for outcome in run["scenarios"]:
            console.print(f"\n[bold]{escape(outcome['title'])}[/bold]")
            if console.width < _WIDE:
                for m in outcome["measures"]:
                    console.print(_lines(m), highlight=False)
            else:
                console.print(_table(outcome))
        machine = run["machine"]
        scale = "" if run["scale"] == 1 else f", at {run['scale']:g} of the size"
        console.print(
            f"\n[dim]{rounds_of(run).capitalize()}{scale}; {machine['cpus']} CPUs "
            f"({escape(machine['processor'])}), Python {escape(machine['python'])}. Compare ratios, never rates.[/dim]"
        )


def _lines(m: Measured) -> str:
    """A measure for a narrow terminal."""
    cpu = m["serverCpuMicroseconds"]
    parts = [
        f"{number(m['value'])} {escape(m['unit'])} [dim]({number(min(m['values']))}–{number(max(m['values']))})[/dim]",
        _ratio(m) and f"{_ratio(m)} [dim]of {_reference(m)}[/dim]",
        _wanted(m),
        f"[dim]server CPU[/dim] {cpu:,.0f} µs" if cpu else "",
        *(f"[dim]{escape(part)}[/dim] {number(value)}" for part, value in m["more"].items()),
    ]
    return "\n  ".join([escape(m["name"]), *filter(None, parts)])


def _table(outcome: Outcome) -> Table:
    parts = list(dict.fromkeys(name for m in outcome["measures"] for name in m["more"]))
    has_cpu = any(m["serverCpuMicroseconds"] for m in outcome["measures"])
    headers = [
        "",
        "median",
        "min–max",
        "ratio",
        "of",
        "wanted",
        *(["server CPU"] if has_cpu else []),
        *map(escape, parts),
    ]
    table = Table(*headers, box=None, pad_edge=False, header_style="dim")
    for column in (*table.columns[1:4], *table.columns[6:]):
        column.justify, column.no_wrap = "right", True
    table.columns[0].no_wrap = True
    for m in outcome["measures"]:
        cpu = m["serverCpuMicroseconds"]
        table.add_row(
            escape(m["name"]),
            f"{number(m['value'])} {escape(m['unit'])}",
            f"{number(min(m['values']))}–{number(max(m['values']))}",
            _ratio(m),
            _reference(m),
            _wanted(m),
            *([f"{cpu:,.0f} µs" if cpu else ""] if has_cpu else []),
            *(number(m["more"][part]) if part in m["more"] else "" for part in parts),
        )
    return table


def _ratio(m: Measured) -> str:
    return "" if m["ratio"] is None else f"{m['ratio']:.2f} ({min(m['ratios']):.2f}–{max(m['ratios']):.2f})"


def _reference(m: Measured) -> str:
    if m["against"]:
        return escape(m["against"])
    return "" if m["reference"] is None else f"{number(m['reference'])} without it"


def _wanted(m: Measured) -> str:
    verdict = is_met(m)
    if verdict is None:
        return ""
    return f"[{'green' if verdict else 'red'}]{escape(bounds(m))}: {'met' if verdict else 'missed'}[/]"
