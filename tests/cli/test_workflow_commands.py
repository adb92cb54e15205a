"""The commands for workflows, schedules, actions and events, run as people run them."""

import asyncio
import json
import re
import socket
from pathlib import Path
from typing import Any

from tests.cli.test_manage import run, run_at
from tests.conftest import Server, admin, bearer, until

_GREET = {"name": "greet all", "steps": [{"name": "say", "action": {"SetVariable": {"key": "said", "value": "Hi"}}}]}
_CALL: dict[str, Any] = {
    "name": "call",
    "trigger": {"OnEvent": {"model": "Deal", "event_type": "updated"}},
    "steps": [
        {"name": "ask", "action": {"Job": {"queue": "calls", "kind": "call", "wait": True}}},
        {"name": "note", "action": {"SetVariable": {"key": "answer", "value": "{{ job_result.text }}"}}},
    ],
}
_NIGHTLY = {
    "name": "nightly",
    "trigger": {"Schedule": {"cron": "30 2 * * *", "timezone": "Europe/Berlin"}},
    "steps": _GREET["steps"],
}

_TRACEBACK = """Traceback (most recent call last):
  File "worker.py", line 12, in call
    raise ValueError(f"no customer has the number [{number}]")
ValueError: no customer has the number [4711]"""


def _write(folder: Path, name: str, content: Any) -> str:
    file = folder / name
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(file)


async def _register(server: Server, folder: Path, *definitions: Any) -> None:
    status, _, err = await run(server, "workflow", "register", _write(folder, "these.json", list(definitions)))
    assert status == 0, err


async def test_a_workflow_is_registered_shown_run_and_removed(server: Server, tmp_path: Path) -> None:
    file = _write(tmp_path, "greet.json", _GREET)
    assert await run(server, "workflow", "register", file) == (0, "greet all is registered, version 1\n", "")
    assert await run(server, "workflow", "register", file) == (0, "greet all is as it was, version 1\n", "")
    changed = _write(tmp_path, "changed.json", {**_GREET, "description": "Greets."})
    assert (await run(server, "workflow", "register", changed))[1] == "greet all is registered, version 2\n"
    assert (await run(server, "workflow", "register", file))[1] == "greet all is registered, version 3\n"
    assert json.loads((await run(server, "workflow", "show", "greet all", "--json"))[1])["definition"] == _GREET

    status, out, _ = await run(server, "workflow", "run", "greet all", "--context", '{"who": "Ada"}', "--key", "é")
    run_id, _, told = out.partition(" ")
    assert (status, told) == (0, "is completed\n")
    again = json.loads((await run(server, "workflow", "run", "greet all", "--key", "é", "--json"))[1])
    assert (again["id"], again["context"]) == (run_id, {"who": "Ada", "said": "Hi"})
    status, out, _ = await run(server, "workflow", "status", run_id)
    assert (status, out.splitlines()[0]) == (0, f"{run_id} is completed")
    assert out.endswith('\ncontext:\n{\n  "who": "Ada",\n  "said": "Hi"\n}\n')

    assert (await run(server, "workflow", "remove", "greet all"))[:2] == (0, "greet all is removed\n")
    status, _, err = await run(server, "workflow", "run", "greet all")
    assert (status, err) == (1, "Error: there is no workflow 'greet all'\n")
    assert (await run(server, "workflow", "register", file))[1] == "greet all is registered, version 4\n"


async def test_a_definition_is_shown_below_what_it_is(server: Server, tmp_path: Path) -> None:
    await _register(server, tmp_path, {**_GREET, "name": "a%2F[b] é", "description": "Greets."}, _CALL, _NIGHTLY)
    status, out, _ = await run(server, "workflow", "show", "a%2F[b] é")
    head, _, definition = out.partition("\n\n")
    assert status == 0
    assert [line.split("  ")[0] for line in head.splitlines()] == [
        *("name", "description", "version", "trigger", "state", "registered"),
    ]
    assert {line[13:] for line in head.splitlines()} >= {"a%2F[b] é", "Greets.", "1", "people", "open"}
    assert re.search(r"^registered   \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC by user:alice$", head, re.MULTILINE)
    assert json.loads(definition)["name"] == "a%2F[b] é"

    assert "\ntrigger     on Deal updated\n" in (await run(server, "workflow", "show", "call"))[1]
    said = (await run(server, "workflow", "show", "nightly"))[1]
    assert re.search(r"^trigger +30 2 \* \* \* Europe/Berlin, next [\d-]{10} 0[01]:30:00 UTC$", said, re.MULTILINE)
    await run(server, "workflow", "pause", "nightly")
    said = (await run(server, "workflow", "show", "nightly"))[1]
    assert re.search(r"^trigger +30 2 \* \* \* Europe/Berlin$", said, re.MULTILINE)
    assert re.search(r"^state +paused [\d-]{10} [\d:]{8} UTC by user:alice$", said, re.MULTILINE)


async def test_the_list_lines_up_within_80_columns(server: Server, tmp_path: Path) -> None:
    await _register(server, tmp_path, _GREET, _CALL, _NIGHTLY)
    status, out, _ = await run(server, "workflow", "list")
    head, *lines = out.splitlines()
    assert status == 0
    assert [line.split()[0] for line in lines] == ["call", "greet", "nightly"]
    assert {len(line) <= 80 for line in [head, *lines]} == {True}
    at = head.index("begun by")
    assert [line[at:].split("  ")[0] for line in lines] == ["Deal updated", "people", "30 2 * * * Europe/Berlin"]
    assert len(json.loads((await run(server, "workflow", "list", "--json"))[1])) == 3


async def test_watching_a_run_ends_with_how_it_ended(server: Server, tmp_path: Path) -> None:
    await _register(server, tmp_path, _CALL)
    worker = await server.mint("calls")
    made = json.loads((await run(server, "workflow", "run", "call", "--json"))[1])
    assert made["status"] == "Paused"
    watching = asyncio.create_task(run(server, "workflow", "watch", made["id"]))
    [job] = await worker.lease("calls")
    await worker.report("complete", job, result={"text": "yes"})
    status, out, _ = await watching
    assert status == 0
    assert [line.split()[:2] for line in out.splitlines()[-2:]] == [["ask", "completed"], ["note", "completed"]]
    assert job["id"] in out

    running = asyncio.create_task(run(server, "workflow", "run", "call", "--watch"))
    [job] = await worker.lease("calls", waitSecs=30)
    await worker.report("fail", job, error="nobody there", retryable=False)
    status, out, _ = await running
    assert (status, out.splitlines()[-1]) == (1, f"ask: job {job['id']} is dead: nobody there")


async def test_a_traceback_is_its_last_line_wherever_a_run_is_told_in_one(server: Server, tmp_path: Path) -> None:
    await _register(server, tmp_path, _CALL)
    worker = await server.mint("calls")
    running = asyncio.create_task(run(server, "workflow", "run", "call", "--key", "k", "--watch"))
    [job] = await worker.lease("calls", waitSecs=30)
    await worker.report("fail", job, error=_TRACEBACK, retryable=False)
    status, watched, _ = await running
    [made] = json.loads((await run(server, "workflow", "runs", "--json"))[1])
    told = f"ask: job {job['id']} is dead: ValueError: no customer has the number [4711]"
    assert (status, watched.splitlines()[-1]) == (1, told)
    [step] = [line for line in watched.splitlines() if line.startswith("ask  ")]
    assert step.split(job["id"])[1].strip().startswith("ValueError")
    assert len(step) <= 80

    again = await run(server, "workflow", "run", "call", "--key", "k")
    assert again == (1, f"{made['id']} is failed: {told}\n", "")
    [note] = (await run(server, "workflow", "runs"))[1].splitlines()[2:]
    assert (note[:-1], note[-1], len(note)) == (f"  {told}"[:79], "…", 80)
    assert "  ValueError: no customer has the number [4711]\n" in (await run(server, "job", "list"))[1]

    shown = (await run(server, "workflow", "status", made["id"]))[1]
    assert f"\n\nask: job {job['id']} is dead: {_TRACEBACK}\n\ncontext:\n" in shown
    assert "worker.py" in (await run(server, "job", "show", job["id"]))[1]


async def test_a_step_that_is_to_be_tried_again_tells_its_error_in_full(server: Server, tmp_path: Path) -> None:
    ask = {**_CALL["steps"][0], "on_failure": {"Retry": {"max_attempts": 2}}}
    await _register(server, tmp_path, {"name": "tries", "steps": [ask]})
    worker = await server.mint("calls")
    made = json.loads((await run(server, "workflow", "run", "tries", "--json"))[1])
    [job] = await worker.lease("calls")
    await worker.report("fail", job, error=_TRACEBACK, retryable=False)

    async def is_told() -> bool:
        _, found = await server.call("GET", f"/workflows/runs/{made['id']}", headers=admin())
        return bool(found["steps"][0]["error"])

    await until(is_told)
    assert _TRACEBACK in (await run(server, "workflow", "status", made["id"]))[1]


async def test_a_run_that_fails_at_once_ends_the_command_with_1(server: Server, tmp_path: Path) -> None:
    job = {"Job": {"queue": "{{ queue }}", "kind": "k"}}
    await _register(server, tmp_path, {"name": "lost", "steps": [{"name": "a", "action": job}]})
    status, out, err = await run(server, "workflow", "run", "lost", "--context", '{"queue": null}')
    assert (status, out.partition(" ")[2], err) == (1, "is failed: a: queue must be a text, not null\n", "")
    status, out, _ = await run(server, "workflow", "run", "lost", "--json")
    assert (status, json.loads(out)["status"]) == (1, "Failed")


async def test_a_name_that_no_path_can_hold_is_asked_of_no_other_route(server: Server, tmp_path: Path) -> None:
    await _register(server, tmp_path, _GREET)
    for command, name in (("show", "runs"), ("run", "runs"), ("show", "."), ("remove", ".."), ("pause", "runs")):
        said = (1, "", f"Error: no workflow can be called {name!r}\n")
        assert await run(server, "workflow", command, name) == said
    for name in ("", "a/b"):
        assert await run(server, "workflow", "show", name) == (1, "", f"Error: there is no workflow {name!r}\n")
    for command in ("status", "watch"):
        assert await run(server, "workflow", command, "..") == (1, "", "Error: there is no run '..'\n")
    assert await run(server, "action", "remove", "..") == (1, "", "Error: there is no binding '..'\n")
    assert await run(server, "workflow", "show", "a%2Fb?c#d") == (1, "", "Error: there is no workflow 'a%2Fb?c#d'\n")


async def test_no_line_of_a_table_ends_with_blanks(server: Server, tmp_path: Path) -> None:
    await _register(server, tmp_path, _GREET, _CALL, _NIGHTLY)
    binding = {"model": "D", "event": "created", "action": "a", "condition": {"changedAny": ["stage of it"] * 9}}
    await run(server, "action", "register", _write(tmp_path, "a.json", binding))
    made = json.loads((await run(server, "workflow", "run", "call", "--json"))[1])
    await run(server, "workflow", "cancel", made["id"])
    for command in (
        *(("workflow", "list"), ("workflow", "show", "nightly"), ("workflow", "runs"), ("schedule", "list")),
        *(("workflow", "status", made["id"]), ("workflow", "watch", made["id"]), ("action", "list")),
        *(("job", "list"), ("job", "show", made["steps"][0]["jobId"])),
    ):
        _, out, err = await run(server, *command)
        assert (err, len(out.splitlines()) >= 2) == ("", True), command
        assert [line for line in out.splitlines() if line != line.rstrip()] == [], command


async def test_a_server_that_is_away_is_named_with_what_to_set() -> None:
    with socket.socket() as deaf:  # it does not listen
        deaf.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        for url, why in ((closed, "Connection refused"), ("nowhere", "that is no URL of a server")):
            said = f"Error: the server cannot be reached at {url}: {why}; set ATOMO_URL or --url\n"
            for command in (("workflow", "list"), ("queue", "list")):
                assert await run_at(url, *command) == (1, "", said)


async def test_runs_are_listed_cancelled_and_retried(server: Server, tmp_path: Path) -> None:
    await _register(server, tmp_path, _CALL, _GREET)
    made = json.loads((await run(server, "workflow", "run", "call", "--json"))[1])
    await run(server, "workflow", "run", "greet all")
    status, out, _ = await run(server, "workflow", "runs", "--workflow", "call", "--status", "paused")
    head, line = out.splitlines()
    assert head.split("  ")[0] == "run" and [head.index(name) for name in ("state", "began, UTC", "workflow")] == [
        line.index(part) for part in ("paused", made["startedAt"][:10], "call")
    ]
    assert (status, line.split()[:2], line.split()[-1]) == (0, [made["id"], "paused"], "call")
    assert len(json.loads((await run(server, "workflow", "runs", "--json"))[1])) == 2
    assert "see --most" in (await run(server, "workflow", "runs", "--most", "1"))[2]

    said = f"{made['id']} is failed: cancelled by user:alice: wrong number\n"
    assert (await run(server, "workflow", "cancel", made["id"], "--reason", "wrong number"))[:2] == (0, said)
    assert (await run(server, "workflow", "retry", made["id"]))[:2] == (0, f"{made['id']} is paused\n")
    status, _, err = await run(server, "workflow", "cancel", "nothing")
    assert (status, err) == (1, "Error: there is no run 'nothing'\n")


async def test_schedules_tell_their_next_ticks(server: Server, tmp_path: Path) -> None:
    await _register(server, tmp_path, _NIGHTLY, _GREET)
    status, out, _ = await run(server, "schedule", "list")
    head, *lines = out.splitlines()
    assert (status, len(lines)) == (0, 3)
    assert max(map(len, [head, *lines])) <= 80
    assert {line[head.index("next") :][10:] in (" 00:30:00", " 01:30:00") for line in lines} == {True}
    [one] = json.loads((await run(server, "schedule", "list", "--json"))[1])
    assert (one["workflow"], one["timezone"], len(one["nextTicks"])) == ("nightly", "Europe/Berlin", 5)

    assert (await run(server, "workflow", "pause", "nightly"))[:2] == (0, "nightly is paused\n")
    assert (await run(server, "schedule", "list"))[1].splitlines()[1].split()[-1] == "paused"
    assert (await run(server, "workflow", "resume", "nightly"))[:2] == (0, "nightly is open\n")


async def test_an_action_is_bound_fires_and_is_removed(server: Server, tmp_path: Path) -> None:
    binding = {"model": "Deal", "event": "updated", "action": "deal.notify", "condition": {"changedAny": ["stage"]}}
    status, out, _ = await run(server, "action", "register", _write(tmp_path, "deal.json", binding))
    binding_id = out.split()[0]
    assert (status, out) == (0, f"{binding_id} fires deal.notify on Deal updated\n")
    status, out, _ = await run(server, "action", "list")
    head, first, condition = out.splitlines()
    assert (status, head) == (0, f"{'binding':<36}  state  event         queue    action")
    assert first == f"{binding_id}  open   Deal updated  actions  deal.notify"
    assert condition.strip() == 'condition {"changedAny": ["stage"]}'

    file = _write(tmp_path, "data.json", {"stage": "won"})
    event = ("event", "record", "Deal", "updated", "7", "--data", f"@{file}", "--previous", '{"stage": "open"}')
    assert await run(server, *event, "--event-id", "e1", role=None) == (0, "e1\n", "")
    assert await run(server, *event, "--event-id", "e1") == (0, "e1\n", "It had been recorded before.\n")
    worker = await server.mint("actions")
    [job] = await worker.lease("actions", waitSecs=30)
    assert (job["kind"], job["payload"]["input"], job["payload"]["eventId"]) == ("deal.notify", {"stage": "won"}, "e1")

    status, _, err = await run(server, "action", "resume", binding_id)
    assert (status, "that was set aside" in err) == (1, True)
    assert (await run(server, "action", "remove", binding_id))[:2] == (0, f"{binding_id} is removed\n")
    assert json.loads((await run(server, "action", "list", "--json"))[1]) == []


async def test_what_is_wrong_is_said_with_its_place(server: Server, tmp_path: Path) -> None:
    broken = _write(tmp_path, "broken.json", '{\n  "name": ,\n}')
    status, _, err = await run(server, "workflow", "register", broken)
    assert (status, err) == (1, f"Error: {broken}: line 2, column 11: Expecting value\n")
    bad = _write(
        tmp_path, "bad.json", [_GREET, {**_GREET, "name": "b", "steps": [{"name": "s", "action": {"Job": {}}}]}]
    )
    status, out, err = await run(server, "workflow", "register", bad)
    assert (status, out) == (1, "greet all is registered, version 1\n")
    assert err == f"Error: {bad}[1]: steps[0].action.Job.queue is required\n"
    status, _, err = await run(server, "workflow", "register", str(tmp_path / "none.json"))
    assert (status, "No such file" in err) == (1, True)
    for value, said in (("{", "not JSON"), ("@/nothing", "/nothing: No such file")):
        status, _, err = await run(server, "workflow", "run", "greet all", "--context", value)
        assert (status, said in err) == (2, True), err
    status, _, err = await run(server, "workflow", "run", "greet all", "--context", "[]")
    assert (status, err.startswith("Error: the body must be a JSON object")) == (1, True)
    binding = _write(tmp_path, "a.json", {"model": "D"})
    status, _, err = await run(server, "action", "register", binding, role=None)
    assert (status, err) == (1, f'Error: {binding}: this needs a token with the claim role: "admin"\n')


async def test_a_run_of_somebody_else_is_not_found(server: Server, tmp_path: Path) -> None:
    await _register(server, tmp_path, _CALL)
    _, made = await server.call("POST", "/workflows/call/run", headers=bearer(tenant_id="acme"))
    status, _, err = await run(server, "workflow", "watch", made["id"], role=None)
    assert (status, err) == (1, f"Error: there is no run {made['id']}\n")
