"""A process with an embedded PostgreSQL on the folder argv[1]; it stops in good order when its input ends."""

import asyncio
import sys
from pathlib import Path

from atomo_gql.embedded import EmbeddedPostgres, EmbeddedPostgresError, spawn


async def main() -> None:
    """Print each line of the log, then `DSN <dsn>` or `ERROR <text>`."""
    if "--without-death-signal" in sys.argv:
        spawn.DIES_WITH_PARENT = False
    postgres = EmbeddedPostgres(Path(sys.argv[1]), log=print)
    try:
        dsn = await postgres.start()
    except EmbeddedPostgresError as error:
        print("ERROR", error)
        return
    print("DSN", dsn)
    await asyncio.to_thread(sys.stdin.read)
    await postgres.stop()


asyncio.run(main())
