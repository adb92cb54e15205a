"""`atomo-gql bench`."""

import importlib
import json
import logging
import os
import platform
import resource
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
from click.core import ParameterSource
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from atomo_gql.cli import signals
from atomo_gql.cli.bench import page, plots, table
from atomo_gql.cli.bench.figures import Rounds, Scenario, summary
from atomo_gql.cli.bench.rig import Rig, a_rig
from atomo_gql.cli.bench.told import Outcome, Run, combined, read
from atomo_gql.settings import MOST_WORKERS

# By the name of a scenario: its module, and what it is called there.
SCENARIOS = {
    "paths": ("paths", "SCENARIO"),
    "payloads": ("adversity", "PAYLOADS"),
    "pickup": ("pickup", "SCENARIO"),
    "workers": ("workers", "SCENARIO"),
    "stages": ("stages", "SCENARIO"),
    "watching": ("watching", "SCENARIO"),
    "flows": ("flows", "SCENARIO"),
    "adversity": ("adversity", "SCENARIO"),
    "queries": ("queries", "SCENARIO"),
    "memory": ("memory", "SCENARIO"),
}
_DEFAULT = ("paths", "payloads", "pickup", "workers", "stages", "watching", "flows")


@click.command()
@click.argument("scenarios", nargs=-1, type=click.Choice(["all", *SCENARIOS]), metavar="[SCENARIO]...")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="Rounds of every measure.")
@click.option(
    "--scale", default=1.0, show_default=True, type=click.FloatRange(0.001, 10), help="Of every count of jobs."
)
@click.option("--quick", is_flag=True, help="One round at a hundredth, to see that it runs; its figures say little.")
@click.option("--only", metavar="TEXT", default="", help="Only measures with this in their name, and their references.")
@click.option(
    "--minutes", default=0.0, type=click.FloatRange(0), help="Spread `memory` over so long; 0: as fast as it goes."
)
@click.option(
    *("--workers", "workers"),
    default=1,
    show_default=True,
    type=click.IntRange(1, MOST_WORKERS),
    help="Processes of each server, as of `serve`.",
)
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Also write the figures there.")
@click.option("--html", "html", type=click.Path(dir_okay=False, path_type=Path), help="Also draw a page there.")
@click.option(
    "--plots", "folder", type=click.Path(file_okay=False, path_type=Path), help="Also draw SVGs there, one a scenario."
)
@click.option(
    *("--from", "files"),
    multiple=True,
    type=click.Path(path_type=Path),
    help="Measure nothing, and show what --json wrote there. Repeatable: of a scenario in several, the last counts.",
)
def bench(
    scenarios: tuple[str, ...],
    rounds: int,
    scale: float,
    quick: bool,
    only: str,
    minutes: float,
    workers: int,
    file: Path | None,
    html: Path | None,
    folder: Path | None,
    files: tuple[Path, ...],
) -> None:
    """Measure this machine: rates, beside references of the same rounds.

    \b
    paths      the ways in and out (REST, GraphQL, batches, a worker)
    payloads   jobs of 64 KB
    pickup     from enqueue to the handler of an idle worker
    workers    1 to 256 lease loops at a time
    stages     what a job costs at each stage: CPU, and bytes of the database's log
    watching   progress to 2,000 open pages
    flows      workflow steps, and events that fire actions
    adversity  the drain beside a million old jobs, a backlog, a held snapshot … (minutes)
    queries    pages and counts at millions of jobs (minutes; 5,000,000 with --scale 1)
    memory     what the server holds while jobs go through it (minutes)

    Without a name: the first seven. It runs on a PostgreSQL of its own in a temporary folder, or on that of
    DATABASE_URL, where it makes databases, named bench_…, and drops them; those that are there are not touched. No
    other setting has a part in it. Compare ratios, never rates: a machine is never quiet, and never like another.
    """
    for option, path in (("--json", file), ("--html", html)):
        if path is not None and not path.absolute().parent.is_dir():  # better said now than after an hour
            raise click.BadParameter(f"there is no folder {path.absolute().parent}", param_hint=option)
    names = list(SCENARIOS) if "all" in scenarios else list(dict.fromkeys(scenarios))
    if files:
        measuring = ("rounds", "scale", "quick", "only", "minutes", "workers", "file")
        source = click.get_current_context().get_parameter_source
        if said := [name for name in measuring if source(name) is ParameterSource.COMMANDLINE]:
            said = ["json" if name == "file" else name for name in said]
            raise click.UsageError(f"--{said[0]} is about what is measured, and with --from nothing is.")
        runs = _kept(files, names)
    else:
        _make(folder)
        how = _How(1 if quick else rounds, 0.01 if quick else scale, only, minutes, workers, file)
        runs = combined([_measured(names or list(_DEFAULT), how)])
    table.show(runs)
    if html:
        html.write_text(page.drawn(runs), encoding="utf-8")
    if folder:
        _make(folder)
        for name, svg in [(o["name"], plots.alone(o, run)) for run in runs for o in run["scenarios"]]:
            (folder / f"{name}.svg").write_text(svg, encoding="utf-8")


def _make(folder: Path | None) -> None:
    if folder:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise click.BadParameter(f"cannot be made: {error}", param_hint="--plots") from None


def _kept(files: tuple[Path, ...], names: list[str]) -> list[Run]:
    try:
        runs = combined([read(file) for file in files], names)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    if not runs:
        raise click.ClickException(f"No figures of {', '.join(names) or 'anything'} in {', '.join(map(str, files))}.")
    return runs


@dataclass(frozen=True, slots=True)
class _How:
    """To measure."""

    rounds: int
    scale: float
    only: str  # measures with this in their name
    minutes: float
    workers: int
    file: Path | None  # for the figures, written again after each scenario


def _measured(names: list[str], how: _How) -> Run:
    logging.getLogger("atomo_gql").setLevel(logging.WARNING)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        figures = signals.run(_bench(names, how), ends_process=False)
    except SystemExit:  # at a signal; processes, databases and folders are gone
        raise click.Abort from None
    if not any(outcome["measures"] for outcome in figures["scenarios"]):
        raise click.ClickException(f"no measure of {', '.join(names)} has {how.only!r} in its name")
    return figures


async def _bench(names: list[str], how: _How) -> Run:
    run: Run = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpus": os.cpu_count(),
            "processor": platform.processor() or platform.machine(),
            "python": platform.python_version(),
            "system": platform.platform(),
        },
        "rounds": how.rounds,
        "scale": how.scale,
        "scenarios": [],
    }
    columns = (TextColumn("{task.description:<60}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True, refresh_per_second=2) as progress:
        every = progress.add_task("all scenarios", total=len(names))
        async with a_rig(how.minutes, how.workers) as rig:
            for name in names:
                run["scenarios"].append(await _measure(rig, _scenario(name), how, progress))
                progress.advance(every)
                if how.file:
                    how.file.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    return run


def _scenario(name: str) -> Scenario:
    module, attribute = SCENARIOS[name]
    found: Scenario = getattr(importlib.import_module(f"{__package__}.{module}"), attribute)
    return found


async def _measure(rig: Rig, scenario: Scenario, how: _How, progress: Progress) -> Outcome:
    bar = progress.add_task(f"{scenario.name}: preparing", total=None)
    rounds, scale = min(how.rounds, scenario.rounds or how.rounds), how.scale
    async with scenario.prepare(
        rig, scale, lambda what: progress.update(bar, description=f"{scenario.name}: {what}")
    ) as every:
        names = {m.name for m in every if how.only in m.name}
        names |= {m.against for m in every if m.name in names and m.against}
        measures = [measure for measure in every if measure.name in names]
        figures: Rounds = [[] for _ in measures]
        first = 0 if scenario.warm_up else 1
        progress.update(bar, total=(rounds + 1 - first) * len(measures))
        for number in range(first, rounds + 1):
            for measure, found in zip(measures, figures, strict=True):
                progress.update(
                    bar, description=f"{scenario.name}: {measure.name}" + ("" if number else " (warming up)")
                )
                figure = await measure.run(scale if number else scale * scenario.warm_up)
                if number:
                    found.append(figure)
                progress.advance(bar)
    return summary(scenario, measures, figures, scale)
