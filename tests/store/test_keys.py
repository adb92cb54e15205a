"""A batch in which some jobs have idempotency keys, and some of those are there already."""

import random
from typing import Any

from atomo_gql.store import enqueue
from atomo_gql.store.database import Database
from tests.store.test_projection import row

_SIGNS = ['"', "\\", "\x1f", "é", "𝄞", "a", "A", " ", "\n", "'", "{"]


async def test_each_key_is_one_job_and_answers_come_in_order(database: Database, sql: Any) -> None:
    """Whatever is in the key, however many tenants and queues have it."""
    chance = random.Random(7)
    ids: dict[tuple[str, str, str], Any] = {}
    for count in (1, 2, 16, 500, 1_000):
        asked = [
            row(
                chance.choice(("q", "q r", 'q"')),
                tenant=chance.choice(("", "t", "tt")),
                key=None if chance.random() < 0.3 else "".join(chance.choices(_SIGNS, k=chance.randrange(1, 4))),
            )
            for _ in range(count)
        ]
        made = await enqueue.enqueue(database, asked)
        for wanted, got in zip(asked, made, strict=True):
            is_known = (wanted.tenant, wanted.queue, wanted.key) in ids
            assert got.is_new != is_known
            if wanted.key is not None:
                assert ids.setdefault((wanted.tenant, wanted.queue, wanted.key), got.id) == got.id
        jobs = {job["id"]: job for job in await sql.fetch("SELECT * FROM job_records")}
        assert [(jobs[got.id]["tenant"], jobs[got.id]["queue"], jobs[got.id]["idempotency_key"]) for got in made] == [
            (wanted.tenant, wanted.queue, wanted.key) for wanted in asked
        ]
        new = [got.id for got in made if got.is_new]
        written = await sql.fetch("SELECT stream_id FROM events WHERE stream_id = ANY ($1) ORDER BY position", new)
        assert [event["stream_id"] for event in written] == new
