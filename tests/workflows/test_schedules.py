"""A tick is one run, with any number of replicas, whatever the clocks do."""

import asyncio
import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest

from atomo_gql.domain.jobs import Json
from atomo_gql.service.workflows.cron import Cron
from atomo_gql.service.workflows.schedules import MOST_MISSED
from tests.parts import ROOT, Replica
from tests.workflows.conftest import MakeReplica
from tests.workflows.play import job, put

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> datetime:
    """A moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


async def schedule(replica: Replica, cron: str, *, name: str = "s", steps: Json = None, **more: Any) -> None:
    """Register a workflow that the clock starts."""
    trigger = {"Schedule": {"cron": cron, **more}}
    await replica.services.workflows.register(ROOT, {"name": name, "trigger": trigger, "steps": steps or [put("a", 1)]})


async def begin_at(sql: Any, moment: datetime, name: str = "s") -> None:
    """The simulated clock starts there: what the schedule's next tick is then."""
    source = await sql.fetchval(
        "SELECT source FROM workflows JOIN workflow_definitions ON workflow_id = id AND definition_version = "
        "workflow_definitions.version WHERE name = $1",
        name,
    )
    trigger = orjson.loads(source)["trigger"]["Schedule"]
    cron = Cron.parse(trigger["cron"], trigger.get("timezone", "UTC"))
    await sql.execute("UPDATE workflows SET next_at = $1 WHERE name = $2", cron.next_after(moment), name)


async def ticks(sql: Any, name: str = "s") -> list[datetime]:
    """The ticks that runs were begun for, in their order."""
    rows = await sql.fetch("SELECT trigger ->> 'tick' AS tick FROM workflow_runs WHERE workflow = $1 ORDER BY 1", name)
    return [datetime.fromisoformat(row["tick"]) for row in rows]


async def turn_all(replicas: Iterable[Replica], moments: Iterable[datetime]) -> None:
    """All replicas at once, each by a clock that is a little off, from moment to moment."""
    chosen = random.Random(1)
    for moment in moments:
        skewed = [moment + timedelta(seconds=chosen.uniform(-2, 2)) for _ in replicas]
        await asyncio.gather(*(r.services.schedules.turn(now) for r, now in zip(replicas, skewed, strict=True)))


@pytest.mark.parametrize(
    ("start", "cron", "expected"),
    [
        ("2026-03-28 23:00", "30 2 * * *", ["01:00"]),
        ("2026-03-28 23:00", "*/30 1-3 * * *", ["00:00", "00:30", "01:00", "01:30"]),
        ("2026-10-24 22:00", "30 2 * * *", ["00:30"]),
        ("2026-10-24 22:00", "*/30 2 * * *", ["00:00", "00:30", "01:00", "01:30"]),
    ],
    ids=["spring, fixed", "spring, wildcard", "autumn, fixed", "autumn, wildcard"],
)
async def test_three_replicas_start_each_tick_once_while_the_clocks_change(
    make_replica: MakeReplica, sql: Any, start: str, cron: str, expected: list[str]
) -> None:
    replicas = [await make_replica() for _ in range(3)]
    await schedule(replicas[0], cron, timezone="Europe/Berlin")
    begin = at(start)
    await begin_at(sql, begin)

    await turn_all(replicas, (begin + n * 10 * MINUTE for n in range(1, 6 * 8)))

    found = await ticks(sql)
    assert [f"{tick:%H:%M}" for tick in found] == expected
    assert len({tick.astimezone(BERLIN).date() for tick in found}) == 1


async def test_a_clock_that_jumps_starts_no_tick_twice_and_none_is_lost(make_replica: MakeReplica, sql: Any) -> None:
    replicas = [await make_replica() for _ in range(3)]
    await schedule(replicas[0], "*/10 * * * *", missed="all")
    begin = at("2026-06-01 00:00")
    await begin_at(sql, begin)
    chosen = random.Random(3)
    now, latest = begin, begin
    for _ in range(60):
        now += timedelta(seconds=chosen.choice([30, 300, 900, 3_600, -600, -7_200, -60]))
        latest = max(latest, now)
        await asyncio.gather(*(replica.services.schedules.turn(now) for replica in replicas))
    await asyncio.gather(*(replica.services.schedules.turn(latest) for replica in replicas))
    expected = [begin + n * 10 * MINUTE for n in range(1, 1_000)]
    assert await ticks(sql) == [tick for tick in expected if tick <= latest]


@pytest.mark.parametrize(
    ("missed", "late", "expected"),
    [
        ("latest", 5 * HOUR, [5]),
        ("latest", 5 * HOUR + 30 * MINUTE, [5]),
        ("all", 5 * HOUR + 30 * MINUTE, [1, 2, 3, 4, 5]),
        ("skip", 5 * HOUR + 30 * MINUTE, []),
        ("skip", 5 * HOUR + 30 * timedelta(seconds=1), [5]),
        ("skip", HOUR, [1]),
    ],
)
async def test_what_becomes_of_missed_ticks_is_as_the_schedule_says(
    replica: Replica, sql: Any, missed: str, late: timedelta, expected: list[int]
) -> None:
    await schedule(replica, "0 * * * *", missed=missed)
    begin = at("2026-06-01 00:00")
    await begin_at(sql, begin)
    assert await replica.services.schedules.turn(begin + late) == 1
    assert await ticks(sql) == [begin + n * HOUR for n in expected]
    assert await sql.fetchval("SELECT next_at FROM workflows") == begin + (late // HOUR + 1) * HOUR
    assert await replica.services.schedules.turn(begin + late) == 0


async def test_of_too_many_missed_ticks_the_newest_are_made_up_for(replica: Replica, sql: Any) -> None:
    await schedule(replica, "* * * * *", missed="all")
    begin = at("2016-06-01 00:00")
    await begin_at(sql, begin)
    now = begin + timedelta(days=3_000)
    await replica.services.schedules.turn(now)
    assert await ticks(sql) == [now - n * MINUTE for n in reversed(range(MOST_MISSED))]


async def test_a_paused_schedule_does_not_tick_and_goes_on_with_what_comes(replica: Replica, sql: Any) -> None:
    await schedule(replica, "* * * * *", missed="all")
    before = await sql.fetchval("SELECT next_at FROM workflows")
    await replica.services.workflows.pause(ROOT, "s")
    assert await sql.fetchval("SELECT next_at FROM workflows") is None
    assert await replica.services.schedules.turn(before + 10 * MINUTE) == 0
    await replica.services.workflows.resume(ROOT, "s")
    assert await sql.fetchval("SELECT next_at FROM workflows") in (before, before + MINUTE)
    await replica.services.schedules.turn(before + MINUTE)
    assert before - MINUTE not in await ticks(sql)


async def test_a_pause_outlives_a_new_version_and_ends_with_a_removal(replica: Replica, sql: Any) -> None:
    await schedule(replica, "* * * * *")
    await replica.services.workflows.pause(ROOT, "s")
    await schedule(replica, "*/5 * * * *")
    row = await sql.fetchrow("SELECT next_at, paused_at, paused_by, definition_version FROM workflows")
    assert (row["next_at"], row["paused_by"], row["definition_version"]) == (None, "user:root", 2)
    await replica.services.workflows.remove(ROOT, "s")
    await schedule(replica, "*/5 * * * *")
    row = await sql.fetchrow("SELECT next_at, paused_at, definition_version FROM workflows")
    assert row["next_at"] is not None and (row["paused_at"], row["definition_version"]) == (None, 3)


async def test_a_changed_cron_ticks_as_it_says_from_now_on(replica: Replica, sql: Any) -> None:
    await schedule(replica, "0 0 1 1 *")
    await schedule(replica, "0 0 29 2 *")
    expected = Cron.parse("0 0 29 2 *").next_after(datetime.now(UTC))
    assert await sql.fetchval("SELECT next_at FROM workflows") == expected
    await schedule(replica, "0 0 29 2 *", timezone="Asia/Tokyo")
    assert await sql.fetchval("SELECT next_at FROM workflows") == expected - 9 * HOUR


async def test_registering_again_what_has_not_changed_loses_no_tick(replica: Replica, sql: Any) -> None:
    """As at each start of a server: what was due while none ran still is."""
    begin = at("2026-06-01 00:00")
    await schedule(replica, "0 * * * *", missed="all")
    await begin_at(sql, begin)
    await schedule(replica, "0 * * * *", missed="all")
    assert await sql.fetchval("SELECT next_at FROM workflows") == begin + HOUR
    assert await sql.fetchval("SELECT definition_version FROM workflows") == 1
    await schedule(replica, "0 * * * *", missed="all", steps=[put("b", 2)])
    assert await sql.fetchval("SELECT next_at FROM workflows") == begin + HOUR
    await replica.services.schedules.turn(begin + 2 * HOUR)
    assert await ticks(sql) == [begin + HOUR, begin + 2 * HOUR]
    assert await sql.fetchval("SELECT max(definition_version) FROM workflow_runs") == 2


async def test_a_removed_workflow_ticks_no_more(replica: Replica, sql: Any) -> None:
    await schedule(replica, "* * * * *")
    await replica.services.workflows.remove(ROOT, "s")
    assert await replica.services.schedules.turn(datetime.now(UTC) + HOUR) == 0
    assert await ticks(sql) == []


async def test_one_bad_schedule_does_not_stop_the_others(make_replica: MakeReplica, sql: Any) -> None:
    first = await make_replica()
    for name in ("bad", "good"):
        await schedule(first, "0 * * * *", name=name)
    begin = at("2026-06-01 00:00")
    for name in ("bad", "good"):
        await begin_at(sql, begin, name)
    bad = "(SELECT id FROM workflows WHERE name = 'bad')"
    good = await sql.fetchval(f"SELECT source FROM workflow_definitions WHERE workflow_id = {bad}")
    await sql.execute(
        f"UPDATE workflow_definitions SET source = $1 WHERE workflow_id = {bad}", good.replace("0 * * * *", "0 * * *")
    )
    replica = await make_replica()  # one that has not read it before
    await replica.services.schedules.turn(begin + HOUR)
    assert (await ticks(sql, "bad"), await ticks(sql, "good")) == ([], [begin + HOUR])

    await sql.execute(f"UPDATE workflow_definitions SET source = $1 WHERE workflow_id = {bad}", good)
    assert await replica.services.schedules.turn(begin + HOUR + 30 * timedelta(seconds=1)) == 0
    await replica.services.schedules.turn(begin + 2 * HOUR)
    assert await ticks(sql, "bad") == [begin + 2 * HOUR], "it is looked at again"


async def test_a_run_that_cannot_go_on_is_not_in_the_clock_s_way(replica: Replica, sql: Any) -> None:
    await schedule(replica, "0 * * * *", name="bad", steps=[job("j", kind="{{ nothing }}")])
    await schedule(replica, "0 * * * *", name="good", steps=[job("j")])
    begin = at("2026-06-01 00:00")
    for name in ("bad", "good"):
        await begin_at(sql, begin, name)
    await replica.services.schedules.turn(begin + HOUR)
    await replica.settle()
    rows = await sql.fetch("SELECT workflow, status FROM workflow_runs ORDER BY workflow")
    assert [tuple(row) for row in rows] == [("bad", "Failed"), ("good", "Paused")]


async def test_a_tick_s_run_knows_its_tick(replica: Replica, sql: Any) -> None:
    await schedule(replica, "0 * * * *", steps=[put("a", "{{ schedule.tick }} {{ schedule.timezone }}")])
    await begin_at(sql, at("2026-06-01 00:00"))
    await replica.services.schedules.turn(at("2026-06-01 01:00"))
    await replica.settle()
    [row] = await sql.fetch("SELECT * FROM workflow_runs")
    assert orjson.loads(row["context"])["a"] == "2026-06-01T01:00:00Z UTC"
    assert (row["key"], row["actor"]) == ("tick:2026-06-01T01:00:00Z", "system:scheduler")
    assert orjson.loads(row["trigger"]) == {"kind": "schedule", "tick": "2026-06-01T01:00:00Z"}


async def test_a_schedule_that_was_moved_while_the_clock_was_ahead_goes_on(replica: Replica, sql: Any) -> None:
    await schedule(replica, "0 * * * *")
    expected = await sql.fetchval("SELECT next_at FROM workflows")
    await sql.execute("UPDATE workflows SET next_at = next_at + interval '365 days'")

    assert await replica.services.schedules.look_again() == 1

    moved = await sql.fetchval("SELECT next_at FROM workflows")
    assert moved in (expected, expected + HOUR)
    assert await replica.services.schedules.look_again() == 0
