"""Events of an application's models, the bindings and workflows that they fire, and a schedule."""

import asyncio
import itertools
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from tests.conftest import admin, until

from .balancer import Balancer
from .turns import Turn

BINDINGS: list[dict[str, Any]] = [
    {"model": "Deal", "event": "updated", "action": "sync", "queue": "crm"},
    {"model": "Deal", "event": "updated", "action": "moved", "queue": "crm", "condition": {"changedAny": ["stage"]}},
    {"model": "Job", "event": "succeeded", "action": "after won", "condition": {"fieldEquals": {"kind": "won"}}},
]
_SAY = {"Job": {"queue": "actions", "kind": "welcome", "payload": {"eventId": "{{ event.eventId }}"}}}
WELCOME = {
    "name": "welcome",
    "trigger": {"OnEvent": {"model": "Deal", "event_type": "created"}},
    "steps": [{"name": "say", "action": _SAY}],
}
EVERY_MINUTE = {
    "name": "every minute",
    "trigger": {"Schedule": {"cron": "* * * * *", "missed": "all"}},
    "steps": [{"name": "note", "action": {"SetVariable": {"key": "tick", "value": "{{ schedule.tick }}"}}}],
}
FILES = {"actions/bindings.json": BINDINGS, "workflows/upgrade.json": [WELCOME, EVERY_MINUTE]}
"""What the servers of both versions read when they start."""

_JOB = "SELECT EXISTS (SELECT FROM job_records WHERE kind = $1)"


class Recording:
    """Records events, and knows what must come of them."""

    def __init__(self, balancer: Balancer, dice: Random) -> None:
        self._balancer = balancer
        self._dice = dice
        self._numbers = itertools.count(1)
        self._expected: Counter[tuple[str, str]] = Counter()  # jobs, by the event's id and their kind
        self._began: datetime | None = None

    def turns(self) -> list[Turn]:
        """What applications record, and bindings that come and go."""
        return [
            Turn("record an event", self._record, loops=2),
            Turn("bind and unbind", self._bind, 1),
        ]

    def begin(self) -> None:
        """The schedule runs: a server has read it."""
        self._began = datetime.now(UTC)

    async def _record(self) -> None:
        event_id = f"e{next(self._numbers)}"
        event: dict[str, Any] = {"eventId": event_id, "model": "Deal", "id": str(self._dice.randrange(20))}
        if self._dice.random() < 0.3:
            event |= {"event": "created", "data": {"stage": "open"}}
            fires = ["welcome"]
        else:
            stages = [self._dice.choice(["open", "won"]) for _ in range(2)]
            event |= {"event": "updated", "data": {"stage": stages[0]}, "previousData": {"stage": stages[1]}}
            fires = ["sync", "moved"] if stages[0] != stages[1] else ["sync"]
        await self._balancer.ask("record an event", "POST", "/events", event, accepted=[201])
        self._expected.update((event_id, kind) for kind in fires)

    async def _bind(self) -> None:
        """A binding that one server has registered fires on what another one records after it."""
        kind, number = "bind and unbind", next(self._numbers)
        action, event_id = f"of {number}", f"e{number}"
        binding = {"model": f"Model{number}", "event": "created", "action": action}
        made = await self._balancer.ask(kind, "POST", "/actions", binding, accepted=[201], headers=admin())
        event = {"eventId": event_id, "model": f"Model{number}", "event": "created", "id": "1", "data": {}}
        await self._balancer.ask(kind, "POST", "/events", event, accepted=[201])
        self._expected[event_id, action] += 1

        async def fired() -> bool:
            await asyncio.sleep(0.1)  # each look is a new connection
            async with self._balancer.rig.sql() as sql:
                return bool(await sql.fetchval(_JOB, action))

        await until(fired, within=30)
        await self._balancer.ask(kind, "DELETE", f"/actions/{made.data['id']}", accepted=[204], headers=admin())

    async def check(self, sql: Any, fates: dict[str, str], ended: datetime) -> None:
        """Each match has made one job, each job that was won another, and each minute one run."""
        rows = await sql.fetch(
            """
            SELECT j.kind, e.data -> 'payload' AS payload FROM job_records AS j
            JOIN events AS e ON e.stream_id = j.id AND e.version = 1 WHERE j.queue IN ('crm', 'actions')"""
        )
        payloads = [(row["kind"], json.loads(row["payload"])) for row in rows]
        fired = Counter((payload["eventId"], kind) for kind, payload in payloads if kind != "after won")
        assert fired == self._expected
        after = Counter(payload["input"]["id"] for kind, payload in payloads if kind == "after won")
        assert after == Counter(job_id for job_id, fate in fates.items() if fate == "won")
        statuses = await sql.fetch("SELECT DISTINCT status FROM workflow_runs WHERE workflow = 'welcome'")
        assert [row["status"] for row in statuses] == ["Completed"]
        runs = await sql.fetch("SELECT trigger ->> 'tick' AS tick FROM workflow_runs WHERE workflow = 'every minute'")
        ticks = Counter(datetime.fromisoformat(run["tick"]) for run in runs)
        assert set(ticks.values()) <= {1}, ticks
        assert self._began
        minute = self._began.replace(second=0, microsecond=0) + timedelta(minutes=1)
        while minute < ended - timedelta(seconds=10):
            assert ticks[minute] == 1, f"no run for {minute}: {ticks}"
            minute += timedelta(minutes=1)
