"""Workflows through GraphQL: the life of a run, what is told of it, and to whom it is not."""

import json
from typing import Any

from tests.conftest import MakeServer, Server, admin, bearer
from tests.graphql.flows import FILM, REGISTER, RUN, WATCH, ended, register, run, waiting, work
from tests.graphql.helpers import ask, refused, subscribed

ABSENT = "01900000-0000-7000-8000-000000000000"


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
