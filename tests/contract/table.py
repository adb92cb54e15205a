"""The table of the REST routes, written by hand: what the product's own table is held against."""

import json
from dataclasses import dataclass
from typing import Any

from tests.conftest import Server, WorkerClient, admin, bearer
from tests.openapi import PROBLEM, Answer

CODES = {
    400: "BAD_USER_INPUT",
    401: "UNAUTHENTICATED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    409: "LEASE_LOST",
    413: "PAYLOAD_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    429: "TOO_MANY_REQUESTS",
    503: "UNAVAILABLE",
}
_TABLES = (
    *("events", "job_records", "ready", "leases", "dead", "idempotency_keys", "lease_requests"),
    *("workflows", "workflow_definitions", "workflow_runs", "run_waits", "bindings", "model_streams", "recorded_ids"),
)
# A row that was written or changed has the newest xmin of its table; one that went is missing from the count.
_STATE = " UNION ALL ".join(
    f"SELECT '{table}' AS name, count(*) AS rows, max(xmin::text::bigint) AS newest FROM {table}" for table in _TABLES
)
_STATE += (  # but for last_used_at, which is noted now and then
    " UNION ALL SELECT 'worker_tokens', count(*), sum(hashtext(concat(id, revoked_at, expires_at))) FROM worker_tokens"
)


def _keys(text: str) -> frozenset[str]:
    return frozenset(text.split())


JOB = _keys(
    "id queue kind status priority attempts deliveries maxAttempts runAt timeoutSecs deadline"
    " createdAt eligibleAt leasedAt leaseExpiresAt finishedAt idempotencyKey tenantId progress result error"
    " runId"
)
LEASED = _keys(
    "id queue kind payload attempts deliveries maxAttempts leaseId leaseExpiresAt timeoutSecs deadline priority"
    " createdAt traceparent tenantId"
)
TOKEN = _keys("id name queues tenantId isRevoked createdAt createdBy revokedAt kinds expiresAt lastUsedAt")
WORKFLOW = _keys(
    "id name description definitionVersion tenantId trigger definition isPaused pausedAt pausedBy nextAt nextTicks"
    " registeredAt registeredBy sourceFile"
)
RUN_LINE = _keys("id workflow status steps_run errors definitionVersion tenantId trigger startedAt finishedAt")
RUN = RUN_LINE | {"context", "steps"}
STEP = _keys("name status attempt jobId until error beganAt endedAt")
BINDING = _keys(
    "id model event action queue condition input tenantId isSetAside setAsideAt error registeredAt registeredBy"
    " sourceFile"
)


@dataclass(frozen=True)
class Row:
    """One method of one path."""

    method: str
    path: str
    plane: str
    status: int
    keys: frozenset[str] | None = None  # of the answer's object; None: it is not one
    fields: frozenset[str] | None = None  # that a body must have; None: it takes none
    is_free: bool = False  # the body has no fixed shape; the service knows what it may be
    is_optional: bool = False  # no body is {}

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


_REPORT = _keys("leaseId")
TABLE = [
    Row("POST", "/jobs", "app", 201, _keys("id"), _keys("queue kind")),
    Row("POST", "/jobs/batch", "app", 201, _keys("jobs"), _keys("jobs")),
    Row("GET", "/jobs/{id}", "app", 200, JOB),
    Row("POST", "/jobs/lease", "worker", 200, _keys("jobs"), _keys("queues")),
    Row("POST", "/jobs/reports", "worker", 200, _keys("outcomes"), _keys("reports")),
    Row("POST", "/jobs/{id}/heartbeat", "worker", 204, None, _REPORT),
    Row("POST", "/jobs/{id}/progress", "worker", 204, None, _REPORT),
    Row("POST", "/jobs/{id}/complete", "worker", 204, None, _REPORT),
    Row("POST", "/jobs/{id}/fail", "worker", 200, _keys("outcome delaySecs"), _REPORT),
    Row("POST", "/jobs/{id}/release", "worker", 204, None, _REPORT),
    Row("POST", "/jobs/workers", "admin", 201, TOKEN | {"token"}, _keys("name queues")),
    Row("GET", "/jobs/workers", "admin", 200, _keys("workers")),
    Row("POST", "/jobs/workers/{id}/rotate", "admin", 201, TOKEN | {"token"}, _keys("")),
    Row("DELETE", "/jobs/workers/{id}", "admin", 204),
    Row("GET", "/workflows", "app", 200, _keys("workflows")),
    Row("POST", "/workflows", "admin", 201, WORKFLOW, _keys("name steps"), is_free=True),
    Row("GET", "/workflows/{name}", "app", 200, WORKFLOW),
    Row("POST", "/workflows/{name}/run", "app", 200, RUN, _keys(""), is_free=True, is_optional=True),
    Row("POST", "/workflows/{name}/pause", "admin", 200, WORKFLOW),
    Row("POST", "/workflows/{name}/resume", "admin", 200, WORKFLOW),
    Row("GET", "/workflows/runs", "app", 200, _keys("runs hasMore")),
    Row("GET", "/workflows/runs/{id}", "app", 200, RUN),
    Row("POST", "/workflows/runs/{id}/cancel", "app", 200, RUN, _keys(""), is_optional=True),
    Row("POST", "/workflows/runs/{id}/retry", "app", 200, RUN),
    Row("POST", "/events", "app", 201, _keys("eventId isNew"), _keys("model event id data")),
    Row("GET", "/actions", "app", 200, _keys("bindings")),
    Row("POST", "/actions", "admin", 201, BINDING, _keys("model event action"), is_free=True),
    Row("POST", "/actions/{id}/resume", "admin", 200, BINDING, _keys(""), is_optional=True),
    Row("DELETE", "/workflows/{name}", "admin", 204),
    Row("DELETE", "/actions/{id}", "admin", 204),
    Row("GET", "/healthz", "open", 200, _keys("status")),
    Row("GET", "/readyz", "open", 200, _keys("status")),
    Row("GET", "/metrics", "open", 200),
    Row("GET", "/openapi.json", "open", 200, _keys("openapi info paths components")),
]
CLOSED = [row for row in TABLE if row.plane != "open"]
WITH_BODY = [row for row in TABLE if row.fields is not None]
SHAPED = [row for row in WITH_BODY if not row.is_free]
REPORTS = [row for row in TABLE if row.fields == _REPORT]
METHODS: dict[str, set[str]] = {}
for _row in TABLE:
    METHODS.setdefault(_row.path, set()).update({"GET", "HEAD"} if _row.method == "GET" else {_row.method})


def line(method: str, path: str) -> Row:
    """That line of the table."""
    return next(row for row in TABLE if (row.method, row.path) == (method, path))


@dataclass
class World:
    """A server where every call of the table would succeed: a job under way, one that waits, a token to revoke."""

    server: Server
    sql: Any
    worker: WorkerClient
    spare: WorkerClient
    queue: str
    job: Any
    waiting: str
    workflow: str = ""  # that events begin
    run: str = ""  # of it, parked
    binding: str = ""  # that was set aside

    def headers(self, row: Row) -> dict[str, str]:
        """The credential of a row's plane."""
        return {"app": bearer(), "admin": admin(), "worker": {"X-Worker-Token": self.worker.token}, "open": {}}[
            row.plane
        ]

    def path(self, row: Row) -> str:
        """The row's path, for the thing that it is about."""
        return self.fill(row.path)

    def fill(self, path: str) -> str:
        """A path of the table, for the things of this world."""
        ids = {"/jobs/workers": self.spare.token_id, "/workflows/runs": self.run, "/actions": self.binding}
        ids["/jobs"] = self.job["id"]
        id_ = next((id_ for start, id_ in ids.items() if path.startswith(start)), "")
        return path.replace("{id}", id_).replace("{name}", self.workflow)

    def body(self, row: Row) -> dict[str, Any] | None:
        """The least that the row takes."""
        if row.fields is None:
            return None
        fitting = {
            "queue": self.queue,
            "kind": "k",
            "jobs": [{"queue": self.queue, "kind": "k"}],
            "queues": [self.queue],
            "leaseId": self.job["leaseId"],
            "name": "n",
            "steps": [{"name": "s", "action": {"SetVariable": {"key": "k", "value": 1}}}],
            "model": "Deal",
            "event": "created",
            "id": "7",
            "data": {"stage": "won"},
            "action": "deal.notify",
            "reports": [{"type": "heartbeat", "id": self.job["id"], "leaseId": self.job["leaseId"]}],
        }
        return {field: fitting[field] for field in row.fields}

    async def ask(self, row: Row, *, on: Server | None = None, **other: Any) -> Answer:
        """The row's call, in order but for what is named: method, path, headers, data (raw), fields of the body."""
        method, path = other.pop("method", row.method), other.pop("path", self.path(row))
        headers: dict[str, str] = other.pop("headers", self.headers(row))
        if row.fields is not None and "data" not in other:
            other = {"data": json.dumps({**(self.body(row) or {}), **other})}
        if "data" in other:
            headers = {"Content-Type": "application/json", **headers}
        return await (on or self.server).ask(method, path, headers=headers, **other)

    async def state(self) -> list[tuple[Any, ...]]:
        """Everything that a refused call must leave as it was."""
        return [tuple(row) for row in await self.sql.fetch(_STATE)]

    async def refuse(self, row: Row, status: int, **other: Any) -> Answer:
        """The row's call, which must be refused with that status and change nothing."""
        before = await self.state()
        answer = refused(await self.ask(row, **other), status)
        after = await self.state()
        assert after == before, f"{row} was refused, and changed something: {before} → {after}"
        return answer


def refused(answer: Answer, status: int) -> Answer:
    """An answer that must be a problem of that status."""
    assert answer.status == status, f"{answer.status}, not {status}: {answer.body}"
    assert answer.headers["Content-Type"] == PROBLEM
    body = answer.body
    assert set(body) - {"field", "ended"} == {"type", "status", "title", "detail", "code"}
    assert (body["status"], body["code"]) == (status, CODES[status])
    assert body["title"]
    assert body["detail"]
    return answer
