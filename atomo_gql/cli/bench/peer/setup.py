"""A server on an empty database, which stays until the next setup."""

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import aiohttp

from atomo_gql.cli.bench.peer.kept import PORT, URL, kept, say
from atomo_gql.cli.bench.rig import listening
from atomo_gql.cli.start import migrated
from atomo_gql.cli.token import sign
from atomo_gql.settings import Settings

_SECRET = "the benchmark's own secret, which is long enough"


async def run(dsn: str, _asked: dict[str, Any]) -> None:
    """Start anew on an empty database."""
    file = kept(dsn)
    if file.exists():
        _stop(json.loads(file.read_text())["pid"])
    await migrated(dsn)
    environment = {**os.environ, "DATABASE_URL": dsn, "JWT_SECRET": _SECRET, "ATOMO_LOG_LEVEL": "error"}
    server = subprocess.Popen(
        [sys.executable, "-m", "atomo_gql", "serve", "--port", str(PORT)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # it outlives its database, which is dropped before the next setup
        start_new_session=True,
    )
    await listening(PORT, lambda: server.poll() is None)
    jwt = sign(Settings(jwt_secret=_SECRET), "bench", role="admin", tenant=None, lasts=86_400)
    async with (
        aiohttp.ClientSession(headers={"authorization": f"Bearer {jwt}"}, raise_for_status=True) as http,
        http.post(f"{URL}/jobs/workers", json={"name": "bench", "queues": ["bench"]}) as answer,
    ):
        token = (await answer.json())["token"]
    file.write_text(json.dumps({"pid": server.pid, "jwt": jwt, "token": token}))
    say(ev="ok")


def _stop(pid: int) -> None:
    """The server of the setup before; its database is gone already."""
    try:
        os.kill(pid, signal.SIGKILL)
        while True:
            os.kill(pid, 0)
            time.sleep(0.05)
    except ProcessLookupError:
        pass
