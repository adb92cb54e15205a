"""What REST and GraphQL both can do has the same effect and the same code through either."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.conftest import Server, admin, bearer

ABSENT = "01900000-0000-7000-8000-000000000000"
Edge = Callable[..., Awaitable[tuple[str, Any]]]  # (server, verb, headers, fields) → (code, what came back)

_GRAPHQL = {
    "enqueue": """mutation ($queue: String!, $kind: String!, $payload: JSON, $idempotencyKey: String, $maxAttempts: Int,
        $priority: Int, $runAt: DateTime) { enqueueJob(queue: $queue, kind: $kind, payload: $payload,
        idempotencyKey: $idempotencyKey, maxAttempts: $maxAttempts, priority: $priority, runAt: $runAt) }""",
    "enqueue many": "mutation ($jobs: [EnqueueJobInput!]!) { enqueueJobs(jobs: $jobs) }",
    "get": "query ($id: ID!) { job(id: $id) { id queue kind status attempts maxAttempts error result tenantId } }",
    "mint": """mutation ($name: String!, $queues: [String!]!, $tenantId: String) {
        mintWorkerToken(name: $name, queues: $queues, tenantId: $tenantId) { id token name queues tenantId } }""",
    "list": "{ workerTokens { nodes { id name queues tenantId isRevoked } } }",
    "revoke": "mutation ($id: ID!) { revokeWorkerToken(id: $id) { id } }",
}
_REST = {
    "enqueue": ("POST", "/jobs"),
    "enqueue many": ("POST", "/jobs/batch"),
    "get": ("GET", "/jobs/{id}"),
    "mint": ("POST", "/jobs/workers"),
    "list": ("GET", "/jobs/workers"),
    "revoke": ("DELETE", "/jobs/workers/{id}"),
}


async def _rest(server: Server, verb: str, headers: dict[str, str], fields: dict[str, Any]) -> tuple[str, Any]:
    method, path = _REST[verb]
    body = {k: v for k, v in fields.items() if k != "id"} if method == "POST" else None
    status, answer = await server.call(method, path.replace("{id}", str(fields.get("id"))), body, headers=headers)
    if status >= 400:
        return answer["code"], answer["detail"]
    match verb:
        case "enqueue":
            return "OK", answer["id"]
        case "enqueue many":
            return "OK", [job["id"] for job in answer["jobs"]]
        case "list":
            keys = ("id", "name", "queues", "tenantId", "isRevoked")
            return "OK", sorted([{k: w[k] for k in keys} for w in answer["workers"]], key=lambda w: str(w["id"]))
        case "get":
            shown = ("id", "queue", "kind", "status", "attempts", "maxAttempts", "error", "result", "tenantId")
            return "OK", {k: answer[k] for k in shown}
        case _:
            return "OK", {k: answer[k] for k in ("name", "queues", "tenantId")} if answer else None


async def _graphql(server: Server, verb: str, headers: dict[str, str], fields: dict[str, Any]) -> tuple[str, Any]:
    body = {"query": _GRAPHQL[verb], "variables": fields}
    _, answer = await server.call("POST", "/graphql", body, headers=headers)
    if errors := answer.get("errors"):
        return errors[0]["extensions"]["code"], errors[0]["message"]
    [data] = answer["data"].values()
    match verb:
        case "list":
            return "OK", sorted(data["nodes"], key=lambda w: str(w["id"]))
        case "get":
            return ("OK", data | {"status": data["status"].lower()}) if data else ("NOT_FOUND", "")
        case "mint":
            return "OK", {k: data[k] for k in ("name", "queues", "tenantId")}
        case "revoke":
            return "OK", None
        case _:
            return "OK", data


JOB = {"queue": "q", "kind": "k"}
ACME, NOBODY = bearer(tenant_id="acme"), {"Authorization": "Bearer x"}
# (verb, who, fields): the same through both edges, code and words. Values whose types JSON and GraphQL check each in
# their own way (a number for a name) are in the tables of each.
SCENARIOS: list[tuple[str, dict[str, str], dict[str, Any]]] = [
    ("enqueue", bearer(), JOB),
    ("enqueue", bearer(), JOB | {"payload": {"a": [1, 2.5, None, "x"]}, "priority": 5, "maxAttempts": 1}),
    ("enqueue", bearer(), JOB | {"payload": None, "idempotencyKey": None, "maxAttempts": None, "runAt": None}),
    ("enqueue", bearer(), JOB | {"runAt": "2999-01-01T00:00:00+02:00"}),
    ("enqueue", bearer(), JOB | {"queue": ""}),
    ("enqueue", bearer(), JOB | {"queue": "*"}),
    ("enqueue", bearer(), JOB | {"kind": " "}),
    ("enqueue", bearer(), JOB | {"kind": "x" * 201}),
    ("enqueue", bearer(), JOB | {"kind": "a\u0000b"}),
    ("enqueue", bearer(), JOB | {"idempotencyKey": ""}),
    ("enqueue", bearer(), JOB | {"idempotencyKey": "x" * 513}),
    ("enqueue", bearer(), JOB | {"maxAttempts": 0}),
    ("enqueue", bearer(), JOB | {"maxAttempts": 1_001}),
    ("enqueue", bearer(), JOB | {"priority": 32_768}),
    ("enqueue", bearer(), JOB | {"priority": -32_768}),
    ("enqueue", bearer(), JOB | {"runAt": "2030-01-01T00:00:00"}),
    ("enqueue", bearer(), JOB | {"runAt": "9999-01-01T00:00:00Z"}),
    ("enqueue", bearer(), JOB | {"payload": "a\u0000b"}),
    ("enqueue", bearer(), JOB | {"payload": 2**64}),
    ("enqueue", bearer(), JOB | {"payload": "x" * 1_048_577}),
    ("enqueue", NOBODY, JOB),
    ("enqueue", bearer() | {"X-Tenant-ID": "acme"}, JOB),
    ("enqueue", ACME | {"X-Tenant-ID": "other"}, JOB),
    ("enqueue", admin() | {"X-Tenant-ID": "acme"}, JOB),
    ("enqueue many", bearer(), {"jobs": [JOB, JOB | {"payload": 5}]}),
    ("enqueue many", bearer(), {"jobs": []}),
    ("enqueue many", bearer(), {"jobs": [JOB] * 1_001}),
    ("enqueue many", bearer(), {"jobs": [JOB, JOB | {"queue": ""}]}),
    ("enqueue many", bearer(), {"jobs": [JOB, JOB | {"payload": {"deep": "\u0000"}}]}),
    ("get", bearer(), {"id": ABSENT}),
    ("get", NOBODY, {"id": ABSENT}),
    ("mint", admin(), {"name": "w", "queues": ["b", "a", "b"]}),
    ("mint", admin(), {"name": "w", "queues": ["q", "*"], "tenantId": "acme"}),
    ("mint", admin(tenant_id="acme"), {"name": "w", "queues": ["q"]}),
    ("mint", admin(tenant_id="acme"), {"name": "w", "queues": ["q"], "tenantId": "other"}),
    ("mint", admin(), {"name": "", "queues": ["q"]}),
    ("mint", admin(), {"name": "w", "queues": []}),
    ("mint", admin(), {"name": "w", "queues": ["q", ""]}),
    ("mint", admin(), {"name": "w", "queues": ["q"], "tenantId": ""}),
    ("mint", bearer(), {"name": "w", "queues": ["q"]}),
    ("list", admin(), {}),
    ("list", bearer(), {}),
    ("revoke", admin(), {"id": ABSENT}),
    ("revoke", bearer(), {"id": ABSENT}),
]


_TABLES = ("events", "job_records", "ready", "leases", "dead", "idempotency_keys", "worker_tokens", "lanes")


async def _effect(sql: Any) -> Any:
    """What is in the log, without ids and times."""
    rows = await sql.fetch("SELECT type::text, tenant, actor, data FROM events ORDER BY position")
    return [tuple(row) for row in rows]


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # aiohttp's own; the size is the point
async def test_the_same_effect_and_the_same_code(server: Server, sql: Any) -> None:
    for verb, headers, fields in SCENARIOS:
        found = []
        for edge in (_rest, _graphql):
            for table in _TABLES:  # TRUNCATE would lock them, and could wait in a ring with what the server reads
                await sql.execute(f"DELETE FROM {table}")
            code, told = await edge(server, verb, headers, fields)
            if verb.startswith("enqueue") and code == "OK":
                told = len(told) if isinstance(told, list) else "an id"
            if code == "PAYLOAD_TOO_LARGE" or (verb, code) == ("get", "NOT_FOUND"):
                told = ""  # of REST the body is too large, of GraphQL the value; and a job that is not there is null
            found.append((code, told, await _effect(sql)))
        assert found[0] == found[1], (verb, str(fields)[:200])


@pytest.mark.parametrize("edge", [_rest, _graphql])
async def test_a_job_and_a_token_look_the_same_through_either(server: Server, edge: Edge) -> None:
    worker = await server.mint("*", headers=admin(tenant_id="acme"))
    code, job_id = await edge(server, "enqueue", ACME, JOB | {"idempotencyKey": "once"})
    assert (code, await edge(server, "enqueue", ACME, JOB | {"idempotencyKey": "once"})) == ("OK", ("OK", job_id))
    [job] = await worker.lease("q")
    await worker.report("complete", job, result={"ok": True})
    seen = await edge(server, "get", ACME, {"id": job_id})
    assert seen == await _rest(server, "get", ACME, {"id": job_id})
    assert (await edge(server, "get", bearer(), {"id": job_id}))[0] == "NOT_FOUND"
    assert (await edge(server, "list", admin(), {}))[1] == (await _rest(server, "list", admin(), {}))[1]
    assert (await edge(server, "revoke", admin(tenant_id="other"), {"id": worker.token_id}))[0] == "NOT_FOUND"
    assert (await edge(server, "revoke", admin(), {"id": worker.token_id}))[0] == "OK"
    assert (await edge(server, "revoke", admin(), {"id": worker.token_id}))[0] == "NOT_FOUND"
    assert (await worker.call("/jobs/lease", {"queues": ["q"]}))[0] == 401
