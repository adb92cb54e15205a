"""Every way of asking takes exactly those that stand first and are free, and reads little more."""

import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from atomo_gql.cli.bench import fill
from atomo_gql.store import enqueue
from atomo_gql.store.database import Database
from atomo_gql.store.enqueue import EnqueueRow

_QUEUES = [f"queue {n}" for n in range(12)]
_IDLE = [f"idle {n}" for n in range(70)]  # more queues than are looked for among all that waits
_TENANTS, _KINDS = ("", "acme", "acm"), ("one", "two", "three")
_TAKE = "SELECT id FROM take_ready($1, $2, $3, $4, NULL, NULL)"


def _job(chance: random.Random, now: datetime) -> EnqueueRow:
    """Due or not, of few priorities and many moments; some queues are fuller than others."""
    queue = _QUEUES[min(chance.randrange(12), chance.randrange(12))]
    priority = chance.choice((-7, 0, 0, 0, 3, 3, 9))
    run_at = now - timedelta(seconds=chance.uniform(0, 500) if chance.random() < 0.9 else -3_600)
    tenant, kind = chance.choice(_TENANTS), chance.choice(_KINDS)
    return EnqueueRow(tenant, queue, kind, b"1", None, 5, priority, run_at, "user:x", None)


@pytest.mark.parametrize("paused", [[], [("acme", "queue 0"), ("\x1f", "queue 2")]], ids=["open", "paused"])
@pytest.mark.parametrize("seed", range(3))
async def test_each_scope_gets_the_first_that_are_free(
    database: Database, sql: Any, seed: int, paused: list[tuple[str, str]]
) -> None:
    chance = random.Random(seed)
    await enqueue.enqueue(database, [_job(chance, datetime.now(UTC)) for _ in range(900)])
    for tenant, queue in paused:
        await sql.execute("INSERT INTO queue_pauses VALUES ($1, $2, new_id(), now(), 'user:x')", queue, tenant)
    waiting = await sql.fetch("SELECT * FROM ready WHERE eligible_at <= now() ORDER BY priority DESC, eligible_at, id")
    held = {r["id"] for r in waiting[:60] + chance.sample(waiting, 250)}
    free = [r for r in waiting if r["id"] not in held and r["queue"] not in [q for t, q in paused if t == "\x1f"]]
    free = [r for r in free if (r["tenant"], r["queue"]) not in paused]
    sets = [None, *(chance.sample(_QUEUES, count) for count in (1, 2, 4, 11, 12)), [*_QUEUES, *_IDLE]]

    async with database.connection() as holder, holder.transaction():
        await holder.fetch("SELECT FROM ready WHERE id = ANY ($1) FOR UPDATE", list(held))
        for _ in range(80):
            tenant, queues = chance.choice((None, None, "acme", "acm")), chance.choice(sets)
            kinds, count = chance.choice((None, None, ["one"], ["two", "three"])), chance.choice((1, 2, 10, 70, 2_000))
            expected = [
                r["id"]
                for r in free
                if tenant in (None, r["tenant"])
                and (queues is None or r["queue"] in queues)
                and (kinds is None or r["kind"] in kinds)
            ]
            attempt = sql.transaction()
            await attempt.start()
            taken = [r["id"] for r in await sql.fetch(_TAKE, tenant, queues, kinds, count)]
            await attempt.rollback()
            assert sorted(taken) == sorted(expected[:count]), (tenant, queues, kinds, count)


@pytest.mark.parametrize("scope", [range(20), range(1, 20), range(3, 13)], ids=["all", "nearly all", "half"])
async def test_what_others_hold_is_read_once(database: Database, sql: Any, scope: range) -> None:
    names = [f"queue {n}" for n in range(20)]
    await fill.queued(database, names, 4_000)  # in turn, a hundred each
    await fill.tidy(database)

    async def pages() -> int:
        """That a lease of 300 touches."""
        attempt = sql.transaction()
        await attempt.start()
        explained = await sql.fetchval(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {_TAKE}", None, [names[n] for n in scope], None, 300
        )
        await attempt.rollback()
        plan: dict[str, Any] = json.loads(explained)[0]["Plan"]
        assert plan["Actual Rows"] == 300
        return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])

    await pages()
    nothing_held = await pages()
    async with database.connection() as holder, holder.transaction():
        await holder.fetch("SELECT FROM ready ORDER BY eligible_at, id LIMIT 600 FOR UPDATE")
        much_held = await pages()
    assert much_held < nothing_held + 3 * 600, (nothing_held, much_held)
