"""However a job is enqueued, it is the same job: the same rows, the same event, the same tenant, and once."""

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import orjson
import pytest

from atomo_gql.domain.actions import NewEvent
from atomo_gql.store import JobStore
from tests.conftest import Server, bearer, until
from tests.parts import ROOT, of

ACME, HEADERS = of("acme"), bearer("alice", tenant_id="acme")
KEY = "e-1:act"
PAYLOAD = {
    "action": "act",
    "model": "deal",
    "event": "updated",
    "eventId": "e-1",
    "input": {"n": [1, 2.5, None, {"deep": "ü"}]},
    "actor": "user:alice",
    "timestamp": "AT",  # an action's job has its event's
    "origin": None,
}
JOB = {"queue": "work", "kind": "act", "payload": PAYLOAD, "idempotencyKey": KEY}
Way = Callable[[Server, Any], Awaitable[Any]]


async def by_rest(server: Server, _: Any) -> None:
    """POST /jobs."""
    assert (await server.call("POST", "/jobs", JOB, headers=HEADERS))[0] == 201


async def by_graphql(server: Server, _: Any) -> None:
    """The mutation enqueueJob."""
    mutation = """mutation ($queue: String!, $kind: String!, $payload: JSON, $idempotencyKey: String) {
        enqueueJob(queue: $queue, kind: $kind, payload: $payload, idempotencyKey: $idempotencyKey) }"""
    assert "errors" not in await server.graphql(mutation, JOB, headers=HEADERS)


async def by_a_step(server: Server, _: Any) -> None:
    """A step of a workflow; each call is another run."""
    services = server.application.services
    fields = {"queue": "work", "kind": "act", "payload": {**PAYLOAD, "input": "{{ n }}"}, "idempotency_key": KEY}
    source = {"name": "w", "steps": [{"name": "s", "action": {"Job": fields}}]}
    await services.workflows.register(ROOT, source)
    run = await services.runs.start(ACME, "w", {"n": PAYLOAD["input"]})
    assert run.status == "Completed"


async def by_an_action(server: Server, sql: Any) -> None:
    """An action that an event fires; each call records that event, and another binding fires on it, too."""
    services = server.application.services
    for condition in (None, {"changedAny": ["n"]}):  # two bindings that match are one job
        binding = {"model": "deal", "event": "updated", "action": "act", "queue": "work", "condition": condition}
        await services.bindings.register(ROOT, binding)
    await services.records.record(
        ACME, NewEvent(model="deal", event="updated", entity_id="d", data=PAYLOAD["input"], event_id="e-1")
    )
    await until(lambda: sql.fetchval("SELECT count(*) FROM job_records"))
    await until(lambda: _seen_all(server))


async def _seen_all(server: Server) -> bool:
    return await server.application.services.dispatcher.look() == 0


async def by_the_store(server: Server, _: Any) -> None:
    """JobStore, in a transaction of the application."""
    connection = await asyncpg.connect(server.dsn)
    async with connection.transaction():
        await JobStore().enqueue("work", "act", PAYLOAD, KEY, tenant_id="acme", connection=connection)
    await connection.close()


async def by_sql(server: Server, sql: Any) -> None:
    """The function, from any session."""
    await sql.fetchval(
        "SELECT atomo.enqueue_job('work', 'act', $1::text::jsonb, idempotency_key => $2, tenant_id => 'acme')",
        orjson.dumps(PAYLOAD).decode(),
        KEY,
    )


# All in which they may differ: who did it, and what it comes of.
WAYS: dict[str, tuple[Way, str, dict[str, Any]]] = {
    "REST": (by_rest, "user:alice", {}),
    "GraphQL": (by_graphql, "user:alice", {}),
    "a step of a workflow": (
        by_a_step,
        "system:workflows",
        {"origin": "workflow:w", "via": ["workflow:w"], "runId": "RUN"},
    ),
    "an action": (by_an_action, "system:actions", {"origin": "act", "via": ["act"]}),
    "JobStore": (by_the_store, "system:sql ROLE", {}),
    "SQL": (by_sql, "system:sql ROLE", {}),
}


@pytest.mark.parametrize("name", WAYS)
async def test_each_way_of_enqueueing_makes_the_same_job(server: Server, sql: Any, name: str) -> None:
    way, actor, cause = WAYS[name]
    for _ in range(2):
        await way(server, sql)

    [event] = await _rows(sql, "events WHERE stream = 'Job'")
    [record] = await _rows(sql, "job_records")
    [ready] = await _rows(sql, "ready")
    at, run_id = event["at"], record["run_id"]
    event["data"]["payload"]["timestamp"] = "AT"
    if "runId" in cause:
        cause = {**cause, "runId": run_id}
        assert await sql.fetchval("SELECT count(*) FROM workflow_runs WHERE id = $1::text::uuid", run_id) == 1
    else:
        assert run_id is None
    role = await sql.fetchval("SELECT session_user")
    for gone in ("position", "xid"):
        del event[gone]
    assert event == {
        "stream_id": record["id"],
        "at": at,
        "version": 1,
        "stream": "Job",
        "type": "enqueued",
        "tenant": "acme",
        "actor": actor.replace("ROLE", role),
        "trace": None,
        "data": {
            "queue": "work",
            "kind": "act",
            "payload": PAYLOAD,
            "priority": 0,
            "maxAttempts": 5,
            "runAt": None,
            "idempotencyKey": KEY,
            **cause,
        },
    }
    assert record == {
        "id": record["id"],
        "created_at": at,
        "run_at": None,
        "priority": 0,
        "max_attempts": 5,
        "tenant": "acme",
        "queue": "work",
        "kind": "act",
        "idempotency_key": KEY,
        "timeout_secs": None,
        "deadline": None,
        "run_id": run_id,
    }
    assert ready == {
        "id": record["id"],
        "eligible_at": at,
        "version": 1,
        "priority": 0,
        "attempts": 0,
        "max_attempts": 5,
        "tenant": "acme",
        "queue": "work",
        "kind": "act",
        "deliveries": 0,
        "timeout_secs": None,
        "deadline": None,
        "error": None,
    }
    assert await _rows(sql, "idempotency_keys") == [
        {"tenant": "acme", "queue": "work", "key": KEY, "job_id": record["id"]}
    ]
    assert await _rows(sql, "lanes") == [{"queue": "work", "tenant": "acme"}]


@pytest.mark.parametrize("name", WAYS)
async def test_a_job_that_one_way_has_made_is_found_by_the_others(server: Server, sql: Any, name: str) -> None:
    way, _, _ = WAYS[name]
    await way(server, sql)
    for other, _, _ in WAYS.values():
        await other(server, sql)
    assert await sql.fetchval("SELECT count(*) FROM job_records") == 1
    assert await sql.fetchval("SELECT count(*) FROM events WHERE stream = 'Job'") == 1


async def _rows(sql: Any, table: str) -> list[dict[str, Any]]:
    return [
        orjson.loads(row[0]) for row in await sql.fetch(f"SELECT to_jsonb(t)::text FROM (SELECT * FROM {table}) AS t")
    ]
