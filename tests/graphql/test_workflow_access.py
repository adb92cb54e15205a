"""Whose workflows and runs are whose, through GraphQL."""

import json
from typing import Any

import pytest

from tests.conftest import Server, admin, bearer, token
from tests.graphql.flows import GET, RUN, WATCH, register, run, waiting
from tests.graphql.helpers import ask, refused, subscribed

ABSENT = "01900000-0000-7000-8000-000000000000"


TENANTS: dict[str, dict[str, Any]] = {
    "another tenant": {"tenant_id": "other"},
    "another tenant's admin": {"tenant_id": "other", "role": "admin"},
    "somebody without a tenant": {},
}


@pytest.mark.parametrize("who", TENANTS)
async def test_a_tenant_sees_neither_another_s_runs_nor_definitions(server: Server, sql: Any, who: str) -> None:
    claims = TENANTS[who]
    headers, acme = bearer(**claims), bearer(tenant_id="acme")
    await register(server, waiting("secret", description="secret"), admin(tenant_id="acme"))
    await register(server, waiting("shared"))
    theirs = await run(server, "secret", {"secret": 1}, headers=acme, key="secret")
    mine = await run(server, "shared", headers=headers)
    await run(server, "shared", headers=acme)
    events = await sql.fetchval("SELECT count(*) FROM events")
    everything = "id workflow context definition errors steps { name job { id } } jobs { id } events { data }"
    for query in (
        f"{{ workflowRuns {{ nodes {{ {everything} }} }} }}",
        f'{{ workflowRuns(filter: {{workflow: "secret"}}) {{ nodes {{ {everything} }} }} }}',
        f'{{ workflowRuns(filter: {{idempotencyKey: "secret"}}) {{ nodes {{ {everything} }} }} }}',
        f'{{ workflowRun(id: "{theirs["id"]}") {{ {everything} }} }}',
        "{ workflows { nodes { name definition tenantId } } }",
        '{ workflow(name: "secret") { definition } }',
        f'{{ events(streams: [WORKFLOW, JOB, MODEL], streamId: "{theirs["id"]}") {{ nodes {{ data }} }} }}',
        f"{{ events(streams: [WORKFLOW, JOB, MODEL]) {{ nodes {{ data run {{ {everything} }} }} }} }}",
    ):
        told = await ask(server, query, headers)
        assert "secret" not in json.dumps(told).replace(query, ""), query
        assert theirs["id"] not in json.dumps(told), query
    counted = await ask(server, "{ workflowRuns { totalCount { value isExact } } }", headers)
    assert counted["workflowRuns"]["totalCount"] == {"value": 1, "isExact": True}
    assert (await ask(server, GET, headers, id=mine["id"]))["workflowRun"]["status"] == "PAUSED"
    shared = (await ask(server, '{ workflow(name: "shared") { name tenantId } }', headers))["workflow"]
    assert shared == {"name": "shared", "tenantId": None}
    for query in (
        "mutation ($id: ID!) { cancelWorkflowRun(id: $id) { id } }",
        "mutation ($id: ID!) { retryWorkflowRun(id: $id) { id } }",
    ):
        answers = [await server.graphql(query, {"id": run_id}, headers=headers) for run_id in (theirs["id"], ABSENT)]
        assert str(answers[0]).replace(theirs["id"], ABSENT) == str(answers[1])
        assert "NOT_FOUND" in str(answers[1])
    assert await refused(server, RUN, headers, name="secret") == "NOT_FOUND"
    if claims.get("role") == "admin":
        for verb in ("removeWorkflow", "pauseWorkflow", "resumeWorkflow"):
            for name in ("secret", "shared"):
                query = f"mutation ($name: String!) {{ {verb}(name: $name) {{ id }} }}"
                assert await refused(server, query, headers, name=name) == "NOT_FOUND"
    assert await sql.fetchval("SELECT count(*) FROM events") == events
    async with subscribed(server, WATCH, authorization=f"Bearer {token(**claims)}", id=theirs["id"]) as watching:
        assert await watching.next() == {"error": "NOT_FOUND"}


async def test_a_tenant_s_own_workflow_goes_before_the_service_s_of_that_name(server: Server) -> None:
    theirs = admin(tenant_id="acme")
    await register(server, waiting("w"))
    own = await register(server, waiting("w", description="ours"), theirs)
    assert own["tenantId"] == "acme"
    query = '{ workflow(name: "w") { tenantId description } workflows { nodes { name tenantId } } }'
    told = await ask(server, query, bearer(tenant_id="acme"))
    assert told["workflow"] == {"tenantId": "acme", "description": "ours"}
    assert told["workflows"]["nodes"] == [{"name": "w", "tenantId": None}, {"name": "w", "tenantId": "acme"}]
    remove = 'mutation { removeWorkflow(name: "w") { tenantId removedAt } }'
    removed = (await ask(server, remove, theirs))["removeWorkflow"]
    assert (removed["tenantId"], removed["removedAt"] is None) == ("acme", False)
    assert (await ask(server, query, bearer(tenant_id="acme")))["workflow"]["tenantId"] is None


async def test_only_admins_change_workflows_and_a_pass_opens_none(server: Server, sql: Any) -> None:
    await register(server, waiting())
    job_id = await server.enqueue()
    made = await ask(server, f'mutation {{ jobToken(id: "{job_id}") {{ token }} }}')
    events = await sql.fetchval("SELECT count(*) FROM events")
    changes = [
        'mutation { registerWorkflow(definition: {name: "x", steps: []}) { id } }',
        'mutation { removeWorkflow(name: "wait") { id } }',
        'mutation { pauseWorkflow(name: "wait") { id } }',
        'mutation { resumeWorkflow(name: "wait") { id } }',
        "{ events(streams: [DEFINITION]) { nodes { type } } }",
        "{ events(streams: [JOB, BINDING]) { nodes { type } } }",
    ]
    for query in changes:
        assert await refused(server, query) == "FORBIDDEN", query
    asks = [
        'mutation { runWorkflow(name: "wait") { id } }',
        f'mutation {{ cancelWorkflowRun(id: "{ABSENT}") {{ id }} }}',
        f'mutation {{ retryWorkflowRun(id: "{ABSENT}") {{ id }} }}',
        f'{{ workflowRun(id: "{ABSENT}") {{ id }} }}',
        "{ workflowRuns { nodes { id } } }",
        "{ workflows { nodes { id } } }",
        '{ workflow(name: "wait") { id } }',
        "{ schedules { nodes { name } } }",
        "{ events(streams: [WORKFLOW]) { nodes { type } } }",
    ]
    for query in changes + asks:
        assert await refused(server, query, {"Authorization": f"Bearer {made['jobToken']['token']}"}) == "FORBIDDEN", (
            query
        )
    assert await sql.fetchval("SELECT count(*) FROM events") == events
