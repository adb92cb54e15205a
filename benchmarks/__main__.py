"""`python -m benchmarks`."""

import asyncio
import json
from pathlib import Path

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.paths import Figure, Paths
from benchmarks.rig import a_rig
from benchmarks.table import Measured, show, summary

_WARM_UP = 0.05  # of a round, not measured: connections, plans and caches are made in it


@click.command()
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="Rounds of every path.")
@click.option("--quick", is_flag=True, help="One short round, to see that it runs; its figures say little.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Also write the figures there.")
@click.option("--only", metavar="TEXT", help="Only the paths with this in their name, and their references.")
def main(rounds: int, quick: bool, file: Path | None, only: str | None) -> None:
    """Measure this machine: rates, and their ratios to references of the same rounds."""
    asyncio.run(_main(1 if quick else rounds, 0.05 if quick else 1.0, file, only or ""))


async def _main(rounds: int, scale: float, file: Path | None, only: str) -> None:
    columns = (TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True, refresh_per_second=2) as progress:
        bar = progress.add_task("starting", total=None)
        async with a_rig() as rig:
            every = Paths(rig).all()
            wanted = {every[0].name}
            for path in every:
                if only in path.name:
                    wanted |= {path.name} | ({path.against} if path.against else set())
            paths = [path for path in every if path.name in wanted]
            measured: Measured = {path.name: [] for path in paths}
            progress.update(bar, total=(rounds + 1) * len(paths))
            for number in range(rounds + 1):
                for path in paths:
                    progress.update(bar, description=path.name if number else f"warming up: {path.name}")
                    figure: Figure = await path.measure(scale if number else scale * _WARM_UP)
                    if number:
                        measured[path.name].append(figure)
                    progress.advance(bar)
    told = summary(paths, measured)
    show(told)
    if file:
        file.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
