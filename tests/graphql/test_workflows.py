"""Workflows through GraphQL: the life of a run, what is told of it, and to whom it is not."""

import json
import time
from typing import Any

import pytest

from tests.conftest import MakeServer, Server, admin, bearer, token
from tests.graphql.flows import FILM, GET, REGISTER, RUN, WATCH, ended, register, run, waiting, work
from tests.graphql.helpers import as_admin, ask, refused, subscribed

ABSENT = "01900000-0000-7000-8000-000000000000"
PAGE = """query ($first: Int, $after: String, $last: Int, $before: String, $filter: WorkflowRunFilter,
                 $order: WorkflowRunOrder! = NEWEST_FIRST) {
  workflowRuns(first: $first, after: $after, last: $last, before: $before, filter: $filter, orderBy: $order) {
    nodes { id } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }"""


async def test_a_run_goes_from_step_to_step_and_shows_what_came_of_each(server: Server) -> None:
    worker = await server.mint("*")
    workflow = await register(server, FILM)
    assert (workflow["name"], workflow["version"], workflow["tenantId"]) == ("film", 1, None)
    begun = await run(server, "film", {"film": {"name": "Metropolis"}}, key="once")
    assert (begun["status"], begun["stepsRun"], begun["errors"]) == ("PAUSED", 1, [])
    assert begun["context"]["title"] == "Metropolis!"
    assert (await run(server, "film", {"film": {"name": "another"}}, key="once"))["id"] == begun["id"]
    cut = await work(worker, result={"frames": 7})
    assert cut["payload"] == {"title": "Metropolis!"}
    assert (await ended(server, begun["id"]))["status"] == "COMPLETED"
    whole = """query ($id: ID!) { workflowRun(id: $id) {
      workflow workflowId definitionVersion status stepsRun errors trigger startedBy idempotencyKey tenantId timeoutAt
      finishedAt durationMs definition context jobs { id kind status run { id } }
      steps { name action group status attempt jobId job { id status runId } until error result beganAt endedAt }
      events { version type step actor data } } }"""
    told = (await ask(server, whole, id=begun["id"]))["workflowRun"]
    jobs, steps, events = told.pop("jobs"), told.pop("steps"), told.pop("events")
    assert told.pop("finishedAt") is not None
    assert told.pop("timeoutAt") is not None
    assert told.pop("durationMs") > 0
    notified = jobs[1]["id"]
    assert told == {
        "workflow": "film",
        "workflowId": workflow["id"],
        "definitionVersion": 1,
        "status": "COMPLETED",
        "stepsRun": 3,
        "errors": [],
        "trigger": {"kind": "manual"},
        "startedBy": "user:alice",
        "idempotencyKey": "once",
        "tenantId": None,
        "definition": FILM,
        "context": {
            "film": {"name": "Metropolis"},
            "title": "Metropolis!",
            "job_id": notified,
            "job_result": {"frames": 7},
        },
    }
    assert [(j["kind"], j["status"], j["run"]["id"]) for j in jobs] == [
        ("cut", "SUCCEEDED", begun["id"]),
        ("notify", "QUEUED", begun["id"]),
    ]
    assert [(s["name"], s["action"], s["status"], s["attempt"], s["result"]) for s in steps] == [
        ("title", "SET_VARIABLE", "COMPLETED", 1, None),
        ("cut", "JOB", "COMPLETED", 1, {"frames": 7}),
        ("tell", "JOB", "COMPLETED", 1, None),
    ]
    assert steps[1]["job"] == {"id": cut["id"], "status": "SUCCEEDED", "runId": begun["id"]}
    assert steps[0]["job"] is None
    assert [(e["version"], e["type"], e["step"]) for e in events] == [
        (1, "RUN_STARTED", None),
        (2, "STEP_COMPLETED", "title"),
        (3, "STEP_WAITING", "cut"),
        (4, "STEP_COMPLETED", "cut"),
        (5, "STEP_COMPLETED", "tell"),
        (6, "RUN_COMPLETED", None),
    ]
    assert (events[0]["actor"], events[0]["data"]["context"]) == ("user:alice", {"film": {"name": "Metropolis"}})
    assert events[3]["data"]["result"] == {"frames": 7}
    page = "query ($id: ID!) { workflowRun(id: $id) { events(after: 2, first: 2) { version } } }"
    assert (await ask(server, page, id=begun["id"]))["workflowRun"]["events"] == [{"version": 3}, {"version": 4}]
    job = "query ($id: ID!) { job(id: $id) { runId run { id status context } } }"
    shown = (await ask(server, job, id=cut["id"]))["job"]
    assert (shown["runId"], shown["run"]["context"]["title"]) == (begun["id"], "Metropolis!")
    plain = await server.enqueue("q")
    assert (await ask(server, job, id=plain))["job"] == {"runId": None, "run": None}


async def test_steps_are_shown_in_the_order_of_the_definition_before_they_have_begun(server: Server) -> None:
    branches = [[waiting()["steps"][0]], [{"name": "rest", "action": {"Delay": {"seconds": 600}}}]]
    last = {"name": "last", "action": {"SetVariable": {"key": "a", "value": 1}}}
    await register(server, {"name": "group", "steps": [{"name": "both", "parallel": branches}, last]})
    begun = await run(server, "group")
    query = "query ($id: ID!) { workflowRun(id: $id) { steps { name action group status attempt beganAt until } } }"
    steps = (await ask(server, query, id=begun["id"]))["workflowRun"]["steps"]
    assert [(s["name"], s["action"], s["group"], s["status"], s["attempt"]) for s in steps] == [
        ("both", "PARALLEL", None, "OPEN", 1),
        ("cut", "JOB", "both", "WAITING", 1),
        ("rest", "DELAY", "both", "DELAYED", 1),
        ("last", "SET_VARIABLE", None, "PENDING", 0),
    ]
    assert (steps[2]["until"] is None, steps[3]["beganAt"]) == (False, None)


async def test_a_subscription_tells_each_change_and_the_end_and_completes(make_server: MakeServer) -> None:
    here, there = await make_server(), await make_server()
    worker = await here.mint("*")
    await register(here, FILM)
    begun = await run(here, "film", {"film": {"name": "M"}})
    async with subscribed(there, WATCH, id=begun["id"]) as watching:
        first = (await watching.next())["workflowRun"]
        assert (first["status"], [s["status"] for s in first["steps"]]) == (
            "PAUSED",
            ["COMPLETED", "WAITING", "PENDING"],
        )
        await work(worker)
        last = (await watching.next())["workflowRun"]
        assert (last["status"], [s["status"] for s in last["steps"]]) == ("COMPLETED", ["COMPLETED"] * 3)
        assert await watching.next() is None
    async with subscribed(there, WATCH, id=begun["id"]) as late:
        assert (await late.next())["workflowRun"] == last
        assert await late.next() is None
    body = {"query": WATCH, "variables": {"id": begun["id"]}}
    headers = {"Accept": "text/event-stream"} | bearer()
    async with there.http.post(f"{there.url}/graphql", json=body, headers=headers) as answer:
        text = await answer.text()
    assert json.loads(text.partition("data: ")[2].partition("\n")[0])["data"]["workflowRun"] == last
    assert text.endswith("event: complete\ndata:\n\n")
    assert (here.application.hub.watchers, there.application.hub.watchers) == (0, 0)


async def test_a_cancelled_run_ends_its_job_and_a_failed_one_goes_on_from_its_step(server: Server) -> None:
    worker = await server.mint("*")
    await register(server, waiting())
    cancel = "mutation ($id: ID!, $reason: String) { cancelWorkflowRun(id: $id, reason: $reason) {"
    cancel += " status errors steps { status } jobs { status } } }"
    retry = "mutation ($id: ID!) { retryWorkflowRun(id: $id) { status errors steps { status attempt } } }"
    begun = await run(server, "wait")
    told = (await ask(server, cancel, id=begun["id"], reason="too late"))["cancelWorkflowRun"]
    assert (told["status"], told["errors"]) == ("FAILED", ["cancelled by user:alice: too late"])
    assert (told["steps"], told["jobs"]) == ([{"status": "CANCELLED"}], [{"status": "DEAD"}])
    assert (await ask(server, cancel, id=begun["id"]))["cancelWorkflowRun"]["errors"] == told["errors"], "it stays so"
    second = await run(server, "wait")
    await work(worker, error="no film")
    assert (await ended(server, second["id"]))["status"] == "FAILED"
    failed = "query ($id: ID!) { workflowRun(id: $id) { errors steps { error } } }"
    shown = (await ask(server, failed, id=second["id"]))["workflowRun"]
    assert "no film" in shown["errors"][0]
    assert "no film" in shown["steps"][0]["error"]
    again = (await ask(server, retry, id=second["id"]))["retryWorkflowRun"]
    assert again == {"status": "PAUSED", "errors": [], "steps": [{"status": "WAITING", "attempt": 2}]}
    await work(worker, result=1)
    assert (await ended(server, second["id"]))["status"] == "COMPLETED"
    for query in (cancel, retry):
        [error] = (await server.graphql(query, {"id": second["id"]}))["errors"]
        assert error["extensions"] == {"code": "BAD_USER_INPUT", "field": "id"}
        assert await refused(server, query, id=ABSENT) == "NOT_FOUND"
        assert await refused(server, query, id="x") == "BAD_USER_INPUT"


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


JOB: dict[str, Any] = {"queue": "q", "kind": "k"}
BROKEN: list[tuple[Any, str]] = [
    (5, "definition"),
    ({"steps": []}, "name"),
    ({"name": "x", "steps": []}, "steps"),
    ({"name": "x", "steps": [{"name": "a", "action": {"Job": {"queue": "q"}}}]}, "steps[0].action.Job.kind"),
    (
        {"name": "x", "steps": [{"name": "a", "action": {"Job": JOB}}, {"name": "a", "action": {"Job": JOB}}]},
        "steps[1].name",
    ),
    ({"name": "x", "steps": [{"name": "a", "action": {"Delay": {"seconds": -1}}}]}, "steps[0].action.Delay.seconds"),
    (
        {"name": "x", "steps": [{"name": "a", "action": {"Job": JOB | {"payload": ["{{ a.__class__() }}"]}}}]},
        "steps[0].action.Job.payload[0]",
    ),
    (waiting(trigger={"Schedule": {"cron": "61 * * * *"}}), "trigger.Schedule.cron"),
    (waiting(trigger={"Schedule": {"cron": "* * * * *", "timezone": "Mars/Base"}}), "trigger.Schedule.timezone"),
    (waiting(trigger={"OnEvent": {"model": "Deal", "event_type": "sold"}}), "trigger.OnEvent.event_type"),
    (waiting(unknown=1), "unknown"),
]


async def test_a_broken_definition_or_context_is_refused_by_step_and_field(server: Server, sql: Any) -> None:
    for definition, field in BROKEN:
        [error] = (await server.graphql(REGISTER, {"definition": definition}, headers=admin()))["errors"]
        assert error["extensions"] == {"code": "BAD_USER_INPUT", "field": field}, error
        assert field in error["message"]
    large = {"name": "x", "steps": [{"name": "a", "action": {"Job": {**JOB, "payload": "x" * 300_000}}}]}
    assert await refused(server, REGISTER, admin(), definition=large) == "PAYLOAD_TOO_LARGE"
    assert await sql.fetchval("SELECT count(*) FROM workflows") == 0
    await register(server, waiting())
    starts: list[tuple[dict[str, Any], str]] = [
        ({"context": 5}, "context"),
        ({"context": {"run": 1}}, "context.run"),
        ({"context": {"a": "\u0000"}}, "context"),
        ({"context": {"a": 2**70}}, "context"),
        ({"key": " "}, "idempotencyKey"),
        ({"key": "x" * 513}, "idempotencyKey"),
    ]
    for variables, field in starts:
        [error] = (await server.graphql(RUN, {"name": "wait"} | variables))["errors"]
        assert error["extensions"] == {"code": "BAD_USER_INPUT", "field": field}, error
    for name in ("nothing", "", "\u0000", "x" * 1_000):
        assert await refused(server, RUN, name=name) == "NOT_FOUND", "what breaks a rule is no workflow's name"
        assert (await ask(server, "query ($n: String!) { workflow(name: $n) { id } }", n=name))["workflow"] is None
    for query in (
        '{ workflowRun(id: "x") { id } }',
        '{ workflowRuns(filter: {workflow: ""}) { nodes { id } } }',
        '{ workflowRuns(filter: {idempotencyKey: ""}) { nodes { id } } }',
        "{ workflowRuns(first: 0) { nodes { id } } }",
        '{ workflowRuns(after: "x") { nodes { id } } }',
        '{ workflows(after: "x") { nodes { id } } }',
        'mutation { pauseWorkflow(name: "wait") { id } }',
    ):
        assert await refused(server, query, admin()) == "BAD_USER_INPUT", query
    assert await sql.fetchval("SELECT count(*) FROM workflow_runs") == 0


async def test_a_new_version_is_for_new_runs_and_the_same_one_is_no_new_version(server: Server) -> None:
    assert (await register(server, waiting()))["version"] == 1
    assert (await register(server, waiting()))["version"] == 1
    old = await run(server, "wait")
    second = {"name": "wait", "steps": [{"name": "set", "action": {"SetVariable": {"key": "a", "value": 1}}}]}
    assert (await register(server, second))["version"] == 2
    assert (await run(server, "wait"))["status"] == "COMPLETED"
    query = "query ($id: ID!) { workflowRun(id: $id) { definitionVersion definition steps { name } } }"
    kept = (await ask(server, query, id=old["id"]))["workflowRun"]
    assert kept == {"definitionVersion": 1, "definition": waiting(), "steps": [{"name": "cut"}]}
    history = '{ workflow(name: "wait") { version definition history { version registeredBy definition } } }'
    told = (await ask(server, history))["workflow"]
    assert (told["version"], told["definition"]) == (2, second)
    assert told["history"] == [
        {"version": 2, "registeredBy": "user:root", "definition": second},
        {"version": 1, "registeredBy": "user:root", "definition": waiting()},
    ]


async def test_pages_of_runs_go_both_ways_and_every_filter_finds_what_it_names(server: Server) -> None:
    worker = await server.mint("*")
    await register(server, waiting("a"))
    await register(server, waiting("b"))
    done = await run(server, "a", key="k1")
    await work(worker)
    assert (await ended(server, done["id"]))["status"] == "COMPLETED"
    dead = await run(server, "a")
    await work(worker, error="no")
    assert (await ended(server, dead["id"]))["status"] == "FAILED"
    parked = [(await run(server, "b", key="k1" if number == 0 else None))["id"] for number in range(3)]
    newest = [*parked[::-1], dead["id"], done["id"]]

    async def ids(**variables: Any) -> list[str]:
        return [node["id"] for node in (await ask(server, PAGE, **variables))["workflowRuns"]["nodes"]]

    for wanted, expected in [
        ({}, newest),
        ({"workflow": "a"}, [dead["id"], done["id"]]),
        ({"workflow": "none"}, []),
        ({"status": ["COMPLETED"]}, [done["id"]]),
        ({"status": ["FAILED", "PAUSED"]}, newest[:4]),
        ({"status": []}, []),
        ({"status": ["RUNNING"]}, []),
        ({"idempotencyKey": "k1"}, [parked[0], done["id"]]),
        ({"idempotencyKey": "k1", "workflow": "b"}, [parked[0]]),
        ({"idempotencyKey": "key:k1"}, []),
    ]:
        assert await ids(filter=wanted) == expected, wanted
        assert await ids(filter=wanted, last=9) == expected, wanted
        assert await ids(filter=wanted, order="OLDEST_FIRST") == expected[::-1], wanted
    first = (await ask(server, PAGE, first=2))["workflowRuns"]
    assert ([n["id"] for n in first["nodes"]], first["pageInfo"]["hasNextPage"]) == (newest[:2], True)
    await run(server, "b")
    assert await ids(first=2, after=first["pageInfo"]["endCursor"]) == newest[2:4]
    assert await ids(last=1, before=first["pageInfo"]["endCursor"]) == newest[:1]


async def test_pages_of_workflows_go_both_ways_by_name_and_tenant(server: Server) -> None:
    acme = admin(tenant_id="acme")
    for name in ("b", "a", "c"):
        await register(server, waiting(name))
    await register(server, waiting("b"), acme)
    query = """query ($first: Int, $after: String, $last: Int, $before: String) {
      workflows(first: $first, after: $after, last: $last, before: $before) {
        nodes { name tenantId } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }"""
    whole = [("a", None), ("b", None), ("b", "acme"), ("c", None)]
    seen: list[tuple[str, str | None]] = []
    after, more = None, True
    while more:
        page = (await ask(server, query, acme, first=1, after=after))["workflows"]
        seen += [(n["name"], n["tenantId"]) for n in page["nodes"]]
        after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
    assert seen == whole
    page = (await ask(server, query, acme, last=2, before=after))["workflows"]
    assert [(n["name"], n["tenantId"]) for n in page["nodes"]] == whole[1:3]
    assert page["pageInfo"]["hasPreviousPage"]
    assert len((await as_admin(server, query))["workflows"]["nodes"]) == 4
    assert len((await ask(server, query, bearer(tenant_id="other")))["workflows"]["nodes"]) == 3


async def test_schedules_show_their_next_ticks_and_none_while_they_are_paused(server: Server) -> None:
    nightly = {"Schedule": {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "missed": "skip"}}
    await register(server, waiting("nightly", trigger=nightly))
    await register(server, waiting("by hand"))
    await register(server, waiting("sold", trigger={"OnEvent": {"model": "Deal", "event_type": "updated"}}))
    query = "{ schedules { nodes { name cron timezone missed nextAt ticks(first: 3) isPaused pause { by } tenantId"
    query += " workflow { trigger schedule { cron } } } pageInfo { hasNextPage } } }"
    [schedule] = (await ask(server, query))["schedules"]["nodes"]
    ticks = schedule.pop("ticks")
    assert schedule.pop("nextAt") == ticks[0]
    assert len(ticks) == 3
    assert ticks == sorted(ticks)
    assert all(tick[11:19] in ("00:30:00", "01:30:00") for tick in ticks), "half past two in Berlin"
    assert schedule == {
        "name": "nightly",
        "cron": "30 2 * * *",
        "timezone": "Europe/Berlin",
        "missed": "SKIP",
        "isPaused": False,
        "pause": None,
        "tenantId": None,
        "workflow": {"trigger": "SCHEDULE", "schedule": {"cron": "30 2 * * *"}},
    }
    pause = 'mutation { pauseWorkflow(name: "nightly") { isPaused pause { by } schedule { nextAt ticks } } }'
    paused = {"isPaused": True, "pause": {"by": "user:root"}, "schedule": {"nextAt": None, "ticks": []}}
    assert (await as_admin(server, pause))["pauseWorkflow"] == paused
    assert (await as_admin(server, pause))["pauseWorkflow"] == paused, "said again, it stays so"
    assert (await ask(server, query))["schedules"]["nodes"][0]["isPaused"]
    assert (await run(server, "nightly"))["status"] == "PAUSED", "people can begin it"
    resume = 'mutation { resumeWorkflow(name: "nightly") { isPaused schedule { ticks(first: 1) } } }'
    told = (await as_admin(server, resume))["resumeWorkflow"]
    assert (told["isPaused"], told["schedule"]["ticks"]) == (False, ticks[:1])
    sold = (await ask(server, '{ workflow(name: "sold") { trigger model eventType schedule { cron } } }'))["workflow"]
    assert sold == {"trigger": "EVENT", "model": "Deal", "eventType": "updated", "schedule": None}
    for first in (0, 21):
        assert await refused(server, f"{{ schedules {{ nodes {{ ticks(first: {first}) }} }} }}") == "BAD_USER_INPUT"


async def test_the_log_tells_of_runs_and_definitions(server: Server) -> None:
    await register(server, FILM)
    begun = await run(server, "film", {"film": {"name": "M"}})
    query = """query ($streams: [Stream!], $types: [EventType!]) { events(streams: $streams, types: $types) {
      nodes { stream streamId type job { id } run { id status steps { job { id } } } } } }"""
    types = ["RUN_STARTED", "STEP_WAITING"]
    nodes = (await ask(server, query, streams=["WORKFLOW"], types=types))["events"]["nodes"]
    assert [(n["stream"], n["streamId"], n["type"]) for n in nodes] == [("WORKFLOW", begun["id"], t) for t in types]
    [enqueued] = (await ask(server, query, streams=["JOB"]))["events"]["nodes"]
    assert (enqueued["run"], nodes[0]["job"]) == (None, None)
    assert nodes[1]["run"]["steps"][1]["job"] == enqueued["job"]
    assert (await ask(server, query))["events"]["nodes"] == [enqueued], "of jobs, where nothing is said"
    [registered] = (await as_admin(server, query, streams=["DEFINITION"]))["events"]["nodes"]
    assert (registered["type"], registered["run"]) == ("REGISTERED", None)


async def test_what_belongs_to_the_runs_of_a_page_is_loaded_at_once(server: Server, monkeypatch: Any) -> None:
    await register(server, FILM)
    for _ in range(4):
        await run(server, "film", {"film": {"name": "M"}})
    asked: list[str] = []
    database = server.application.database
    for name in ("dispatch", "fetch"):
        real = getattr(database, name)

        async def counted(statement: str, *arguments: object, _real: Any = real) -> Any:
            asked.append(statement)
            return await _real(statement, *arguments)

        monkeypatch.setattr(database, name, counted)
    query = "{ workflowRuns { nodes { context definition events { type } steps { result job { id } }"
    query += " jobs { run { id } } } } }"
    nodes = (await ask(server, query))["workflowRuns"]["nodes"]
    assert [(len(n["steps"]), len(n["jobs"]), len(n["events"])) for n in nodes] == [(3, 1, 3)] * 4
    page = ["run_page", "run_rows", "run_bodies", "event_stream", "run_jobs", "job_rows"]
    deeper = ["run_bodies", "job_rows", "run_rows"]  # of the steps, and of the jobs
    noise = ("run_next_wake", "wait_settle")  # of the engine, which goes on beside
    reads = [s for s in asked if s.startswith(("run_", "event_", "job_", "wait_")) and s not in noise]
    assert sorted(reads) == sorted(page + deeper)
    asked.clear()
    await ask(server, "{ jobs { nodes { run { id status } } } }")
    assert [s for s in asked if s.startswith("run_") and s not in noise] == ["run_rows"]


async def test_the_versions_of_a_page_s_workflows_are_loaded_at_once_and_bounded(
    server: Server, monkeypatch: Any
) -> None:
    asked: list[str] = []
    for name in ("a", "b"):
        for version in range(3):
            large = {"SetVariable": {"key": "v", "value": f"{version}" * 250_000}}
            await register(server, {"name": name, "steps": [{"name": "v", "action": large}]})
    database = server.application.database
    real = database.fetch

    async def counted(statement: str, *arguments: object) -> Any:
        asked.append(statement)
        return await real(statement, *arguments)

    monkeypatch.setattr(database, "fetch", counted)
    query = "{ workflows { nodes { history(first: 2) { version definition } } } }"
    nodes = (await ask(server, query))["workflows"]["nodes"]
    assert [[v["version"] for v in node["history"]] for node in nodes] == [[3, 2], [3, 2]]
    assert nodes[0]["history"][1]["definition"]["steps"][0]["action"]["SetVariable"]["value"][:2] == "11"
    assert asked == ["workflow_page", "workflow_history", "workflow_sources"]
    aliases = " ".join(f"a{n}: definition" for n in range(30))
    answer = await server.graphql(f"{{ workflows {{ nodes {{ history {{ {aliases} }} }} }} }}")
    assert {error["extensions"]["code"] for error in answer["errors"]} == {"PAYLOAD_TOO_LARGE"}
    for first in (0, 101):
        assert await refused(server, f"{{ workflows {{ nodes {{ history(first: {first}) {{ version }} }} }} }}") == (
            "BAD_USER_INPUT"
        )


async def test_runs_and_jobs_that_show_each_other_unfold_within_bounds(server: Server) -> None:
    step = {"Job": {"queue": "q", "kind": "k"}}
    steps = [{"name": f"s{number}", "action": step} for number in range(100)]
    await register(server, {"name": "wide", "steps": steps})
    for _ in range(10):
        await run(server, "wide")
    inner = "jobs { run { jobs { run { jobs { run { id } } } } } }"
    began = time.monotonic()
    answer = await server.graphql(f"{{ workflowRuns {{ nodes {{ {inner} }} }} }}")
    assert {error["extensions"]["code"] for error in answer["errors"]} == {"PAYLOAD_TOO_LARGE"}
    assert time.monotonic() - began < 30, "10 · 100 · 100 · 100 jobs would take longer"


async def test_an_answer_is_bounded_however_large_the_contexts_are(server: Server) -> None:
    await register(server, waiting())
    for _ in range(12):
        await run(server, "wait", {"text": "x" * 900_000})
    aliases = " ".join(f"a{n}: context" for n in range(5))
    events = "events { " + " ".join(f"a{n}: data" for n in range(5)) + " }"
    for fields in (aliases, events):
        answer = await server.graphql(f"{{ workflowRuns {{ nodes {{ {fields} }} }} }}")
        codes = {error["extensions"]["code"] for error in answer["errors"]}
        assert (codes, len(str(answer)) < 40_000_000) == ({"PAYLOAD_TOO_LARGE"}, True)
    told = (await ask(server, "{ workflowRuns { nodes { context } } }"))["workflowRuns"]["nodes"]
    assert [len(node["context"]["text"]) for node in told] == [900_000] * 12
