"""Jobs by every door, and a book of those that were acknowledged."""

import asyncio
import itertools
import json
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import asyncpg

from .balancer import Answer, Balancer
from .turns import Turn

QUEUE = "load"
FATES = ("complete", "complete", "complete", "progress", "listed", "fail once", "die", "release once", "won")
"""What the worker does with a job: it is the job's kind. One that dies ends as dead, the others succeed."""
_ONE = "mutation ($q: String!, $k: String!, $p: JSON) { enqueueJob(queue: $q, kind: $k, payload: $p, maxAttempts: 20) }"
_MANY = "mutation ($jobs: [EnqueueJobInput!]!) { enqueueJobs(jobs: $jobs) }"
_SQL = "SELECT atomo.enqueue_job($1, $2, $3, max_attempts => 20)"


class Enqueuing:
    """Makes jobs. Each has a number in its payload that no other has."""

    def __init__(self, balancer: Balancer, dice: Random) -> None:
        self._balancer = balancer
        self._dice = dice
        self._numbers = itertools.count(1)
        self._connection: Any = None
        self.fates: dict[str, str] = {}  # of those that were acknowledged, by id

    def turns(self) -> list[Turn]:
        """Every door."""
        return [
            Turn("enqueue by REST", self._by_rest, loops=3),
            Turn("enqueue by GraphQL", self._by_graphql),
            Turn("enqueue a batch by REST", self._batch_by_rest, 0.3),
            Turn("enqueue a batch by GraphQL", self._batch_by_graphql, 0.3),
            Turn("enqueue with a key", self._with_a_key, 0.2),
            Turn("enqueue for later", self._for_later, 0.3),
            Turn("enqueue by SQL", self._by_sql, 0.05),
        ]

    def job(self, fate: str | None = None, **more: Any) -> dict[str, Any]:
        """The body of a request for a new job."""
        fate = fate or self._dice.choice(FATES)
        return {"queue": QUEUE, "kind": fate, "payload": {"n": next(self._numbers)}, "maxAttempts": 20, **more}

    async def enqueue(self, body: dict[str, Any], kind: str = "enqueue by REST") -> str:
        """The id of a new job."""
        answer = await self._balancer.ask(kind, "POST", "/jobs", body, accepted=[201])
        return self._note(answer.data["id"], body)

    async def close(self) -> None:
        """The connection of the application that enqueues by SQL."""
        if self._connection:
            await self._connection.close()

    def _note(self, job_id: str, body: dict[str, Any]) -> str:
        self.fates[job_id] = body["kind"]
        return job_id

    async def _by_rest(self) -> None:
        await self.enqueue(self.job())

    async def _by_graphql(self) -> None:
        body = self.job()
        variables = {"q": body["queue"], "k": body["kind"], "p": body["payload"]}
        self._note((await self._balancer.graphql("enqueue by GraphQL", _ONE, variables))["enqueueJob"], body)

    async def _batch_by_rest(self) -> None:
        bodies = [self.job() for _ in range(5)]
        answer = await self._balancer.ask(
            "enqueue a batch by REST", "POST", "/jobs/batch", {"jobs": bodies}, accepted=[201]
        )
        for made, body in zip(answer.data["jobs"], bodies, strict=True):
            self._note(made["id"], body)

    async def _batch_by_graphql(self) -> None:
        bodies = [self.job() for _ in range(5)]
        made = await self._balancer.graphql("enqueue a batch by GraphQL", _MANY, {"jobs": bodies})
        for job_id, body in zip(made["enqueueJobs"], bodies, strict=True):
            self._note(job_id, body)

    async def _with_a_key(self) -> None:
        body = self.job()
        body["idempotencyKey"] = f"key {body['payload']['n']}"

        async def once() -> Answer:
            return await self._balancer.ask("enqueue with a key", "POST", "/jobs", body, accepted=[201])

        both = await asyncio.gather(once(), once())  # each at another server, where there are two
        [job_id] = {answer.data["id"] for answer in both}
        self._note(job_id, body)

    async def _for_later(self) -> None:
        run_at = datetime.now(UTC) + timedelta(seconds=2)
        await self.enqueue(self.job(runAt=run_at.isoformat()), "enqueue for later")

    async def _by_sql(self) -> None:
        """As an application does within its own transaction: no server takes part."""
        if self._connection is None:
            self._connection = await asyncpg.connect(self._balancer.rig.dsn)
        body = self.job()
        began = time.monotonic()
        async with self._connection.transaction():
            made = await self._connection.fetchval(_SQL, QUEUE, body["kind"], json.dumps(body["payload"]))
        self._balancer.step.took("enqueue by SQL", time.monotonic() - began)
        self._note(str(made), body)

    async def check(self, sql: Any) -> None:
        """Each that was acknowledged is there, once, and has ended as it must; there is no other."""
        rows = await sql.fetch("SELECT id::text, kind, status FROM jobs WHERE queue = $1", QUEUE)
        ends = {fate: "dead" if fate == "die" else "succeeded" for fate in FATES}
        found = {row["id"]: (row["kind"], row["status"]) for row in rows}
        expected = {job_id: (fate, ends[fate]) for job_id, fate in self.fates.items()}
        assert _differences(found, expected) == {}
        events = await sql.fetch(
            """
            SELECT j.kind, (e.data -> 'payload' ->> 'n')::integer AS n,
                (SELECT array_agg(o.type::text ORDER BY o.version) FROM events AS o WHERE o.stream_id = j.id) AS types
            FROM job_records AS j JOIN events AS e ON e.stream_id = j.id AND e.version = 1 WHERE j.queue = $1""",
            QUEUE,
        )
        numbers = Counter(row["n"] for row in events)
        assert {n: count for n, count in numbers.items() if count > 1} == {}, "a call made two jobs"
        lives = {
            "fail once": ["enqueued", "leased", "failed", "leased", "succeeded"],
            "die": ["enqueued", "leased", "dead"],
            "release once": ["enqueued", "leased", "released", "leased", "succeeded"],
        }
        usual = ["enqueued", "leased", "succeeded"]
        odd = Counter(
            f"{row['kind']}: {', '.join(row['types'])}"
            for row in events
            if row["types"] != lives.get(row["kind"], usual)
        )
        assert odd == {}, "no worker has died, so no lease may have run out"


def _differences(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """By id: what is there, and what should be."""
    ids = [job_id for job_id in found.keys() | expected.keys() if found.get(job_id) != expected.get(job_id)]
    return {job_id: (found.get(job_id), expected.get(job_id)) for job_id in ids[:10]}
