"""A worker process that empties queues, and how fast it was."""

import aiohttp

from atomo_gql.cli.bench.figures import Figure
from atomo_gql.cli.bench.fill import rounded
from atomo_gql.cli.bench.rig import Place, module

# The first transaction that has not begun yet: from there the events of the drain are read, and none of those before,
# which a drain on an empty database would not have to.
_NOW = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text"
# By the database's clock, from the first lease to the last completion: the worker's start is not in it.
_RATE = """
SELECT (count(*) FILTER (WHERE type = 'succeeded') /
        extract(epoch FROM max(at) FILTER (WHERE type = 'succeeded') - min(at)))::float8
FROM events WHERE xid >= $2::text::xid8 AND actor = 'worker:' || $1 AND type IN ('leased', 'succeeded')"""


async def drained(place: Place, queues: list[str], count: float) -> Figure:
    """So many jobs of these queues, by one worker process at its best setting, in jobs/s."""
    total = rounded(count)
    token_id, token = await mint(place, queues)
    async with place.store.connection() as sql:
        began = await sql.fetchval(_NOW)
    used = place.server.cpu_seconds()
    environment = {"ATOMO_URL": place.url, "ATOMO_WORKER_TOKEN": token}
    async with module("worker", "drain", str(total), *queues, piped=True, **environment) as worker:
        spent = float(await worker.stdout.read() or 0)
        if await worker.wait():
            raise RuntimeError("the worker failed; the lines above say why")
    cpu = (place.server.cpu_seconds() - used) / total * 1e6
    async with place.store.connection() as sql:
        rate = await sql.fetchval(_RATE, token_id, began)
    return Figure(rate, cpu=cpu, more={"worker µs": spent / total * 1e6})


async def mint(place: Place, queues: list[str]) -> tuple[str, str]:
    """A worker token's id, and the token."""
    async with (
        aiohttp.ClientSession(headers=place.bearer) as http,
        http.post(f"{place.url}/jobs/workers", json={"name": "bench", "queues": queues}) as answer,
    ):
        made = await answer.json()
        return made["id"], made["token"]
