"""Rows to domain objects: names in SQL are the names in Python."""

from typing import Any

from atomo_gql.domain.events import Event, EventType, Stream
from atomo_gql.domain.jobs import Job, JobStatus
from atomo_gql.domain.principals import WorkerToken


def job(row: Any) -> Job:
    """A row of the view `jobs`, with or without its result."""
    return Job(
        id=row["id"],
        tenant=row["tenant"] or None,
        queue=row["queue"],
        kind=row["kind"],
        status=JobStatus(row["status"]),
        priority=row["priority"],
        attempts=row["attempts"],
        deliveries=row["deliveries"],
        max_attempts=row["max_attempts"],
        run_at=row["run_at"],
        created_at=row["created_at"],
        eligible_at=row["eligible_at"],
        leased_at=row["leased_at"],
        lease_id=row["lease_id"],
        lease_expires_at=row["lease_expires_at"],
        worker_id=row["worker_id"],
        finished_at=row["finished_at"],
        version=row["version"],
        idempotency_key=row["idempotency_key"],
        timeout_secs=row["timeout_secs"],
        deadline=row["deadline"],
        error=row["error"],
        run_id=row["run_id"],
        result=row.get("result"),
        progress=row["progress"],
    )


def event(row: Any) -> Event:
    """A row of `events`."""
    return Event(
        stream_id=row["stream_id"],
        version=row["version"],
        position=row["position"],
        xid=row["xid"],
        at=row["at"],
        stream=Stream(row["stream"]),
        type=EventType(row["type"]),
        tenant=row["tenant"] or None,
        actor=row["actor"],
        trace=row["trace"],
        data=row["data"],
        size=row.get("size") or 0,
        queue=row.get("queue"),
        kind=row.get("kind"),
    )


def worker_token(row: Any) -> WorkerToken:
    """A row of `worker_tokens`."""
    return WorkerToken(
        id=row["id"],
        name=row["name"],
        queues=tuple(row["queues"]),
        tenant=row["tenant"] or None,
        created_at=row["created_at"],
        created_by=row["created_by"],
        revoked_at=row["revoked_at"],
        kinds=None if row["kinds"] is None else tuple(row["kinds"]),
        expires_at=row["expires_at"],
        last_used_at=row["last_used_at"],
    )
