"""What the README and the docs say is so."""

import asyncio
import os
import re
import sys
from pathlib import Path

import click

from atomo_gql.api.errors import STATUS
from atomo_gql.cli import COMMANDS, main
from tests.conftest import SECRET, MakeServer

ROOT = Path(__file__).parents[1]


async def test_the_curl_story_works_as_it_stands(make_server: MakeServer, tmp_path: Path) -> None:
    server = await make_server()
    [block] = re.findall(r"<!-- curl story.*?```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    script = block.replace("http://127.0.0.1:3000", server.url).replace(
        ".venv/bin/atomo-gql", f"{sys.executable} -m atomo_gql"
    )

    process = await asyncio.create_subprocess_exec(
        "bash",
        "-eu",
        "-c",
        script,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "JWT_SECRET": SECRET, "ATOMO_DATA_DIR": str(tmp_path)},
    )
    out, err = (text.decode() for text in await process.communicate())

    assert process.returncode == 0, err
    lines = out.strip().splitlines()
    assert '"status":"succeeded"' in lines[0]
    assert '"result":{"text":"Hello, Ada"}' in lines[0]
    assert lines[1:4] == [
        '{"outcome":"retry","delaySecs":5}',
        '{"outcome":"retry","delaySecs":10}',
        '{"outcome":"dead"}',
    ]
    assert '"status":"dead"' in lines[4]
    assert '"error":"no luck"' in lines[4]
    assert '"code":"UNAUTHENTICATED"' in lines[5]


def test_every_error_code_is_documented_with_its_status() -> None:
    found = re.findall(r"^\| `([A-Z_]+)` \| (\d+) \|", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)
    assert {code: int(status) for code, status in found} == STATUS


def test_every_command_has_its_help() -> None:
    context = click.Context(main)
    for name in COMMANDS:
        command = main.get_command(context, name)
        assert command is not None
        assert command.help, name


async def test_dev_once_ends_with_0_when_its_job_has_succeeded(dsn: str, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "atomo_gql",
        "dev",
        "--once",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "DATABASE_URL": dsn, "ATOMO_DATA_DIR": str(tmp_path), "PORT": "3100"},
    )
    out, err = (text.decode() for text in await process.communicate())

    assert process.returncode == 0, out + err
    assert "succeeded" in out
