"""What a server does before anybody waits for it.

A connection plans a statement when it first runs it: the first enqueue takes fifteen milliseconds, the next one.
"""

import asyncio
import contextlib

from atomo_gql.domain.errors import Unavailable
from atomo_gql.store import enqueue, lease, report
from atomo_gql.store.database import Database

_CONNECTIONS = 3  # that are in use at a time while little goes on


async def up(database: Database) -> None:
    """Run the hot statements, with nothing to do, on a few connections. Who needs a database sees that it is away."""
    with contextlib.suppress(Unavailable):
        for run in (enqueue.enqueue, lease.lease, report.complete):
            await asyncio.gather(*(run(database, []) for _ in range(_CONNECTIONS)))
