"""What a run tells of its measurements: the form of `--json`, read again by `--from`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, TypedDict

import msgspec

Amount = Annotated[float, msgspec.Meta(ge=0)]


class Measured(TypedDict):
    """A measure's figures."""

    name: str
    unit: str
    x: float | None
    value: Amount
    values: Annotated[list[Amount], msgspec.Meta(min_length=1)]
    against: str | None
    reference: Amount | None
    ratio: Amount | None
    ratios: list[Amount]
    wanted: Amount | None
    lessIsBetter: bool
    limits: dict[str, Amount]
    serverCpuMicroseconds: float | None
    generatorBusy: float | None
    more: dict[str, float]


class Outcome(TypedDict):
    """A scenario's measures."""

    name: Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_-]{0,63}$")]  # names a file, too
    title: str
    x: str | None
    measures: list[Measured]


class Machine(TypedDict):
    """What was measured on."""

    cpus: int | None
    processor: str
    python: str
    system: str


class Run(TypedDict):
    """All that one command measured."""

    at: str
    machine: Machine
    rounds: int
    scale: float
    scenarios: list[Outcome]


def read(file: Path) -> Run:
    """A ValueError says what is wrong with the file."""
    try:
        run = msgspec.json.decode(file.read_bytes(), type=Run)
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not what --json writes: {error}") from None
    for outcome in run["scenarios"]:
        for m in outcome["measures"]:
            if wrong := _wrong(m):
                raise ValueError(f"{file} is not what --json writes: {outcome['name']}, {m['name']}: {wrong}")
    return run


def _wrong(m: Measured) -> str | None:
    """What no type says."""
    if (m["ratio"] is None) != (not m["ratios"]):
        return "`ratio` and `ratios` contradict each other"
    unknown = next((name for name in m["limits"] if name != "value" and name not in m["more"]), None)
    return None if unknown is None else f"there is a limit of `{unknown}`, and no such figure in `more`"


def combined(runs: Iterable[Run], names: Iterable[str] = ()) -> list[Run]:
    """The runs with what there is to show: scenarios with measures, of these names if any are given; of one that
    several runs have, the last."""
    runs, names = list(runs), set(names)
    found = (outcome for run in runs for outcome in run["scenarios"])
    last = {o["name"]: o for o in found if o["measures"] and (not names or o["name"] in names)}
    shown: list[Run] = [{**run, "scenarios": [o for o in run["scenarios"] if last.get(o["name"]) is o]} for run in runs]
    return [run for run in shown if run["scenarios"]]
