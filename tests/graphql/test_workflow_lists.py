"""Lists of workflows, runs and schedules through GraphQL: pages, and what belongs to them, within bounds."""

import time
from typing import Any

from tests.conftest import Server, admin, bearer
from tests.graphql.flows import FILM, ended, register, run, waiting, work
from tests.graphql.helpers import as_admin, ask, refused, statements_asked

PAGE = """query ($first: Int, $after: String, $last: Int, $before: String, $filter: WorkflowRunFilter,
                 $order: WorkflowRunOrder! = NEWEST_FIRST) {
  workflowRuns(first: $first, after: $after, last: $last, before: $before, filter: $filter, orderBy: $order) {
    nodes { id } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }"""


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
    asked = await statements_asked(server, monkeypatch)
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
