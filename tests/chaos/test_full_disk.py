"""A disk that is really full: writes are 503 and say so, and the server is not ready until there is room."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import Server, bearer, until

from .postgres import Cluster, needs_postgres, own_folder, served
from .rig import a_folder

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120), needs_postgres]


@contextlib.contextmanager
def a_small_disk(folder: Path) -> Iterator[Path]:
    """Of 64 MB, in memory."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m,mode=0777", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a file system of its own is needed, which only root can mount: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _fill(disk: Path) -> Path:
    file = disk / "filler"
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as out:
        while True:
            out.write(bytes(8_192))
    return file


async def test_a_full_disk_is_said_to_be_full_until_there_is_room(tmp_path: Path) -> None:
    with a_folder() as folder, a_small_disk(folder / "disk") as disk:
        cluster = Cluster(folder / "cluster")
        try:
            await cluster.make()
            await cluster.start()
            space = own_folder(disk / "space")
            async with cluster.sql() as sql:
                await sql.execute(f"CREATE TABLESPACE small LOCATION '{space}'")
                await sql.execute("CREATE DATABASE jobs TABLESPACE small")
            dsn = urlsplit(cluster.dsn)._replace(path="/jobs").geturl()
            async with served(dsn, dsn, tmp_path) as server:
                await server.enqueue()
                filler = _fill(disk)
                body = {"jobs": [{"queue": "q", "kind": "k", "payload": {"text": "x" * 2_000}}] * 50}

                async def is_refused() -> bool:
                    status, answer = await server.call("POST", "/jobs/batch", body, headers=bearer())
                    assert status in (201, 503), answer
                    return status == 503 and "disk of the database is full" in answer["detail"]

                await until(is_refused)
                status, answer = await server.call("GET", "/readyz")
                assert (status, "disk" in answer["detail"]) == (503, True)
                filler.unlink()
                await until(lambda: _is_ready(server))
                await server.enqueue()
        finally:
            await cluster.stop()


async def _is_ready(server: Server) -> bool:
    return (await server.call("GET", "/readyz"))[0] == 200
