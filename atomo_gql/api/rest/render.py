"""Domain objects as the JSON of the wire."""

from typing import Any
from uuid import UUID

import orjson

from atomo_gql.domain.jobs import Job, LeasedJob
from atomo_gql.domain.principals import WorkerToken
from atomo_gql.domain.reports import FailOutcome


def to_json(value: Any) -> bytes:
    """Encode, with times as RFC 3339 in UTC."""
    return orjson.dumps(value, default=_plain, option=orjson.OPT_UTC_Z)


def _plain(value: object) -> str:
    if isinstance(value, UUID):  # the driver's own kind of UUID
        return str(value)
    raise TypeError(f"{type(value).__name__} has no place in an answer")


def job(j: Job) -> dict[str, Any]:
    """A job for those who wait for it."""
    return {
        "id": j.id,
        "queue": j.queue,
        "kind": j.kind,
        "status": j.status,
        "priority": j.priority,
        "attempts": j.attempts,
        "deliveries": j.deliveries,
        "maxAttempts": j.max_attempts,
        "runAt": j.run_at,
        "timeoutSecs": j.timeout_secs,
        "deadline": j.deadline,
        "createdAt": j.created_at,
        "eligibleAt": j.eligible_at,
        "leasedAt": j.leased_at,
        "leaseExpiresAt": j.lease_expires_at,
        "finishedAt": j.finished_at,
        "idempotencyKey": j.idempotency_key,
        "tenantId": j.tenant,
        "progress": j.progress,
        "result": j.result,
        "error": j.error,
    }


def leased_job(j: LeasedJob) -> dict[str, Any]:
    """A job for the worker that has it."""
    return {
        "id": j.id,
        "queue": j.queue,
        "kind": j.kind,
        "payload": orjson.Fragment(j.payload),
        "attempts": j.attempt,
        "deliveries": j.deliveries,
        "maxAttempts": j.max_attempts,
        "leaseId": j.lease_id,
        "leaseExpiresAt": j.lease_expires_at,
        "timeoutSecs": j.timeout_secs,
        "deadline": j.deadline,
        "priority": j.priority,
        "createdAt": j.created_at,
        "traceparent": j.trace,
        "tenantId": j.tenant,
    }


def outcome(o: FailOutcome) -> dict[str, Any]:
    """What became of a job that failed."""
    return {"outcome": "dead"} if o.delay_secs is None else {"outcome": "retry", "delaySecs": o.delay_secs}


def worker_token(t: WorkerToken) -> dict[str, Any]:
    """A token, without its secret."""
    return {
        "id": t.id,
        "name": t.name,
        "queues": t.queues,
        "tenantId": t.tenant,
        "isRevoked": t.is_revoked,
        "createdAt": t.created_at,
        "createdBy": t.created_by,
        "revokedAt": t.revoked_at,
        "kinds": t.kinds,
        "expiresAt": t.expires_at,
        "lastUsedAt": t.last_used_at,
    }
