"""The outcome in the terminal: a table for each scenario, and what was wanted of it."""

from typing import Any

from rich.console import Console
from rich.table import Table

from atomo_gql.cli.bench.figures import is_met


def show(told: dict[str, Any]) -> None:
    """All tables."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    for scenario in told["scenarios"]:
        console.print(f"\n[bold]{scenario['title']}[/bold]")
        console.print(_table(scenario))
    machine = told["machine"]
    scale = "" if told["scale"] == 1 else f", at {told['scale']:g} of the size"
    console.print(
        f"\n[dim]Medians of {told['rounds']} rounds{scale}; {machine['cpus']} CPUs ({machine['processor']}), "
        f"Python {machine['python']}. Compare ratios, never rates.[/dim]"
    )


def _table(scenario: dict[str, Any]) -> Table:
    parts = list(dict.fromkeys(name for m in scenario["measures"] for name in m["more"]))
    has_cpu = any(m["serverCpuMicroseconds"] for m in scenario["measures"])
    headers = ["", "median", "min–max", "ratio", "of", "wanted", *(["server CPU"] if has_cpu else []), *parts]
    table = Table(*headers, box=None, pad_edge=False, header_style="dim")
    for column in (*table.columns[1:4], *table.columns[6:]):
        column.justify, column.no_wrap = "right", True
    table.columns[0].no_wrap = True
    for m in scenario["measures"]:
        cpu = m["serverCpuMicroseconds"]
        table.add_row(
            m["name"],
            f"{number(m['value'])} {m['unit']}",
            f"{number(min(m['values']))}–{number(max(m['values']))}",
            "" if m["ratio"] is None else f"{m['ratio']:.2f} ({min(m['ratios']):.2f}–{max(m['ratios']):.2f})",
            _reference(m),
            _wanted(m),
            *([f"{cpu:,.0f} µs" if cpu else ""] if has_cpu else []),
            *(number(m["more"][part]) if part in m["more"] else "" for part in parts),
        )
    return table


def _reference(m: dict[str, Any]) -> str:
    if m["against"]:
        return str(m["against"])
    return "" if m["reference"] is None else f"{number(m['reference'])} without it"


def _wanted(m: dict[str, Any]) -> str:
    verdict = is_met(m)
    if verdict is None:
        return ""
    bound = "≤" if m["lessIsBetter"] else "≥"
    wanted = [f"{bound} {m['wanted']:g}"] if m["wanted"] is not None else []
    wanted += [f"{'' if name == 'value' else name + ' '}≤ {limit:g}" for name, limit in m["limits"].items()]
    return f"[{'green' if verdict else 'red'}]{', '.join(wanted)}: {'met' if verdict else 'missed'}[/]"


def number(value: float) -> str:
    """With as many digits as say something."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
