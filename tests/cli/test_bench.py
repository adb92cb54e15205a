"""The benchmark runs, and says what it measured in all its forms; what it measured is nobody's test."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from atomo_gql.cli.bench import fill
from atomo_gql.cli.bench.command import SCENARIOS, bench
from atomo_gql.cli.bench.figures import Figure, Measure, Scenario, summary
from atomo_gql.cli.bench.stages import of_processes
from atomo_gql.store.database import Database


async def test_a_quick_run_prints_writes_and_draws(tmp_path: Path, dsn: str) -> None:
    figures, page = tmp_path / "figures.json", tmp_path / "page.html"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "atomo_gql", "bench", "workers", "paths", "--quick", "--only", "loops"),
        *("--json", str(figures), "--html", str(page), "--plots", str(tmp_path / "plots")),
        env={"PATH": "", "DATABASE_URL": dsn},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert "256 loops" in out.decode()
    told = json.loads(figures.read_text())
    [workers, paths] = told["scenarios"]
    assert [m["x"] for m in workers["measures"]] == [1, 4, 16, 64, 256]
    assert all(m["value"] > 0 for m in workers["measures"])
    assert paths["measures"] == []
    text = page.read_text()
    assert text.count("<svg") == 1, "nothing is drawn of a scenario without measures"
    assert "http" not in text, "nothing comes from elsewhere"

    svg = tmp_path / "plots" / "workers.svg"
    assert _missing(svg, workers["measures"]) == []
    assert [path.name for path in svg.parent.iterdir()] == ["workers.svg"]

    again = tmp_path / "again.html"
    outcome = CliRunner().invoke(bench, ["--from", str(figures), "--html", str(again), "--plots", str(tmp_path)])
    assert outcome.exit_code == 0, outcome.output
    assert again.read_text() == text
    assert (tmp_path / "workers.svg").read_text() == svg.read_text()


_NAMES = ('<b>&"plain"</b>', "of \x1b[31m that", "a name that goes on and on " * 5)


def _run(name: str, limits: dict[str, float] | None = None) -> dict[str, Any]:
    unused: Any = None
    plain = Measure(_NAMES[0], "jobs/s", unused)
    against = None if limits else plain.name
    others = (Measure(other, "jobs/s", unused, against, 0.95, limits=limits or {}) for other in _NAMES[1:])
    measures = [plain, *others]
    figures = [Figure(value, more={"p99": 4.0}) for value in (1.0, 2.0, 3.0)]
    outcome = summary(Scenario(name, "A & B [/red]", unused), measures, [figures] * len(measures), 1.0)
    machine = {"cpus": 2, "processor": "x", "python": "3", "system": "y"}
    return {"at": "2026-01-01", "machine": machine, "rounds": 3, "scale": 1.0, "scenarios": [outcome]}


def _missing(svg: Path, measures: list[dict[str, Any]]) -> list[str]:
    text = " ".join(ElementTree.parse(svg).getroot().itertext())
    names = [m["name"].replace("\x1b", " ").strip() for m in measures]
    return [name for name in names if name not in text]


def test_runs_are_drawn_together_whatever_the_names(tmp_path: Path) -> None:
    old, bars, values = tmp_path / "old.json", tmp_path / "bars.json", tmp_path / "values.json"
    old.write_text(json.dumps({**_run("paths"), "at": "long ago"}))
    bars.write_text(json.dumps(_run("paths")))
    limited = _run("pickup", limits={"value": 1.5, "p99": 8.0})
    values.write_text(json.dumps(limited))

    arguments = [part for file in (old, bars, values) for part in ("--from", str(file))]
    page = tmp_path / "page.html"
    outcome = CliRunner().invoke(bench, [*arguments, "--html", str(page), "--plots", str(tmp_path)])

    assert outcome.exit_code == 0, outcome.output
    assert page.read_text().count("<svg") == 2
    assert "long ago" not in page.read_text()
    assert "<b>" not in page.read_text()
    for name in ("paths", "pickup"):
        assert _missing(tmp_path / f"{name}.svg", limited["scenarios"][0]["measures"]) == []
    one = CliRunner().invoke(bench, ["pickup", *arguments, "--plots", str(tmp_path / "one")])
    assert one.exit_code == 0, one.output
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["pickup.svg"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("{", "truncated"),
        ({"scenarios": 1}, "$.scenarios"),
        ({"scenarios": [{"name": "../x", "title": "", "x": None, "measures": []}]}, "$.scenarios[0].name"),
        ({"scenarios": []}, "No figures"),
        ("contradiction", "`ratio` and `ratios`"),
        (None, "No such file"),
    ],
)
def test_a_broken_file_is_refused_and_nothing_is_written(change: Any, said: str, tmp_path: Path) -> None:
    file, plots = tmp_path / "broken.json", tmp_path / "plots"
    run = _run("paths")
    if change == "contradiction":
        run["scenarios"][0]["measures"][0]["ratio"] = 1.0
    if change is not None:
        file.write_text(
            change if change == "{" else json.dumps({**run, **(change if isinstance(change, dict) else {})})
        )

    outcome = CliRunner().invoke(bench, ["--from", str(file), "--plots", str(plots), "--html", str(plots) + ".html"])

    assert outcome.exit_code == 1
    assert str(file) in outcome.output
    assert said in outcome.output
    assert [path for path in tmp_path.iterdir() if path != file] == []


_ELSEWHERE = """SELECT (SELECT count(*) FROM pg_tables WHERE schemaname = 'atomo'),
    (SELECT count(*) FROM atomo.events), (SELECT count(*) FROM atomo.ready), (SELECT count(*) FROM atomo.worker_tokens),
    (SELECT count(*) FROM pg_database WHERE datname LIKE 'bench%')"""


async def test_what_is_in_the_database_is_not_touched(database: Database, tmp_path: Path) -> None:
    await fill.queued(database, ["important"], 100)
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "broken.json").write_text("{")
    async with database.connection() as sql:
        before = await sql.fetchrow(_ELSEWHERE)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "atomo_gql", "bench", "stages", "payloads", "--quick", "--only", "lease and complete"),
        env={"PATH": "", "DATABASE_URL": database.dsn, "ATOMO_WORKERS": "2", "ATOMO_JWT_ISSUER": "others"},
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    async with database.connection() as sql:
        assert await sql.fetchrow(_ELSEWHERE) == before


async def test_a_database_that_is_elsewhere_is_not_taken_for_a_process_of_here(database: Database) -> None:
    async with database.connection() as sql:
        pid, name = await sql.fetchrow("SELECT pg_backend_pid(), current_database()")
    if "DATABASE_URL" not in os.environ:
        assert (of_processes(pid, name) or 0) > 0
    stranger = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "input()", name, stdin=asyncio.subprocess.PIPE
    )
    assert of_processes(stranger.pid, name) is None
    await stranger.communicate(b"\n")
    assert of_processes(2**22, name) is None


async def test_every_scenario_is_explained() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "atomo_gql", "bench", "--help"), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert [name for name in SCENARIOS if f"\n  {name} " not in out.decode()] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--plots", "{file}/x"], "--plots"),
        (["--json", "{file}/x/y"], "there is no folder"),
        (["--from", "{file}", "--rounds", "5"], "--rounds is about what is measured"),
        (["--from", "{file}", "--json", "x"], "--json is about what is measured"),
        (["nonsense"], "nonsense"),
        (["--rounds", "0"], "--rounds"),
        (["--workers", "0"], "--workers"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_is_measured(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    outcome = CliRunner().invoke(bench, [argument.format(file=file) for argument in arguments])
    assert outcome.exit_code == 2
    assert said in outcome.output
