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
from tests.store.test_projection import row

_QUEUES = [f"queue {n}" for n in range(12)]
_IDLE = [f"idle {n}" for n in range(70)]  # more queues than are looked for among all that waits
_TENANTS, _KINDS = ("", "acme", "acm"), ("one", "two", "three")
_TAKE = "SELECT id FROM take_ready($1, $2, $3, $4, $5, $6)"


def _job(chance: random.Random, now: datetime) -> EnqueueRow:
    """Due or not, of few priorities, many at the same moment; of 12 and -9 none is. Some queues are fuller."""
    queue = _QUEUES[min(chance.randrange(12), chance.randrange(12))]
    priority = chance.choice((-9, -7, 0, 0, 0, 3, 3, 9, 12))
    is_due = priority not in (-9, 12) and chance.random() < 0.9
    run_at = now - timedelta(seconds=10 * chance.randrange(1, 50) if is_due else -3_600)
    tenant, kind = chance.choice(_TENANTS), chance.choice(_KINDS)
    return row(queue, tenant=tenant, priority=priority)._replace(kind=kind, run_at=run_at)


@pytest.mark.parametrize("paused", [[], [("acme", "queue 0"), ("\x1f", "queue 2")]], ids=["open", "paused"])
@pytest.mark.parametrize("seed", range(3))
async def test_each_scope_gets_the_first_that_are_free(
    database: Database, sql: Any, seed: int, paused: list[tuple[str, str]]
) -> None:
    chance = random.Random(seed)
    now = datetime.now(UTC)
    await enqueue.enqueue(database, [_job(chance, now) for _ in range(900)])
    for whose, queue in paused:
        await sql.execute("INSERT INTO queue_pauses VALUES ($1, $2, new_id(), now(), 'user:x')", queue, whose)
    waiting = await sql.fetch("SELECT * FROM ready WHERE eligible_at <= now() ORDER BY priority DESC, eligible_at, id")
    held = {r["id"] for r in waiting[:60] + chance.sample(waiting, 250)}
    free = [r for r in waiting if r["id"] not in held and r["queue"] not in [q for t, q in paused if t == "\x1f"]]
    free = [r for r in free if (r["tenant"], r["queue"]) not in paused]
    waits = [
        r
        for r in await sql.fetch("SELECT * FROM ready")
        if ("\x1f", r["queue"]) not in paused and (r["tenant"], r["queue"]) not in paused
    ]
    sets = [None, *(chance.sample(_QUEUES, count) for count in (1, 2, 4, 11, 12)), [*_QUEUES, *_IDLE]]

    async with database.connection() as holder, holder.transaction():
        await holder.fetch("SELECT FROM ready WHERE id = ANY ($1) FOR UPDATE", list(held))
        for _ in range(80):
            tenant, queues = chance.choice((None, None, "acme", "acm")), chance.choice(sets)
            kinds, count = chance.choice((None, None, ["one"], ["two", "three"])), chance.choice((1, 2, 10, 70, 2_000))

            def is_of_scope(r: Any, tenant: Any = tenant, queues: Any = queues, kinds: Any = kinds) -> bool:
                return (
                    tenant in (None, r["tenant"])
                    and (queues is None or r["queue"] in queues)
                    and (kinds is None or r["kind"] in kinds)
                )

            expected = [r for r in free if is_of_scope(r)]
            attempt = sql.transaction()
            await attempt.start()
            told = (
                (expected[0]["priority"], expected[0]["eligible_at"])
                if expected and chance.random() < 0.4
                else (None, None)
            )
            taken = [r["id"] for r in await sql.fetch(_TAKE, tenant, queues, kinds, count, *told)]
            await attempt.rollback()
            assert sorted(taken) == sorted(r["id"] for r in expected[:count]), (tenant, queues, kinds, count, told)
            due = await sql.fetchval("SELECT next_eligible($1, $2, $3)", tenant, queues, kinds)
            first = min((max(r["eligible_at"], now) for r in waits if is_of_scope(r)), default=None)
            assert (due and max(due, now)) == first, (tenant, queues, kinds)


async def _pages(
    sql: Any, queues: list[str], kinds: list[str] | None, count: int, tenant: str | None = None, *, gets: bool = True
) -> int:
    """That a lease of so many touches, which gets them all or none."""
    attempt = sql.transaction()
    await attempt.start()
    explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {_TAKE}"
    explained = await sql.fetchval(explain, tenant, queues, kinds, count, None, None)
    await attempt.rollback()
    plan: dict[str, Any] = json.loads(explained)[0]["Plan"]
    assert plan["Actual Rows"] == count * gets
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


@pytest.mark.parametrize("kinds", [None, ["noop"]], ids=["any kind", "one kind"])
@pytest.mark.parametrize(
    "scope", [range(20), range(1, 20), range(0, 20, 4)], ids=["all queues", "nearly all", "every fourth"]
)
async def test_what_others_hold_is_read_a_few_times_at_most(
    database: Database, sql: Any, scope: range, kinds: list[str] | None
) -> None:
    names = [f"queue {n}" for n in range(20)]
    await fill.queued(database, names, 8_000)  # a hundred each, in turn
    await fill.tidy(database)
    asked = [names[n] for n in scope]

    await _pages(sql, asked, kinds, 300)
    nothing_held = await _pages(sql, asked, kinds, 300)
    async with database.connection() as holder, holder.transaction():
        await holder.fetch(
            "SELECT FROM ready WHERE queue = ANY ($1) ORDER BY eligible_at, id LIMIT 600 FOR UPDATE", asked
        )
        much_held = await _pages(sql, asked, kinds, 300)
    assert much_held < 3 * nothing_held + 3 * 600, (nothing_held, much_held)


@pytest.mark.parametrize("tenant", [None, "tenant 1"])
async def test_a_plan_for_kinds_made_while_nothing_waited_stays_good(
    database: Database, sql: Any, tenant: str | None
) -> None:
    for _ in range(8):
        assert await sql.fetch(_TAKE, tenant, ["q"], ["k"], 1, None, None) == []
    await enqueue.enqueue(database, [row("q", tenant=f"tenant {n % 2}") for n in range(5_000)])
    for kinds in (["k"], ["none"], ["none", *(f"of many {n}" for n in range(80))]):
        await _pages(sql, ["q"], kinds, 1, tenant, gets=kinds == ["k"])
        assert await _pages(sql, ["q"], kinds, 1, tenant, gets=kinds == ["k"]) < 400, kinds


async def test_what_is_paused_is_passed_once_and_only_where_it_stands_before(database: Database, sql: Any) -> None:
    await enqueue.enqueue(database, [row("q", tenant="free")._replace(kind="b") for _ in range(300)])
    await enqueue.enqueue(database, [row("q", tenant="acme")._replace(kind="a") for _ in range(5_000)])
    await sql.execute("INSERT INTO queue_pauses VALUES ('q', 'acme', new_id(), now(), 'user:x')")
    await fill.tidy(database)
    await _pages(sql, ["q"], ["a", "b"], 100)
    assert await _pages(sql, ["q"], ["a", "b"], 100) < 900
    async with database.connection() as holder, holder.transaction():
        await holder.fetch("SELECT FROM ready WHERE kind = 'b' ORDER BY eligible_at, id LIMIT 200 FOR UPDATE")
        assert await _pages(sql, ["q"], ["a", "b"], 100) < 2_000


@pytest.mark.parametrize("tenants", [1, 1_500])
async def test_jobs_of_a_kind_come_in_order_whosever_they_are(database: Database, sql: Any, tenants: int) -> None:
    await enqueue.enqueue(database, [row("q", tenant=f"tenant {n % tenants}") for n in range(3_000)])
    await fill.tidy(database)
    await _pages(sql, ["q"], ["k"], 100)
    assert await _pages(sql, ["q"], ["k"], 100) < 700  # of 100 jobs, six indexes


async def test_many_short_queues_whose_heads_are_held(database: Database, sql: Any) -> None:
    """Filled one after the other, so that each look passes few of them."""
    made = await enqueue.enqueue(database, [row(f"lane {n // 8}") for n in range(800)])
    await sql.execute(
        "UPDATE ready SET eligible_at = now() - interval '1 hour' + place * interval '1 s'"
        " FROM unnest($1::uuid[]) WITH ORDINALITY AS m (id, place) WHERE m.id = ready.id",
        [m.id for m in made],
    )
    await fill.tidy(database)
    async with database.connection() as holder, holder.transaction():
        await holder.fetch("SELECT FROM ready ORDER BY eligible_at, id LIMIT 640 FOR UPDATE")
        for queues, kinds in (
            ([f"lane {n}" for n in range(100)], None),
            (["lane 0", "lane 99"], None),
            ([f"lane {n}" for n in range(100)], ["k"]),
        ):
            assert await _pages(sql, queues, kinds, 1) < 8_000


async def test_jobs_of_others_that_are_not_due_cost_one_look(database: Database, sql: Any) -> None:
    """However many priorities they have, and however high."""
    later = datetime.now(UTC) + timedelta(hours=1)
    crowd = [row("other", priority=1 + n)._replace(run_at=later) for n in range(2_000)]
    await enqueue.enqueue(database, [*crowd, row("a"), row("b")])
    await fill.tidy(database)
    await _pages(sql, ["a", "b"], None, 2)  # planned
    assert await _pages(sql, ["a", "b"], None, 2) < 200
