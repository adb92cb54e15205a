"""Actions through GraphQL: recorded events, the bindings that fire on them, and whose they are."""

from typing import Any

import pytest

from tests.conftest import Server, admin, bearer, until
from tests.graphql.flows import BIND, MAIL, RECORD, REMOVE, RESUME, register, waiting
from tests.graphql.helpers import as_admin, ask, refused

ABSENT = "01900000-0000-7000-8000-000000000000"
LIST = "{ bindings { nodes { id action isSetAside setAsideAt error tenantId } } }"


async def bind(server: Server, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    """A binding of MAIL, with other fields; of an operator, unless somebody else is named."""
    return (await ask(server, BIND, headers or admin(), binding={**MAIL, **fields}))["registerBinding"]


async def record(server: Server, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    """An event of the deal 7, as alice, unless somebody else is named."""
    return (await ask(server, RECORD, headers or bearer(), **fields))["recordEvent"]


async def _bindings(server: Server, headers: dict[str, str] | None = None) -> list[Any]:
    nodes: list[Any] = (await ask(server, LIST, headers or admin()))["bindings"]["nodes"]
    return nodes


async def test_a_recorded_event_fires_the_bindings_that_match_once(server: Server) -> None:
    worker = await server.mint("*")
    big = {"fieldEquals": {"stage": "won"}, "changedAny": ["stage"]}
    made = await bind(server, event="updated", condition=big, input=["stage", "owner.name"], queue="mail")
    assert made | {"id": "-"} == {
        "id": "-",
        "model": "Deal",
        "event": "updated",
        "action": "mail.send",
        "queue": "mail",
        "condition": big,
        "input": ["stage", "owner.name"],
        "registeredBy": "user:root",
        "isSetAside": False,
        "error": None,
        "tenantId": None,
    }
    assert (await bind(server, event="updated", condition=big, input=["stage", "owner.name"], queue="mail")) == made
    won = {"stage": "won", "owner": {"name": "Ada"}, "price": 5}
    await record(server, event="updated", data=won, previousData=won, eventId="e0")
    await record(server, event="updated", data={"stage": "lost"}, previousData={}, eventId="e1")
    event: dict[str, Any] = {"event": "updated", "data": won, "previousData": {"stage": "open"}, "eventId": "e2"}
    assert await record(server, **event) == {"eventId": "e2", "isNew": True}
    assert await record(server, **event) == {"eventId": "e2", "isNew": False}
    await record(server, **{**event, "eventId": "e3", "origin": "mail.send"})
    await record(server, **{**event, "eventId": "e4"})
    jobs = [(await worker.lease("mail", waitSecs=30))[0] for _ in range(2)]
    assert [job["payload"]["eventId"] for job in jobs] == ["e2", "e4"]
    assert (jobs[0]["kind"], jobs[0]["payload"]["input"]) == ("mail.send", {"stage": "won", "owner.name": "Ada"})
    assert await worker.lease("mail") == []
    query = "{ events(streams: [MODEL]) { nodes { type version actor data } } }"
    told = (await ask(server, query))["events"]["nodes"]
    assert [(e["type"], e["version"], e["data"]["eventId"]) for e in told] == [
        ("RECORDED", version + 1, f"e{version}") for version in range(5)
    ]
    assert (told[2]["actor"], told[2]["data"]["data"]) == ("user:alice", won)


async def test_an_event_begins_a_workflow_and_its_run_says_so(server: Server) -> None:
    await register(server, waiting("on deal", trigger={"OnEvent": {"model": "Deal", "event_type": "deleted"}}))
    await record(server, event="deleted", data=None, eventId="gone")
    query = (
        '{ workflowRuns(filter: {workflow: "on deal"}) { nodes { status trigger idempotencyKey startedBy context } } }'
    )

    async def parked() -> Any:
        nodes = (await ask(server, query))["workflowRuns"]["nodes"]
        return nodes if nodes and nodes[0]["status"] == "PAUSED" else None

    [run] = await until(parked)
    assert run["trigger"] == {"kind": "event", "model": "Deal", "event": "deleted", "eventId": "gone"}
    assert (run["idempotencyKey"], run["startedBy"]) == (None, "system:actions")
    assert (run["context"]["event"]["id"], run["context"]["event"]["actor"]) == ("7", "user:alice")


async def test_a_binding_that_fails_is_set_aside_with_its_error_and_is_resumed(server: Server) -> None:
    worker = await server.mint("*")
    failing = await bind(server, input=["a", "a.b"])
    await bind(server, action="other")
    acme = bearer(tenant_id="acme")
    await record(server, acme, data={"a": {"b": "x" * 600_000}}, eventId="secret")  # twice that is too large for a job

    async def set_aside() -> Any:
        return [b for b in await _bindings(server) if b["isSetAside"]]

    [aside] = await until(set_aside)
    assert (aside["id"], "event secret: payload must" in aside["error"]) == (failing["id"], True)
    assert [job["kind"] for job in await worker.lease("*", waitSecs=30)] == ["other"], "the others go on"
    for headers in (bearer(), acme, admin(tenant_id="other")):
        [theirs] = [b for b in await _bindings(server, headers) if b["isSetAside"]]
        assert theirs["error"] is None, "it tells of some tenant's event"
        assert "secret" not in str(theirs)
    assert (await as_admin(server, RESUME, id=failing["id"]))["resumeBinding"] == {"isSetAside": False, "error": None}
    since = aside["setAsideAt"]

    async def again() -> Any:
        return [b for b in await set_aside() if b["setAsideAt"] != since]

    await until(again)
    assert not (await as_admin(server, RESUME, id=failing["id"], skip=True))["resumeBinding"]["isSetAside"]
    assert await refused(server, RESUME, admin(), id=failing["id"]) == "NOT_FOUND", "it is not set aside"
    await record(server, acme, data={"a": {"b": "small"}}, eventId="next")
    jobs: list[Any] = []
    while len(jobs) < 2:
        jobs += await worker.lease("*", waitSecs=30)
    assert {(job["kind"], job["payload"]["eventId"]) for job in jobs} == {("mail.send", "next"), ("other", "next")}


TENANTS = {
    "another tenant": bearer(tenant_id="other"),
    "another tenant's admin": admin(tenant_id="other"),
    "an operator acting for another": admin() | {"X-Tenant-ID": "other"},
    "somebody without a tenant": bearer(),
}


@pytest.mark.parametrize("who", TENANTS)
async def test_a_tenant_sees_the_service_s_bindings_and_its_own_alone(server: Server, sql: Any, who: str) -> None:
    headers = TENANTS[who]
    theirs = await bind(server, admin(tenant_id="acme"), action="secret.action")
    shared = await bind(server)
    assert (theirs["tenantId"], shared["tenantId"]) == ("acme", None)
    events = await sql.fetchval("SELECT count(*) FROM events")
    assert [b["id"] for b in await _bindings(server, headers)] == [shared["id"]]
    assert [b["id"] for b in await _bindings(server, bearer(tenant_id="acme"))] == [theirs["id"], shared["id"]]
    for query in (REMOVE, RESUME):
        expected = "NOT_FOUND" if "admin" in who or "operator" in who else "FORBIDDEN"
        for binding_id in (theirs["id"], shared["id"], ABSENT):
            assert await refused(server, query, headers, id=binding_id) == expected
    assert await sql.fetchval("SELECT count(*) FROM events") == events
    await record(server, headers, data={"mine": 1}, eventId="same")
    assert (await record(server, bearer(tenant_id="acme"), eventId="same"))["isNew"], "another tenant's id is another"
    told = (await ask(server, "{ events(streams: [MODEL]) { nodes { data } } }", headers))["events"]["nodes"]
    assert [event["data"]["data"] for event in told] == [{"mine": 1}]


async def test_a_tenant_s_binding_fires_on_its_own_events_alone(server: Server) -> None:
    worker = await server.mint("*")
    await bind(server, admin(tenant_id="acme"))
    await record(server, bearer(tenant_id="other"), eventId="other's")
    await record(server, eventId="nobody's")
    await record(server, bearer(tenant_id="acme"), eventId="acme's")
    [job] = await worker.lease("actions", waitSecs=30)
    assert (job["payload"]["eventId"], job["tenantId"]) == ("acme's", "acme")
    removed = (await ask(server, LIST, bearer(tenant_id="acme")))["bindings"]["nodes"][0]["id"]
    assert (await ask(server, REMOVE, admin(tenant_id="acme"), id=removed))["removeBinding"]["id"] == removed
    assert await _bindings(server) == []
    assert await refused(server, REMOVE, admin(tenant_id="acme"), id=removed) == "NOT_FOUND"


async def test_pages_of_bindings_go_both_ways(server: Server) -> None:
    made = [(await bind(server, action=f"a{number}"))["id"] for number in range(5)]
    query = """query ($first: Int, $after: String, $last: Int, $before: String) {
      bindings(first: $first, after: $after, last: $last, before: $before) {
        nodes { id } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }"""

    async def page(**variables: Any) -> tuple[list[str], Any]:
        told = (await ask(server, query, **variables))["bindings"]
        return [node["id"] for node in told["nodes"]], told["pageInfo"]

    first, info = await page(first=2)
    assert (first, info["hasNextPage"], info["hasPreviousPage"]) == (made[:2], True, False)
    second, info = await page(first=2, after=info["endCursor"])
    assert (second, info["hasNextPage"]) == (made[2:4], True)
    assert (await page(last=1, before=info["startCursor"]))[0] == made[1:2]
    assert (await page(last=2))[0] == made[3:]
    assert await refused(server, query, after="x") == "BAD_USER_INPUT"


async def test_a_broken_event_or_binding_is_refused_by_its_field(server: Server, sql: Any) -> None:
    before = await sql.fetchval("SELECT count(*) FROM events")
    events: list[tuple[dict[str, Any], str]] = [
        ({"model": ""}, "model"),
        ({"model": "Job"}, "model"),
        ({"event": "sold"}, "event"),
        ({"event": "CREATED"}, "event"),
        ({"id": ""}, "id"),
        ({"id": "x" * 513}, "id"),
        ({"data": {"a": "\u0000"}}, "data"),
        ({"data": 2**70}, "data"),
        ({"previousData": [1]}, "previousData"),
        ({"origin": " "}, "origin"),
        ({"eventId": "x" * 400}, "eventId"),
    ]
    for variables, field in events:
        [error] = (await server.graphql(RECORD, variables))["errors"]
        assert error["extensions"] == {"code": "BAD_USER_INPUT", "field": field}, error
    bindings: list[tuple[dict[str, Any], str]] = [
        ({"model": ""}, "model"),
        ({"event": "succeeded"}, "event"),
        ({"action": 5}, "action"),
        ({"queue": "*"}, "queue"),
        ({"condition": {"changed": 1}}, "condition.changed"),
        ({"condition": {"changedAny": []}}, "condition.changedAny"),
        ({"input": [1]}, "input[0]"),
        ({"more": 1}, "more"),
    ]
    for fields, field in bindings:
        [error] = (await server.graphql(BIND, {"binding": {**MAIL, **fields}}, headers=admin()))["errors"]
        assert error["extensions"] == {"code": "BAD_USER_INPUT", "field": field}, error
    for query in (REMOVE, RESUME):
        assert await refused(server, query, admin(), id="x") == "BAD_USER_INPUT"
        assert await refused(server, query, admin(), id=ABSENT) == "NOT_FOUND"
        assert await refused(server, query, id=ABSENT) == "FORBIDDEN"
    assert await refused(server, BIND, binding=MAIL) == "FORBIDDEN"
    assert await refused(server, "{ events(streams: [BINDING]) { nodes { type } } }") == "FORBIDDEN"
    assert await sql.fetchval("SELECT count(*) FROM events") == before
    await bind(server, model="Job", event="succeeded")
    told = await as_admin(server, "{ events(streams: [BINDING]) { nodes { stream type data run { id } } } }")
    [event] = told["events"]["nodes"]
    assert (event["stream"], event["type"], event["run"]) == ("BINDING", "REGISTERED", None)


async def test_a_pass_for_one_job_records_and_lists_nothing(server: Server, sql: Any) -> None:
    job_id = await server.enqueue()
    made = await ask(server, f'mutation {{ jobToken(id: "{job_id}") {{ token }} }}')
    headers = {"Authorization": f"Bearer {made['jobToken']['token']}"}
    for query in (RECORD, LIST, "{ events(streams: [MODEL]) { nodes { type } } }"):
        assert await refused(server, query, headers) == "FORBIDDEN", query
    assert await sql.fetchval("SELECT count(*) FROM recorded_ids") == 0
