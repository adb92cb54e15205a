"""The commands for workflows, schedules, actions and events, run as people run them."""

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.cli.test_manage import run
from tests.conftest import Server, bearer

_GREET = {"name": "greet all", "steps": [{"name": "say", "action": {"SetVariable": {"key": "said", "value": "Hi"}}}]}
_CALL = {
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
    assert (await run(server, "workflow", "register", file))[1] == "greet all is registered, version 1\n"

    status, out, _ = await run(server, "workflow", "show", "greet all")
    assert (status, '"said"' in out, out.split()[:2]) == (0, True, ["id", out.split()[1]])
    assert json.loads((await run(server, "workflow", "show", "greet all", "--json"))[1])["definition"] == _GREET

    status, out, _ = await run(server, "workflow", "run", "greet all", "--context", '{"who": "Ada"}', "--key", "é")
    run_id, _, told = out.partition(" ")
    assert (status, told) == (0, "is completed\n")
    again = json.loads((await run(server, "workflow", "run", "greet all", "--key", "é", "--json"))[1])
    assert (again["id"], again["context"]) == (run_id, {"who": "Ada", "said": "Hi"})
    status, out, _ = await run(server, "workflow", "status", run_id)
    assert (status, out.splitlines()[0]) == (0, f"{run_id} is completed")
    assert out.splitlines()[-1] == 'context: {"who": "Ada", "said": "Hi"}'

    assert (await run(server, "workflow", "remove", "greet all"))[:2] == (0, "greet all is removed\n")
    status, _, err = await run(server, "workflow", "run", "greet all")
    assert (status, err) == (1, "Error: there is no workflow 'greet all'\n")


async def test_the_list_lines_up_within_80_columns(server: Server, tmp_path: Path) -> None:
    await _register(server, tmp_path, _GREET, _CALL, _NIGHTLY)
    status, out, _ = await run(server, "workflow", "list")
    head, *lines = out.splitlines()
    assert status == 0
    assert [line.split()[0] for line in lines] == ["call", "greet", "nightly"]
    assert {len(line) <= 80 for line in [head, *lines]} == {True}
    at = head.index("begun by")
    assert [line[at:].split("  ")[0] for line in lines] == ["Deal updated", "people", "30 2 * * *, Europe/Berlin"]
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


async def test_runs_are_listed_cancelled_and_retried(server: Server, tmp_path: Path) -> None:
    await _register(server, tmp_path, _CALL, _GREET)
    made = json.loads((await run(server, "workflow", "run", "call", "--json"))[1])
    await run(server, "workflow", "run", "greet all")
    status, out, _ = await run(server, "workflow", "runs", "--workflow", "call", "--status", "paused")
    [line] = out.splitlines()
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
    first, condition = out.splitlines()
    assert (status, first) == (0, f"{binding_id}  open       Deal updated → actions  deal.notify")
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
