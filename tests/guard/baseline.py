"""The committed costs, and what is to be said of others beside them."""

import json
import platform
from dataclasses import dataclass
from pathlib import Path

from tests.guard.paths import REFERENCE, Costs

FILE = Path(__file__).with_name("baseline.json")
RENEW = "make guard-baseline"
RENEWING = "ATOMO_GUARD_RENEW"  # the variable by which it tells the test
_TOLERANCE = 0.08
_ABROAD = 0.30  # measured by another Python, or on another PostgreSQL, than the baseline was
_DATABASE = ("WAL bytes", "buffers", "statements")


@dataclass(frozen=True, slots=True)
class Measured:
    """What all paths cost, and with which Python ("3.11") and PostgreSQL (as Meter.version has it)."""

    costs: dict[str, Costs]
    postgresql: str
    python: str = ".".join(platform.python_version_tuple()[:2])


@dataclass(frozen=True, slots=True)
class Line:
    """One measure of one path."""

    path: str
    measure: str
    expected: float | None  # None: the baseline has none
    now: float | None  # None: it is measured no more
    tolerance: float

    @property
    def change(self) -> float:
        """By what part of the baseline; infinite where there is nothing to compare."""
        if self.expected is None or self.now is None:
            return float("inf")
        return self.now / self.expected - 1

    @property
    def is_costlier(self) -> bool:
        """Too much so; and what cannot be compared is not let through."""
        return self.change > self.tolerance

    @property
    def is_cheaper(self) -> bool:
        """So much so that the next rise would go unnoticed."""
        return self.change < -self.tolerance

    @property
    def is_stale(self) -> bool:
        """So much cheaper that the baseline guards nothing any more."""
        return self.change < -2 * self.tolerance

    def __str__(self) -> str:
        before, now = ("–" if value is None else f"{value:,.2f}" for value in (self.expected, self.now))
        mark = "  ← costlier" if self.is_costlier else "  ← cheaper" if self.is_cheaper else ""
        return f"{self.path:26} {self.measure:13} {before:>10} {now:>10} {self.change:>+8.1%}{mark}"


def compare(baseline: Measured, now: Measured) -> list[Line]:
    """Every measure of either. Another Python's counts are expected to differ as those of the reference do."""
    is_other_python, is_other_postgresql = baseline.python != now.python, baseline.postgresql != now.postgresql
    before = {(p, m): cost for p, costs in baseline.costs.items() for m, cost in costs.items()}
    after = {(p, m): cost for p, costs in now.costs.items() for m, cost in costs.items()}
    lines = []
    for path, measure in dict.fromkeys([*before, *after]):
        expected, is_abroad = before.get((path, measure)), is_other_postgresql
        if measure not in _DATABASE:
            is_abroad = is_other_python
            if expected is not None and is_other_python:
                expected *= now.costs[REFERENCE][measure] / baseline.costs[REFERENCE][measure]
        tolerance = _ABROAD if is_abroad else _TOLERANCE
        lines.append(Line(path, measure, expected, after.get((path, measure)), tolerance))
    return lines


def table(lines: list[Line]) -> str:
    """For people: what is remarkable first."""
    lines = sorted(lines, key=lambda line: not (line.is_costlier or line.is_cheaper))
    head = f"{'path, of a job':26} {'measure':13} {'baseline':>10} {'now':>10} {'change':>8}"
    return "\n".join([head, *map(str, lines)])


def load() -> Measured:
    """The baseline."""
    return Measured(**json.loads(FILE.read_text(encoding="utf-8")))


def save(measured: Measured) -> None:
    """Make it the baseline."""
    costs = {path: {m: round(cost, 4) for m, cost in of.items()} for path, of in measured.costs.items()}
    told = {"python": measured.python, "postgresql": measured.postgresql, "costs": costs}
    FILE.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
