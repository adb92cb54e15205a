"""`atomo-gql dev`: everything at once, and a port of its own."""

import asyncio
import os
import re
import socket
import sys
from pathlib import Path

from tests.conftest import SECRET


async def _dev(folder: Path, dsn: str, port: int) -> tuple[int | None, str]:
    folder.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ATOMO_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "atomo_gql", "dev", "--once"),
        env={
            **kept,
            "DATABASE_URL": dsn,
            "PORT": str(port),
            "JWT_SECRET": SECRET,
            "ATOMO_DATA_DIR": str(folder),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        },
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode, out.decode()


async def test_two_that_begin_at_once_on_one_port_take_two(dsn: str, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ends = await asyncio.gather(*(_dev(tmp_path / name, dsn, port) for name in ("one", "other", "third")))
    assert [status for status, _ in ends] == [0, 0, 0], ends
    ports = {int(found[1]) for _, out in ends if (found := re.search(r"server     http://127.0.0.1:(\d+)", out))}
    assert len(ports) == 3
    assert port in ports
    assert all("Traceback" not in out for _, out in ends)
