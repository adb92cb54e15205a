"""The benchmark runs, and says what it measured in all its forms; what it measured is nobody's test."""

import asyncio
import json
import sys
from pathlib import Path

from atomo_gql.cli.bench.command import SCENARIOS


async def test_a_quick_run_prints_writes_and_draws(tmp_path: Path, dsn: str) -> None:
    figures, page = tmp_path / "figures.json", tmp_path / "page.html"
    bench = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "atomo_gql", "bench", "workers", "paths", "--quick", "--only", "loops"),
        *("--json", str(figures), "--html", str(page)),
        env={"PATH": "", "DATABASE_URL": dsn},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await bench.communicate()
    assert bench.returncode == 0, err.decode()
    assert "256 loops" in out.decode()
    told = json.loads(figures.read_text())
    [workers, paths] = told["scenarios"]
    assert [m["x"] for m in workers["measures"]] == [1, 4, 16, 64, 256]
    assert all(m["value"] > 0 for m in workers["measures"])
    assert paths["measures"] == []
    text = page.read_text()
    assert text.count("<svg") > 4
    assert "http" not in text, "nothing comes from elsewhere"


async def test_every_scenario_is_explained() -> None:
    bench = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "atomo_gql", "bench", "--help"), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await bench.communicate()
    assert [name for name in SCENARIOS if f"\n  {name} " not in out.decode()] == []
