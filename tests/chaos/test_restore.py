"""A dump that is made under load and restored into a younger PostgreSQL: all in it ends as it would have."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from atomo_gql.domain.actions import NewEvent
from atomo_gql.domain.events import Place
from atomo_gql.embedded.binaries import find_binaries, program
from atomo_gql.store import actions as store
from atomo_gql.store.database import Database
from tests.conftest import admin, until
from tests.parts import ROOT, replica_on

from .fleet import SEED, Fleet, all_together, check_streams
from .rig import Rig, a_folder

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

EVENTS = 10_000  # each tenth begins a run, two tenths fire bindings
BEFORE, MEANWHILE, AFTER = range(8_000), range(8_000, 9_000), range(9_000, EVENTS)
PARTS = [{"name": n, "action": {"Job": {"queue": "steps", "kind": n, "wait": True}}} for n in ("first", "second")]
FLOW = {
    "name": "welcome",
    "trigger": {"OnEvent": {"model": "Deal", "event_type": "created"}},
    "steps": [PARTS[0], {"name": "rest", "action": {"Delay": {"seconds": 2}}}, PARTS[1]],
}
TICKS = {
    "name": "ticks",
    "trigger": {"Schedule": {"cron": "* * * * *"}},
    "steps": [{"name": "a", "action": {"Delay": {"seconds": 0}}}],
}
ACTIONS = ("sync", "aside", "behind")
READ = """query ($after: String) { events(after: $after, first: 1000, streams: [JOB, MODEL]) {
    nodes { position version jobId: streamId } pageInfo { endCursor hasNextPage } } }"""
FOLLOW = "subscription ($after: String) { jobEvents(after: $after) { position version jobId } }"


def _event(number: int) -> dict[str, Any]:
    kind = {0: "created", 1: "updated", 2: "updated"}.get(number % 10, "deleted")
    return {"model": "Deal", "event": kind, "id": f"d{number % 997}", "eventId": f"e{number}", "data": {"n": number}}


def _work(job: Any) -> tuple[str, dict[str, Any]]:
    return "complete", {"result": 1}


class Reader:
    """Reads the log of one server after the other, and keeps its position."""

    def __init__(self, position: str) -> None:
        self.position = position
        self.seen: Counter[tuple[str, int]] = Counter()

    async def read(self, url: str) -> None:
        """All there is behind the position."""
        async with aiohttp.ClientSession(headers=admin()) as http:
            has_more = True
            while has_more:
                asked = {"query": READ, "variables": {"after": self.position}}
                async with http.post(f"{url}/graphql", json=asked) as answer:
                    page = (await answer.json())["data"]["events"]
                self.seen.update((node["jobId"], node["version"]) for node in page["nodes"])
                self.position = page["pageInfo"]["endCursor"] or self.position
                has_more = page["pageInfo"]["hasNextPage"]

    @contextlib.asynccontextmanager
    async def following(self, url: str) -> AsyncIterator[None]:
        """Subscribed to the events of jobs for the length of the block."""
        task = asyncio.create_task(self._follow(url))
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _follow(self, url: str) -> None:
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(f"{url}/graphql", protocols=["graphql-transport-ws"]) as socket,
        ):
            await socket.send_json({"type": "connection_init", "payload": {"authorization": admin()["Authorization"]}})
            await socket.send_json(
                {
                    "id": "1",
                    "type": "subscribe",
                    "payload": {"query": FOLLOW, "variables": {"after": self.position}},
                }
            )
            assert (await socket.receive_json())["type"] == "connection_ack"
            while True:
                frame = await socket.receive_json()
                event = frame["payload"]["data"]["jobEvents"]
                self.seen[event["jobId"], event["version"]] += 1
                self.position = event["position"]


async def _run(*command: object) -> None:
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()


async def _record(fleet: Fleet, numbers: range) -> None:
    async def record(http: aiohttp.ClientSession, n: int) -> None:
        await fleet.call(http, "/events", _event(numbers[n]), accepted=[201])

    await fleet.call_each(len(numbers), 32, record)


async def _record_in_lots(rig: Rig, numbers: range) -> None:
    """The same without HTTP, which is what takes the time."""
    async with replica_on(rig.dsn) as replica:
        record = replica.services.records.record
        for start in range(0, len(numbers), 500):
            lot = [_event(n) for n in numbers[start : start + 500]]
            await asyncio.gather(
                *(
                    record(
                        ROOT,
                        NewEvent(
                            model=e["model"], event=e["event"], entity_id=e["id"], event_id=e["eventId"], data=e["data"]
                        ),
                    )
                    for e in lot
                )
            )


async def _count(rig: Rig, query: str) -> int:
    async with rig.sql() as sql:
        count: int = await sql.fetchval(query)
        return count


async def _set_aside(rig: Rig, action: str, database: Database) -> str:
    """A binding that was set aside at the log's beginning; its id."""
    async with database.transaction() as connection:
        [binding] = [b for b in await store.bindings(connection, None) if b.what.action == action]
        await store.change(connection, [binding.id], None, "set_aside", "system:test", error="down", place=Place())
    return str(binding.id)


async def _load(fleet: Fleet, folder: Path, early: Reader, late: Reader) -> str:
    """A source under load, dumped; the id of the binding that stays set aside."""
    rig = fleet.rig
    async with rig.sql() as sql:
        await sql.execute("DO $$ BEGIN FOR i IN 1..20000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$")
    async with aiohttp.ClientSession(headers=admin()) as http:
        for action in ACTIONS:
            body = {"model": "Deal", "event": "updated", "action": action, "queue": "crm"}
            await fleet.call(http, "/actions", body, accepted=[201])
    database = Database(rig.dsn)
    await database.open()
    try:
        aside = await _set_aside(rig, "aside", database)
        await _record_in_lots(rig, BEFORE)
        behind = await _set_aside(rig, "behind", database)
    finally:
        await database.close()
    await early.read(rig.url)
    async with fleet.at_work(_work, "steps"), late.following(rig.url):
        async with aiohttp.ClientSession(headers=admin()) as http:
            await fleet.call(http, f"/actions/{behind}/resume", {}, accepted=[200])
        dump = _run(program(find_binaries(), "pg_dump"), "-n", "atomo", "-Fd", "-f", folder / "dump", rig.dsn)
        await all_together(_record(fleet, MEANWHILE), dump)
    return aside


async def test_what_is_dumped_under_load_ends_as_it_would_have_in_a_younger_cluster() -> None:
    dice = random.Random(SEED)
    early, late = Reader("0.0"), Reader("0.0")
    with a_folder() as folder, a_folder() as other:
        source = Rig(folder)
        source.write("workflows/flow.json", FLOW)
        source.write("workflows/ticks.json", TICKS)
        try:
            await source.start()
            aside = await _load(Fleet(source, ["server"], dice), folder, early, late)
        finally:
            await source.stop()

        target = Rig(other)
        try:
            await target.start_together([])
            await _run(program(find_binaries(), "pg_restore"), "-d", target.dsn, "-j", 2, folder / "dump")
            await _go_on(Fleet(target, ["server"], dice), aside, early, late)
        except TimeoutError:
            raise AssertionError(f"seed {SEED}: not all has ended\n{target.logs()}") from None
        finally:
            await target.stop()


async def _go_on(fleet: Fleet, aside: str, early: Reader, late: Reader) -> None:
    rig = fleet.rig
    async with rig.sql() as sql, rig.sql() as slow:
        running = await sql.fetchval("SELECT count(*) FROM workflow_runs WHERE finished_at IS NULL")
        kept = await sql.fetchval("SELECT max(xid::text::bigint) FROM events")
        # Applications are there before the service is; one is in a savepoint, and one does not commit for a while.
        enqueued = [await sql.fetchval("SELECT enqueue_job('early', 'early')")]
        async with sql.transaction():
            await sql.execute("SELECT pg_current_xact_id()")
            async with sql.transaction():
                enqueued.append(await sql.fetchval("SELECT enqueue_job('early', 'early')"))
        transaction = slow.transaction()
        await transaction.start()
        enqueued.append(await slow.fetchval("SELECT enqueue_job('early', 'early')"))
        await rig.start_server()
        await transaction.commit()
    assert running > 500, "the dump is to hold runs that are under way"
    early_seen, late_seen = set(early.seen), set(late.seen)
    early.seen.clear()
    late.seen.clear()
    async with fleet.at_work(_work, "steps"), late.following(rig.url):
        async with aiohttp.ClientSession(headers=admin()) as http:
            await fleet.call(http, f"/actions/{aside}/resume", {}, accepted=[200])
        await _record(fleet, AFTER)
        await until(lambda: _is_done(rig), within=120)
        async with rig.sql() as sql:
            jobs = {(str(r["id"]), r["version"]): r["xid"] for r in await sql.fetch(_JOB_EVENTS)}
        since = {event for event, xid in jobs.items() if xid > kept}
        await until(lambda: _are_seen(late, since), within=60)
    await early.read(rig.url)
    assert {(str(id_), 1) for id_ in enqueued} <= since
    assert since <= set(early.seen), "a reader that had stopped before the dump was told all that came after it"
    assert jobs.keys() <= early_seen | set(early.seen)
    assert jobs.keys() <= late_seen | set(late.seen)
    assert max(early.seen.values()) == 1, "and each event once"

    async with rig.sql() as sql:
        recorded = await sql.fetch("SELECT event_id FROM recorded_ids")
        events = [_event(int(row["event_id"][1:])) for row in recorded]
        assert {_event(n)["eventId"] for n in (*BEFORE, *AFTER)} <= {e["eventId"] for e in events}
        updated = {e["eventId"] for e in events if e["event"] == "updated"}
        created = {e["eventId"] for e in events if e["event"] == "created"}
        fired = await sql.fetch(
            "SELECT data ->> 'kind' AS action, data -> 'payload' ->> 'eventId' AS event FROM events "
            "WHERE type = 'enqueued' AND data ->> 'queue' = 'crm'"
        )
        assert Counter(map(tuple, fired)) == Counter({(a, e): 1 for a in ACTIONS for e in updated})
        runs = await sql.fetch(
            "SELECT trigger::json ->> 'eventId' AS event, status FROM workflow_runs WHERE workflow = 'welcome'"
        )
        assert Counter(map(tuple, runs)) == Counter({(e, "Completed"): 1 for e in created})
        steps = await sql.fetch("SELECT kind, count(*) FROM job_records WHERE queue = 'steps' GROUP BY kind")
        assert {row["kind"]: row["count"] for row in steps} == {"first": len(created), "second": len(created)}
        await check_streams(sql)
    await rig.command("rebuild", "--verify")


_JOB_EVENTS = "SELECT stream_id AS id, version, xid::text::bigint AS xid FROM events WHERE stream = 'Job'"


async def _are_seen(reader: Reader, wanted: set[tuple[str, int]]) -> bool:
    return wanted <= set(reader.seen)


async def _is_done(rig: Rig) -> bool:
    return not await _count(
        rig,
        """
        SELECT (SELECT count(*) FROM workflow_runs WHERE finished_at IS NULL) + (SELECT count(*) FROM leases)
            + (SELECT count(*) FROM bindings WHERE at_xid IS NOT NULL)
            + (SELECT count(*) FROM events AS e, checkpoints AS c
               WHERE e.stream = 'Model' AND (e.xid, e.position) > (c.xid::text::xid8, c.position))""",
    )
