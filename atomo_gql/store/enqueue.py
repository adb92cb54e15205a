"""`sql/queries/enqueue.sql`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from atomo_gql.store.columns import shared, sparse
from atomo_gql.store.database import Database
from atomo_gql.store.statements import statements


class EnqueueRow(NamedTuple):
    """A checked job with its payload encoded, ready to be written: the arguments of job_enqueue, in their order."""

    tenant: str
    queue: str
    kind: str
    payload: bytes
    key: str | None
    max_attempts: int
    priority: int
    run_at: datetime | None
    actor: str
    trace: str | None
    timeout_secs: int | None = None
    deadline: datetime | None = None
    run_id: UUID | None = None  # of the workflow's run that it is a step of
    via: tuple[str, ...] = ()  # the actions and workflows that led to it; the last of them made it


# Of these the statement takes one where all are the same; of the others none where all are null.
_NEVER_NULL = {"tenant", "queue", "kind", "max_attempts", "priority", "actor"}


class Enqueued(NamedTuple):
    """The id of a job, and whether this call made it."""

    id: UUID
    is_new: bool


async def enqueue(database: Database, rows: Sequence[EnqueueRow], *, connection: Any = None) -> list[Enqueued]:
    """Write these jobs in one transaction, or answer those that their idempotency keys name already.

    With `connection` (asyncpg, `search_path` on our schema) the jobs are part of its transaction.
    """
    places: dict[tuple[str, str, str], int] = {}
    unique: list[EnqueueRow] = []
    place_of: list[int] = []
    for row in rows:
        place = len(unique) if row.key is None else places.setdefault((row.tenant, row.queue, row.key), len(unique))
        if place == len(unique):
            unique.append(row)
        place_of.append(place)
    columns = list(zip(*unique, strict=True)) or [()] * len(EnqueueRow._fields)
    columns[-1] = tuple(orjson.dumps(via) if via else None for via in columns[-1])
    arguments = [
        shared(column) if field in _NEVER_NULL else sparse(column)
        for field, column in zip(EnqueueRow._fields, columns, strict=True)
    ]
    if connection is None:
        found = await database.dispatch("job_enqueue", *arguments)
    else:
        found = await connection.fetch(statements()["job_enqueue"].text, *arguments)
    first = [place not in place_of[:index] for index, place in enumerate(place_of)] if len(unique) < len(rows) else None
    return [
        Enqueued(found[place]["id"], found[place]["is_new"] and (first is None or first[index]))
        for index, place in enumerate(place_of)
    ]
