"""A process with an embedded PostgreSQL on the folder argv[1]; it stops in good order when its input ends.

`--name=value` is a setting of the server, and `--occupy=pid` has another process take that pid first.
A variable CHILDREN_NAME is NAME for the server alone.
"""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from atomo_gql.embedded import EmbeddedPostgres, EmbeddedPostgresError, spawn

CHILDREN = "CHILDREN_"


async def main() -> None:
    """Print each line of the log, then `DSN <dsn>` or `ERROR <text>`."""
    if "--without-death-signal" in sys.argv:
        spawn.DIES_WITH_PARENT = False
    options = dict(word.lstrip("-").split("=", 1) for word in sys.argv[2:] if "=" in word)
    if "occupy" in options:
        occupy(int(options.pop("occupy")))
    for name in [name for name in os.environ if name.startswith(CHILDREN)]:
        os.environ[name.removeprefix(CHILDREN)] = os.environ[name]
    postgres = EmbeddedPostgres(Path(sys.argv[1]), settings=options, log=print)
    try:
        dsn = await postgres.start()
    except EmbeddedPostgresError as error:
        print("ERROR", error)
        return
    print("DSN", dsn)
    await asyncio.to_thread(sys.stdin.read)
    await postgres.stop()


def occupy(pid: int) -> None:
    """Start processes until one of them has the pid; they end with the container."""
    while (made := subprocess.Popen(["sleep", "1000"]).pid) < pid:
        pass
    print("occupied" if made == pid else f"not occupied: {made}")


asyncio.run(main())
