"""Workflows through REST: what is registered, what is refused by its place, and what a run answers."""

import asyncio
import json
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from tests.conftest import MakeServer, Server, admin, bearer, until
from tests.contract.conftest import waits_for_locks
from tests.contract.table import RUN, RUN_LINE, STEP, WORKFLOW, World, line, refused

REGISTER, RUN_IT, RUNS = (
    line("POST", "/workflows"),
    line("POST", "/workflows/{name}/run"),
    line("GET", "/workflows/runs"),
)
ACME, OTHER = bearer(tenant_id="acme"), bearer(tenant_id="other")


def _set(name: str, value: Any = 1) -> dict[str, Any]:
    return {"name": name, "action": {"SetVariable": {"key": name, "value": value}}}


def _job(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "action": {"Job": {"queue": "q", "kind": "k", **fields}}}


def _flow(name: str, *steps: Any, **fields: Any) -> dict[str, Any]:
    return {"name": name, "steps": list(steps), **fields}


async def _register(server: Server, definition: Any, **headers: Any) -> Any:
    status, answer = await server.call("POST", "/workflows", definition, headers=headers.get("headers") or admin())
    assert status == 201, answer
    return answer


async def _run(server: Server, name: str, context: Any = None, *, headers: Any = None, **more: str) -> Any:
    path = f"/workflows/{quote(name, safe='')}/run"
    status, answer = await server.call("POST", path, context, headers={**(headers or bearer()), **more})
    assert status == 200, answer
    return answer


async def test_a_definition_that_changes_is_a_new_version_and_the_same_again_is_none(server: Server) -> None:
    first = await _register(server, _flow("f", _set("a")))
    assert set(first) == WORKFLOW
    assert (first["definitionVersion"], first["trigger"], first["registeredBy"]) == (1, "Manual", "user:root")
    assert await _register(server, _flow("f", _set("a"))) == first
    second = await _register(server, _flow("f", _set("b")))
    assert (second["id"], second["definitionVersion"]) == (first["id"], 2)
    _, listed = await server.call("GET", "/workflows", headers=bearer())
    assert listed == {"workflows": [second]}


async def test_a_definition_that_can_be_read_no_more_hides_no_other(make_server: MakeServer, sql: Any) -> None:
    await _register(await make_server(), _flow("old", _set("a")))
    await sql.execute("""UPDATE workflow_definitions SET source = '{"name": "old", "steps": "?"}'""")
    server = await make_server()  # which has not read it before
    good = await _register(server, _flow("new", _set("a")))

    _, listed = await server.call("GET", "/workflows", headers=bearer())
    assert [one["name"] for one in listed["workflows"]] == ["new", "old"]
    assert "cannot be read any more: steps must be a list" in listed["workflows"][1]["description"]
    assert listed["workflows"][0] == good
    run = await _run(server, "old")
    assert (run["status"], len(run["errors"])) == ("Failed", 1)
    assert (await server.call("DELETE", "/workflows/old", headers=admin()))[0] == 204
    assert await _run(server, "new")


async def test_true_is_not_1_and_makes_another_version(server: Server) -> None:
    for version, value in enumerate((1, True, 1.5), 1):
        condition = {"field": "yes", "operator": "eq", "value": value}
        made = await _register(server, _flow("f", {**_set("a"), "condition": condition}))
        assert (made["definitionVersion"], made["definition"]["steps"][0]["condition"]) == (version, condition)


async def test_two_that_register_the_same_change_make_one_version(server: Server, sql: Any) -> None:
    await _register(server, _flow("f", _set("a")))
    async with sql.transaction():
        await sql.execute("SELECT FROM workflows WHERE name = 'f' FOR UPDATE")
        racing = asyncio.gather(*(_register(server, _flow("f", _set("b"))) for _ in range(2)))
        await until(lambda: waits_for_locks(sql, 2))
    assert [made["definitionVersion"] for made in await racing] == [2, 2]


async def test_a_run_answers_as_the_contract_has_it(server: Server) -> None:
    steps = [
        _set("greeting", "Hi {{ who }}"),
        {**_set("no"), "condition": {"field": "x", "operator": "eq", "value": 1}},
    ]
    await _register(server, _flow("f", *steps))
    run = await _run(server, "f", {"who": "Ada"})
    assert set(run) == RUN
    assert {name: run[name] for name in ("workflow", "status", "steps_run", "errors", "context")} == {
        "workflow": "f",
        "status": "Completed",
        "steps_run": 1,
        "errors": [],
        "context": {"who": "Ada", "greeting": "Hi Ada"},
    }
    assert (run["trigger"], run["tenantId"], run["definitionVersion"]) == ({"kind": "manual"}, None, 1)
    assert [(step["name"], step["status"]) for step in run["steps"]] == [("greeting", "completed"), ("no", "skipped")]
    assert {frozenset(step) for step in run["steps"]} == {STEP}
    assert await server.call("GET", f"/workflows/runs/{run['id']}", headers=bearer()) == (200, run)


@pytest.mark.parametrize(
    "lines", [[], ["Content-Length: 0"], ["Content-Length: 0", "Content-Type: text/plain"]], ids=str
)
async def test_no_body_is_an_empty_context(server: Server, lines: list[str]) -> None:
    await _register(server, _flow("f", _set("a")))
    address = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = ["POST /workflows/f/run HTTP/1.1", "Host: h", "Connection: close", *lines]
    head += [f"{name}: {value}" for name, value in bearer().items()]
    writer.write("\r\n".join([*head, "", ""]).encode())
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["context"] == {"a": 1}


async def test_a_step_that_waits_parks_the_run_and_its_job_tells_the_run(server: Server) -> None:
    group = {"name": "both", "parallel": [[_job("x", wait=True), _set("y")], [_set("z")]]}
    await _register(server, _flow("f", _set("a"), group, _set("last")))
    run = await _run(server, "f", headers=ACME)
    assert (run["status"], run["tenantId"], run["finishedAt"]) == ("Paused", "acme", None)
    shown = [(step["name"], step["status"], step["attempt"]) for step in run["steps"]]
    assert shown == [
        *(("a", "completed", 1), ("both", "open", 1), ("x", "waiting", 1)),
        *(("y", "pending", 0), ("z", "completed", 1), ("last", "pending", 0)),
    ]
    job = await server.job(run["context"]["job_id"], headers=ACME)
    assert (job["runId"], job["tenantId"], job["id"]) == (run["id"], "acme", run["steps"][2]["jobId"])
    assert (await server.job(await server.enqueue()))["runId"] is None


async def test_a_result_that_no_context_can_hold_fails_its_step_as_the_step_says(server: Server) -> None:
    await _register(server, _flow("f", {**_job("a", wait=True), "on_failure": "Continue"}, _set("b")))
    run = await _run(server, "f")
    worker = await server.mint("*")
    [job] = await worker.lease("q")
    assert (await worker.report("complete", job, result=json.loads(_DEEP)))[0] == 204

    async def ended() -> Any:
        _, found = await server.call("GET", f"/workflows/runs/{run['id']}", headers=bearer())
        return found if found["finishedAt"] else None

    found = await until(ended)
    assert (found["status"], [step["status"] for step in found["steps"]]) == ("Completed", ["passed", "completed"])
    assert "nested deeper than 250 levels" in found["errors"][0]


async def test_a_run_is_cancelled_with_its_job_and_retried_from_where_it_was(server: Server) -> None:
    await _register(server, _flow("f", _set("a"), _job("b", wait=True)))
    run = await _run(server, "f")
    path = f"/workflows/runs/{run['id']}"
    status, cancelled = await server.call("POST", f"{path}/cancel", {"reason": "enough"}, headers=bearer())
    assert (status, cancelled["status"]) == (200, "Failed")
    assert cancelled["errors"] == ["cancelled by user:alice: enough"]
    assert (await server.job(run["context"]["job_id"]))["status"] == "dead"
    assert await server.call("POST", f"{path}/cancel", headers=bearer()) == (200, cancelled)

    status, retried = await server.call("POST", f"{path}/retry", headers=bearer())
    assert (status, retried["status"], retried["errors"]) == (200, "Paused", [])
    assert [(step["name"], step["attempt"]) for step in retried["steps"]] == [("a", 1), ("b", 2)]
    assert retried["context"]["job_id"] != run["context"]["job_id"]


async def test_a_run_that_has_completed_is_neither_cancelled_nor_retried(world: World) -> None:
    await _register(world.server, _flow(f"done {world.queue}", _set("a")))
    run = await _run(world.server, f"done {world.queue}")
    for verb in ("cancel", "retry"):
        row = line("POST", f"/workflows/runs/{{id}}/{verb}")
        answer = await world.refuse(row, 400, path=f"/workflows/runs/{run['id']}/{verb}")
        assert "completed" in answer.body["detail"]


async def test_the_same_key_is_the_same_run_of_a_tenant(server: Server) -> None:
    await _register(server, _flow("f", _set("a")))
    await _register(server, _flow("g", _set("a")))
    key = {"Idempotency-Key": "once"}
    runs = await asyncio.gather(*(_run(server, "f", {"n": n}, **key) for n in range(10)))
    assert len({run["id"] for run in runs}) == 1
    assert all(run["context"] == runs[0]["context"] for run in runs)
    others = [await _run(server, "g", **key), await _run(server, "f", headers=ACME, **key), await _run(server, "f")]
    assert len({run["id"] for run in [*runs, *others]}) == 4


@pytest.mark.parametrize("key", ["", " ", "x" * 513, "a\tb", "\udcff"], ids=ascii)
async def test_a_malformed_key_is_refused_by_the_name_of_its_header(steady: World, key: str) -> None:
    answer = await steady.refuse(RUN_IT, 400, headers=bearer() | {"Idempotency-Key": key})
    assert answer.body["field"] == "Idempotency-Key"


_DEEP = "[" * 250 + "]" * 250


@pytest.mark.parametrize(
    ("context", "said"),
    [
        *(("[]", "JSON object"), ("null", "JSON object"), ("7", "JSON object"), ('{"a": NaN}', "must be JSON")),
        *(('{"run": 1}', "context.run is taken"), ('{"steps": {}}', "context.steps is taken")),
        *(('{"a": "\\u0000"}', "NUL"), ('{"a\\u0000": 1}', "NUL"), ('{"a": {"b": ["\\udc00"]}}', "lone surrogate")),
        *((f'{{"a": {2**64}}}', "64 bits"), ('{"a": 1e400}', "out of range"), (f'{{"a": {_DEEP}}}', "nested deeper")),
    ],
)
async def test_what_is_no_context_is_refused(steady: World, context: str, said: str) -> None:
    assert said in (await steady.refuse(RUN_IT, 400, data=context)).body["detail"]


def _in_third(action: Any) -> Any:
    return _flow("f", _set("a"), _set("b"), {"name": "c", "action": action})


@pytest.mark.parametrize(
    ("definition", "field"),
    [
        *(({"steps": [_set("a")]}, "name"), (_flow("f"), "steps"), (_flow(" ", _set("a")), "name")),
        *((_flow("a/b", _set("a")), "name"), (_flow("runs", _set("a")), "name"), (_flow("..", _set("a")), "name")),
        *((_flow("x" * 201, _set("a")), "name"), (_flow("a\nb", _set("a")), "name"), (_flow("7", 7), "steps[0]")),
        (_flow("f", _set("a"), owner="me"), "owner"),
        (_flow("f", _set("a"), trigger="Now"), "trigger"),
        (_flow("f", _set("a"), trigger={"Schedule": {"cron": "* * *"}}), "trigger.Schedule.cron"),
        (_flow("f", _set("a"), trigger={"Schedule": {"cron": "0 0 30 2 *"}}), "trigger.Schedule.cron"),
        (
            _flow("f", _set("a"), trigger={"Schedule": {"cron": "* * * * *", "timezone": "Mars/Base"}}),
            "trigger.Schedule.timezone",
        ),
        (
            _flow("f", _set("a"), trigger={"OnEvent": {"model": "Deal", "event_type": "won"}}),
            "trigger.OnEvent.event_type",
        ),
        (_flow("f", _set("a"), _set("a")), "steps[1].name"),
        (_flow("f", {"name": "a"}), "steps[0]"),
        (_in_third({"Mail": {}}), "steps[2].action"),
        (_in_third({"Job": {"kind": "k"}}), "steps[2].action.Job.queue"),
        (_in_third({"Job": {"queue": 7, "kind": "k"}}), "steps[2].action.Job.queue"),
        (_in_third({"Job": {"queue": "*", "kind": "k"}}), "steps[2].action.Job.queue"),
        (_in_third({"Job": {"queue": "q", "kind": "k", "max_attempts": 0}}), "steps[2].action.Job.max_attempts"),
        (_in_third({"Job": {"queue": "q", "kind": "k", "wait": 1}}), "steps[2].action.Job.wait"),
        (_in_third({"Job": {"queue": "q", "kind": "k", "payload": "{{ a"}}), "steps[2].action.Job.payload"),
        (_in_third({"SetVariable": {"key": "run", "value": 1}}), "steps[2].action.SetVariable.key"),
        (_in_third({"Delay": {"seconds": -1}}), "steps[2].action.Delay.seconds"),
        (_flow("f", {**_set("a"), "on_failure": "Explode"}), "steps[0].on_failure"),
        (
            _flow("f", {**_set("a"), "condition": {"field": "x", "operator": "like", "value": 1}}),
            "steps[0].condition.operator",
        ),
        (_flow("f", *({"name": f"s{n}", "action": _set("a")["action"]} for n in range(1_000))), "steps"),
        (_flow("f", _set("a", "a\x00b")), "definition"),
        (_flow("f", _set("a", 2**64)), "definition"),
    ],
)
async def test_a_definition_is_refused_by_the_place_that_is_wrong(steady: World, definition: Any, field: str) -> None:
    answer = await steady.refuse(REGISTER, 400, data=json.dumps(definition).encode())
    assert (answer.body["field"], field in answer.body["detail"]) == (field, True)


@pytest.mark.parametrize("value", ['"\\ud800"', "1e400", "NaN", "[" * 300 + "]" * 300, "[" * 100_000 + "]" * 100_000])
async def test_a_definition_with_what_no_json_can_be_is_refused(steady: World, value: str) -> None:
    raw = json.dumps(_flow("f", _set("a", "HERE"))).replace('"HERE"', value)
    await steady.refuse(REGISTER, 400, data=raw.encode())


async def test_a_definition_over_its_limit_is_413(steady: World) -> None:
    await steady.refuse(REGISTER, 413, data=json.dumps(_flow("f", _set("a", "x" * 262_144))).encode())


@pytest.mark.parametrize("name", ["run", "a b", "50% off?", "ä#ö", "nightly.v2", "Übung", "x" * 200, "%2F", "+"])
async def test_a_name_is_found_by_its_path(server: Server, name: str) -> None:
    await _register(server, _flow(name, _set("a"), trigger={"OnEvent": {"model": "M", "event_type": "created"}}))
    path = f"/workflows/{quote(name, safe='')}"
    assert (await _run(server, name))["workflow"] == name
    assert (await server.call("GET", path, headers=bearer()))[1]["name"] == name
    for verb, is_paused in (("pause", True), ("pause", True), ("resume", False), ("resume", False)):
        status, answer = await server.call("POST", f"{path}/{verb}", headers=admin())
        assert (status, answer["isPaused"], answer["name"]) == (200, is_paused, name)
    assert (await server.call("DELETE", path, headers=admin()))[0] == 204
    for method, rest in (("GET", ""), ("POST", "/run"), ("DELETE", "")):
        refused(await server.ask(method, path + rest, headers=admin()), 404)


async def test_a_schedule_tells_its_next_ticks_until_it_is_paused(server: Server) -> None:
    made = await _register(server, _flow("f", _set("a"), trigger={"Schedule": {"cron": "0 6 * * *"}}))
    assert (len(made["nextTicks"]), made["nextTicks"][0]) == (5, made["nextAt"])
    assert {tick[10:] for tick in made["nextTicks"]} == {"T06:00:00Z"}
    _, paused = await server.call("POST", "/workflows/f/pause", headers=admin())
    assert (paused["nextAt"], paused["nextTicks"], paused["pausedBy"]) == (None, [], "user:root")


async def test_a_workflow_that_only_people_begin_has_nothing_to_pause(world: World) -> None:
    await _register(world.server, _flow(f"by hand {world.queue}", _set("a")))
    row = line("POST", "/workflows/{name}/pause")
    path = f"/workflows/{quote(f'by hand {world.queue}')}/pause"
    assert "neither a schedule nor an event" in (await world.refuse(row, 400, path=path)).body["detail"]


async def test_a_tenant_has_its_own_workflows_and_those_of_the_service(server: Server) -> None:
    await _register(server, _flow("shared", _set("by", "service")))
    await _register(server, _flow("shared", _set("by", "acme")), headers=admin(tenant_id="acme"))
    await _register(server, _flow("own", _set("a")), headers=admin() | {"X-Tenant-ID": "acme"})

    async def seen(headers: Any) -> list[tuple[str, Any]]:
        _, listed = await server.call("GET", "/workflows", headers=headers)
        return [(one["name"], one["tenantId"]) for one in listed["workflows"]]

    assert await seen(OTHER) == await seen(bearer()) == [("shared", None)]
    assert await seen(ACME) == [("own", "acme"), ("shared", None), ("shared", "acme")]
    assert await seen(admin()) == await seen(ACME)
    assert (await _run(server, "shared", headers=ACME))["context"] == {"by": "acme"}
    assert (await _run(server, "shared", headers=OTHER))["context"] == {"by": "service"}
    refused(await server.ask("POST", "/workflows/own/run", headers=OTHER), 404)
    refused(await server.ask("DELETE", "/workflows/own", headers=admin(tenant_id="other")), 404)
    refused(await server.ask("DELETE", "/workflows/shared", headers=admin(tenant_id="other")), 404)


async def test_a_run_of_somebody_else_is_not_found(server: Server) -> None:
    await _register(server, _flow("f", _job("a", wait=True)))
    run = await _run(server, "f", headers=ACME)
    path = f"/workflows/runs/{run['id']}"
    for headers in (OTHER, bearer(), admin(tenant_id="other"), admin() | {"X-Tenant-ID": "other"}):
        refused(await server.ask("GET", path, headers=headers), 404)
        for verb in ("cancel", "retry"):
            refused(await server.ask("POST", f"{path}/{verb}", headers=headers), 404)
        assert (await server.call("GET", "/workflows/runs", headers=headers))[1]["runs"] == []
    for headers in (ACME, admin(), admin(tenant_id="acme")):
        assert await server.call("GET", path, headers=headers) == (200, run)


async def test_runs_are_listed_newest_first_by_workflow_and_state(server: Server) -> None:
    await _register(server, _flow("f", _set("a")))
    await _register(server, _flow("g", _job("a", wait=True)))
    ids = [(await _run(server, name))["id"] for name in ("f", "g", "f", "g", "f")][::-1]

    async def listed(query: str = "") -> tuple[list[str], bool]:
        answer = await server.ask("GET", f"/workflows/runs{query}", headers=bearer())
        assert answer.status == 200, answer.body
        assert {frozenset(run) for run in answer.body["runs"]} <= {RUN_LINE}
        return [run["id"] for run in answer.body["runs"]], answer.body["hasMore"]

    assert await listed() == (ids, False)
    assert await listed("?workflow=f") == (ids[::2], False)
    assert await listed("?status=Paused") == (ids[1::2], False)
    assert await listed("?status=Paused&status=Completed&workflow=") == (ids, False)
    assert await listed("?status=Failed") == ([], False)
    assert await listed("?workflow=null") == ([], False)
    assert await listed("?first=2") == (ids[:2], True)
    assert await listed(f"?first=2&after={ids[1]}") == (ids[2:4], True)
    assert await listed(f"?first=2&after={ids[3]}") == (ids[4:], False)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        *(
            ("first=0", "first"),
            ("first=101", "first"),
            ("first=x", "first"),
            ("first=-1", "first"),
            ("first=1.5", "first"),
        ),
        *((f"first={'9' * 5_000}", "first"), ("first=%D9%A3", "first"), ("first=1&first=2", "first")),
        *(("after=x", "after"), ("after=%00", "after"), ("status=paused", "status"), ("status=%00", "status")),
        *(("workflow=%00", "workflow"), (f"workflow={'x' * 201}", "workflow"), ("workflow=+", "workflow")),
        *(
            ("workflows=f", "workflows"),
            ("%FF=1", None),
            ("workflow=%ff", None),
            ("&".join(["status=Paused"] * 101), None),
        ),
    ],
)
async def test_a_malformed_parameter_is_refused(steady: World, query: str, field: str | None) -> None:
    answer = await steady.refuse(RUNS, 400, path=f"/workflows/runs?{query}")
    assert answer.body.get("field") == field
