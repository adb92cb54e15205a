"""kill -9 of three replicas in turn while 10,000 events are recorded: each match is enqueued once, and in order."""

import json
import random
from collections import Counter, defaultdict
from typing import Any

import aiohttp
import pytest

from tests.conftest import admin, bearer, until

from .fleet import SEED, Fleet, a_fleet, all_together, check_streams, until_true
from .rig import Rig

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

EVENTS = 10_000
KILLS = 30
TENANTS = (None, "north", "south")
STAGES = ("open", "held", "won", "lost")

BINDINGS: list[dict[str, Any]] = [
    {"model": "Deal", "event": "updated", "action": "sync", "queue": "crm"},
    {"model": "Deal", "event": "updated", "action": "sync", "queue": "mirror"},
    {"model": "Deal", "event": "updated", "action": "sync", "queue": "crm", "condition": {"changedAny": ["stage"]}},
    {"model": "Deal", "event": "updated", "action": "moved", "queue": "crm", "condition": {"changedAny": ["stage"]}},
    {
        "model": "Deal",
        "event": "updated",
        "action": "won",
        "queue": "work",
        "input": ["stage"],
        "condition": {"changedAny": ["stage", "sum"], "fieldEquals": {"stage": "won", "is.big": True}},
    },
    {"model": "Deal", "event": "created", "action": "greet"},
    {"model": "Person", "event": "created", "action": "greet"},
    {"model": "Person", "event": "deleted", "action": "purge", "queue": "work"},
    {"model": "Job", "event": "succeeded", "action": "after won", "condition": {"fieldEquals": {"kind": "won"}}},
    {"model": "Job", "event": "created", "action": "seen", "condition": {"fieldEquals": {"kind": "won"}}},
    {"model": "Job", "event": "dead", "action": "mourn", "condition": {"fieldEquals": {"kind": "purge"}}},
]
NORTHERN = {"model": "Deal", "event": "created", "action": "north only"}
LATE = {"model": "Deal", "event": "updated", "action": "late", "queue": "crm"}
WELCOME = {
    "name": "welcome",
    "trigger": {"OnEvent": {"model": "Deal", "event_type": "created"}},
    "steps": [
        {
            "name": "say",
            "action": {"Job": {"queue": "actions", "kind": "welcome", "payload": {"eventId": "{{ event.eventId }}"}}},
        }
    ],
}


def work(job: Any) -> tuple[str, dict[str, Any]]:
    """Deals that are won are dealt with; nobody can be purged."""
    if job["kind"] == "won":
        return "complete", {"result": {"stage": job["payload"]["input"]["stage"]}}
    return "fail", {"error": "kept by law", "retryable": False}


class Recording:
    """Events made at random, and what of them was said when."""

    def __init__(self, fleet: Fleet, dice: random.Random) -> None:
        self._fleet = fleet
        self.events = {f"e{number}": _event(dice, number) for number in range(EVENTS)}
        self.tenants = {event_id: dice.choice(TENANTS) for event_id in self.events}
        self._accepted: set[str] = set()
        self.before_late: set[str] = set()  # were recorded before the late binding was
        self.after_late: set[str] = set()  # were not yet said when it had been registered
        self._is_late_bound = False

    async def record(self, http: aiohttp.ClientSession, number: int) -> None:
        """Event number so, in its tenant; said again, it is the same event."""
        await until_true(lambda: self._fleet.kills >= KILLS * number // EVENTS - 1)
        event_id = f"e{number}"
        if self._is_late_bound:
            self.after_late.add(event_id)
        headers = bearer(tenant_id=self.tenants[event_id])
        await self._fleet.call(http, "/events", self.events[event_id], accepted=[201], headers=headers)
        self._accepted.add(event_id)

    async def bind_late(self) -> None:
        """In the midst of it all, a binding for what comes after it."""
        await until_true(lambda: len(self._accepted) > EVENTS // 2)
        self.before_late = set(self._accepted)
        async with aiohttp.ClientSession(headers=admin()) as http:
            await self._fleet.call(http, "/actions", LATE, accepted=[201])
        self._is_late_bound = True

    def fires(self, event_id: str) -> set[tuple[str, str]]:
        """The queue and the action of each job that this event must make, the late binding's aside."""
        event = self.events[event_id]
        data, before = event["data"], event.get("previousData", {})
        has_moved = data.get("stage") != before.get("stage")
        found: set[tuple[str, str]] = set()
        match event["model"], event["event"]:
            case "Deal", "updated":
                found = {("crm", "sync"), ("mirror", "sync")}
                if has_moved:
                    found.add(("crm", "moved"))
                has_changed = has_moved or data.get("sum") != before.get("sum")
                if has_changed and data["stage"] == "won" and data["is"]["big"]:
                    found.add(("work", "won"))
            case "Deal", "created":
                found = {("actions", "greet"), ("actions", "welcome")}
                if self.tenants[event_id] == "north":
                    found.add(("actions", "north only"))
            case "Person", "created":
                found = {("actions", "greet")}
            case "Person", "deleted":
                found = {("work", "purge")}
        return {(queue, action) for queue, action in found if action != event.get("origin")}


def _event(dice: random.Random, number: int) -> dict[str, Any]:
    event = {
        "eventId": f"e{number}",
        "model": dice.choice(["Deal", "Deal", "Person", "Note"]),
        "event": dice.choice(["created", "updated", "updated", "updated", "deleted"]),
        "id": str(dice.randrange(20)),
        "data": {"stage": dice.choice(STAGES), "sum": dice.randrange(3), "is": {"big": dice.random() < 0.5}},
    }
    if event["event"] == "updated":
        event["previousData"] = {"stage": dice.choice(STAGES), "sum": dice.randrange(3)}
    if dice.random() < 0.1:
        event["origin"] = dice.choice(["sync", "greet", "somebody"])
    return event


async def test_replicas_killed_in_turn_enqueue_each_match_of_10_000_events_once_and_in_order() -> None:
    dice = random.Random(SEED)
    files = {"actions/bindings.json": BINDINGS, "workflows/welcome.json": WELCOME}
    async with a_fleet(["one", "two", "three"], files, dice) as fleet:
        recording = Recording(fleet, dice)
        async with aiohttp.ClientSession(headers=admin(tenant_id="north")) as http:
            await fleet.call(http, "/actions", NORTHERN, accepted=[201])
        async with fleet.at_work(work, "work"):
            await all_together(
                fleet.kill_in_turn(KILLS), fleet.call_each(EVENTS, 64, recording.record), recording.bind_late()
            )
            await _until_dispatched(fleet.rig)
        print(f"seed {SEED}: {fleet.kills} kills in {fleet.killed_secs:.0f} s")
        async with fleet.rig.sql() as sql:
            await _check(sql, recording)


async def _check(sql: Any, recording: Recording) -> None:
    recorded = await sql.fetch(
        "SELECT stream_id, version, tenant, data ->> 'eventId' AS id FROM events WHERE stream = 'Model'"
    )
    assert sorted(row["id"] for row in recorded) == sorted(recording.events)
    assert {row["id"]: row["tenant"] or None for row in recorded} == recording.tenants

    jobs = await sql.fetch(
        """
        SELECT j.id, j.tenant, j.queue, j.kind, e.data -> 'payload' AS payload
        FROM job_records AS j JOIN events AS e ON e.stream_id = j.id AND e.version = 1 ORDER BY j.id"""
    )
    fired: Counter[tuple[str, str, str]] = Counter()
    order: dict[Any, list[int]] = defaultdict(list)
    places = {row["id"]: (row["stream_id"], row["version"]) for row in recorded}
    chained: Counter[tuple[str, str]] = Counter()
    for job in jobs:
        payload = json.loads(job["payload"])
        if payload.get("model") == "Job":
            chained[job["kind"], payload["input"]["id"]] += 1
            continue
        event_id = payload["eventId"]
        fired[event_id, job["queue"], job["kind"]] += 1
        assert (job["tenant"] or None) == recording.tenants[event_id]
        stream, version = places[event_id]
        if job["kind"] != "welcome":  # the step of a run, which has a time of its own
            order[stream].append(version)
    late = {key for key in fired if key[2] == "late"}
    assert not {key[0] for key in late} & recording.before_late
    assert {key[0] for key in late} >= {i for i in recording.after_late if _is_for_late(recording.events[i])}
    assert all(_is_for_late(recording.events[key[0]]) for key in late)
    expected = {(event_id, *job) for event_id in recording.events for job in recording.fires(event_id)}
    assert fired == Counter(expected | late)
    assert all(versions == sorted(versions) for versions in order.values())

    ends = {(job["kind"], str(job["id"])) for job in jobs if job["kind"] in ("won", "purge")}
    after = {"won": ("after won", "seen"), "purge": ("mourn",)}
    assert chained == Counter((action, job_id) for kind, job_id in ends for action in after[kind])
    tenants = {str(job["id"]): job["tenant"] for job in jobs}
    for job in jobs:
        payload = json.loads(job["payload"])
        assert payload.get("model") != "Job" or job["tenant"] == tenants[payload["input"]["id"]]

    runs = await sql.fetch("SELECT trigger ->> 'eventId' AS event_id, tenant, status FROM workflow_runs ORDER BY id")
    order.clear()
    for run in runs:
        assert ((run["tenant"] or None), run["status"]) == (recording.tenants[run["event_id"]], "Completed")
        stream, version = places[run["event_id"]]
        order[stream].append(version)
    assert all(versions == sorted(set(versions)) for versions in order.values())
    assert (
        await sql.fetchval("SELECT count(*) FROM bindings WHERE removed_at IS NOT NULL OR set_aside_at IS NOT NULL")
        == 0
    )
    assert await sql.fetchval("SELECT count(*) FROM bindings") == len(BINDINGS) + 2
    await check_streams(sql)


def _is_for_late(event: dict[str, Any]) -> bool:
    return (event["model"], event["event"]) == ("Deal", "updated")


async def _until_dispatched(rig: Rig) -> None:
    """Wait until the dispatcher has seen all, the worker has done all, and no run has anything left to do."""

    async def all_done() -> bool:
        async with rig.sql() as sql:
            is_done: bool = await sql.fetchval(
                """
                SELECT NOT EXISTS (SELECT FROM events AS e, checkpoints AS c
                                   WHERE (e.xid, e.position) > (c.xid::text::xid8, c.position))
                    AND NOT EXISTS (SELECT FROM ready WHERE queue = 'work') AND NOT EXISTS (SELECT FROM leases)
                    AND NOT EXISTS (SELECT FROM workflow_runs WHERE finished_at IS NULL)"""
            )
            return is_done

    try:
        await until(all_done, within=240)
    except TimeoutError:
        raise AssertionError(f"seed {SEED}: not all was dispatched\n{rig.logs()}") from None
