"""What a measurement is, and what is made of many."""

import statistics
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from atomo_gql.cli.bench.told import Measured, Outcome, Run

LEAST_JUDGED = 0.1  # of the size
Tell = Callable[[str], None]  # says what is being prepared


@dataclass(frozen=True, slots=True)
class Figure:
    """One measurement."""

    value: float  # in the measure's unit
    reference: float | None = None  # the same without what is measured; where no other measure is it
    cpu: float | None = None  # µs of the server's process, each
    busy: float | None = None  # of the load generator, 0–1
    more: dict[str, float] = field(default_factory=dict)  # by name: percentiles, parts


def percentiles(took: list[float], **more: float) -> Figure:
    """The median of some latencies, with their 99th percentile beside it."""
    cuts = statistics.quantiles(took, n=100)
    return Figure(cuts[49], more={"p99": cuts[98], **more})


@dataclass(frozen=True, slots=True)
class Measure:
    """Something that is measured once in every round."""

    name: str
    unit: str
    run: Callable[[float], Awaitable[Figure]]  # with a scale: below 1 every count is smaller
    against: str | None = None  # the measure of the same scenario that it is held against
    wanted: float | None = None  # the ratio; at least, or at most where less is better
    less_is_better: bool = False
    limits: dict[str, float] = field(default_factory=dict)  # what `value`, or one of `more`, should not exceed
    x: float | None = None  # its place on a curve


Prepare = Callable[[Any, float, Tell], AbstractAsyncContextManager[list[Measure]]]  # on a rig, to a scale


@dataclass(frozen=True, slots=True)
class Scenario:
    """Measures that belong together."""

    name: str
    title: str
    prepare: Prepare
    warm_up: float = 0.05  # of a round, not measured: connections, plans and caches are made in it; 0: none
    rounds: int | None = None  # at most
    x: str | None = None  # what the curve goes over


Rounds = list[list[Figure]]  # per measure, its figures


def summary(scenario: Scenario, measures: list[Measure], rounds: Rounds, scale: float) -> Outcome:
    """A scenario's outcome, as `--json` has it: medians over the rounds, of the ratios too, as noise that lasts a round
    falls out of a ratio. What is far too small to say anything is not judged."""
    is_judged = scale >= LEAST_JUDGED
    values = {measure.name: [f.value for f in figures] for measure, figures in zip(measures, rounds, strict=True)}
    told: list[Measured] = []
    for measure, figures in zip(measures, rounds, strict=True):
        own = values[measure.name]
        against = values[measure.against] if measure.against else [f.reference for f in figures]
        references = [value for value in against if value is not None]
        ratios = [a / b for a, b in zip(own, references, strict=False) if b]
        told.append(
            {
                "name": measure.name,
                "unit": measure.unit,
                "x": measure.x,
                "value": statistics.median(own),
                "values": own,
                "against": measure.against,
                "reference": _median(references),
                "ratio": _median(ratios),
                "ratios": ratios,
                "wanted": measure.wanted if is_judged else None,
                "lessIsBetter": measure.less_is_better,
                "limits": measure.limits if is_judged else {},
                "serverCpuMicroseconds": _median([f.cpu for f in figures if f.cpu is not None]),
                "generatorBusy": _median([f.busy for f in figures if f.busy is not None]),
                "more": {name: statistics.median(f.more[name] for f in figures) for name in figures[0].more},
            }
        )
    return {"name": scenario.name, "title": scenario.title, "x": scenario.x, "measures": told}


def is_met(told: Measured) -> bool | None:
    """Whether a measure is as wanted; None where nothing is."""
    verdicts = []
    if told["wanted"] is not None and told["ratio"] is not None:
        verdicts.append(told["ratio"] <= told["wanted"] if told["lessIsBetter"] else told["ratio"] >= told["wanted"])
    verdicts += [
        (told["value"] if name == "value" else told["more"][name]) <= limit for name, limit in told["limits"].items()
    ]
    return all(verdicts) if verdicts else None


def rounds_of(run: Run) -> str:
    """Over how many rounds its medians are, in words."""
    counts = sorted({len(m["values"]) for outcome in run["scenarios"] for m in outcome["measures"]})
    if counts == [1]:
        return "one round"
    return f"medians of {' or '.join(map(str, counts))} rounds"


def bounds(told: Measured) -> str:
    """What is wanted of a measure, in words."""
    wanted = [f"{'≤' if told['lessIsBetter'] else '≥'} {told['wanted']:g}"] if told["wanted"] is not None else []
    limits = (f"{'' if name == 'value' else name + ' '}≤ {limit:g}" for name, limit in told["limits"].items())
    return ", ".join([*wanted, *limits])


def number(value: float) -> str:
    """With as many digits as say something."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None
