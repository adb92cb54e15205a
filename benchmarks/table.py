"""Medians over the rounds, and the median of each round's ratio: noise that lasts a round falls out of a ratio."""

import os
import platform
import statistics
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.paths import CONNECTIONS, Figure, Path

Measured = dict[str, list[Figure]]


def summary(paths: list[Path], measured: Measured) -> dict[str, Any]:
    """All figures, for `--json`."""
    echo = [figure.rate for figure in measured[paths[0].name]]
    found = {}
    for path in paths:
        rates = [figure.rate for figure in measured[path.name]]
        other = [figure.rate for figure in measured[path.against]] if path.against else None
        found[path.name] = {
            "perSecond": statistics.median(rates),
            "rates": rates,
            "ofEcho": _ratio(rates, echo) if path.against_echo else None,
            "ofOther": _ratio(rates, other) if other else None,
            "other": path.against,
            "target": path.target,
            "targetOf": path.target_of,
            "serverCpuMicroseconds": _median([figure.cpu for figure in measured[path.name]]),
            "generatorBusy": _median([figure.busy for figure in measured[path.name]]),
        }
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
    return {"machine": machine, "connections": CONNECTIONS, "rounds": len(echo), "paths": found}


def show(told: dict[str, Any]) -> None:
    """The table."""
    headers = ("path", "per second", "min–max", "of echo", "of other", "server CPU", "generator busy")
    table = Table(*headers, box=None, pad_edge=False, header_style="dim")
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    table.columns[0].no_wrap = True
    for name, figure in told["paths"].items():
        rates, cpu, busy = figure["rates"], figure["serverCpuMicroseconds"], figure["generatorBusy"]
        table.add_row(
            name,
            f"{figure['perSecond']:,.0f}",
            f"{min(rates):,.0f}–{max(rates):,.0f}",
            _two_places(figure["ofEcho"]),
            _two_places(figure["ofOther"]),
            f"{cpu:,.0f} µs" if cpu else "",
            f"{busy:.0%}" if busy else "",
        )
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    console.print(table)
    console.print(f"\n{told['rounds']} rounds on {told['machine']['cpus']} CPUs, {told['connections']} connections")
    for name, figure in told["paths"].items():
        if figure["target"] is not None:
            ratio = figure["ofOther"] if figure["targetOf"] == figure["other"] else figure["ofEcho"]
            verdict = "met" if ratio >= figure["target"] else "missed"
            console.print(f"{name}: at least {figure['target']:.2f} of «{figure['targetOf']}» is wanted: {verdict}")


def _ratio(rates: list[float], others: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(rates, others, strict=True))


def _median(values: list[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return statistics.median(there) if there else None


def _two_places(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"
