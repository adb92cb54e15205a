"""What is done again: steps by a retry, ticks that were missed."""

from datetime import timedelta
from typing import Any

from tests.conftest import Server, admin, bearer

_STEP = {"name": "s", "action": {"SetVariable": {"key": "done", "value": True}}}


async def _register(server: Server, **definition: Any) -> Any:
    status, answer = await server.call("POST", "/workflows", {"name": "w", **definition}, headers=admin())
    assert status == 201, answer
    return answer


async def test_a_step_whose_condition_failed_does_not_act_when_it_is_retried(server: Server) -> None:
    condition = {"field": "a", "operator": "eq", "value": "{{ nothing }}"}
    await _register(server, steps=[{**_STEP, "condition": condition}])
    _, run = await server.call("POST", "/workflows/w/run", {"a": 1}, headers=bearer())
    _, again = await server.call("POST", f"/workflows/runs/{run['id']}/retry", headers=bearer())
    for seen in (run, again):
        assert seen["status"] == "Failed"
        assert seen["errors"] == ['s: condition: nothing is not in the context: there is no "nothing"']
        assert seen["context"] == {"a": 1}
    assert [run["steps"][0]["attempt"], again["steps"][0]["attempt"]] == [1, 2]


async def test_all_missed_ticks_are_made_up_for_and_of_too_many_the_last_hundred(server: Server, sql: Any) -> None:
    await _register(server, trigger={"Schedule": {"cron": "0 * * * *", "missed": "all"}}, steps=[_STEP])
    first = await sql.fetchval("SELECT next_at FROM workflows")
    schedules = server.application.services.schedules

    async def begun() -> list[str]:
        rows = await sql.fetch("DELETE FROM workflow_runs RETURNING key")
        return sorted(row["key"] for row in rows)

    def ticks(least: int, most: int) -> list[str]:
        return [(first + timedelta(hours=n)).strftime("tick:%Y-%m-%dT%H:00:00Z") for n in range(least, most)]

    await schedules.turn(first + timedelta(hours=99))
    assert await begun() == ticks(0, 100)
    await schedules.turn(first + timedelta(hours=600, minutes=1))
    assert await begun() == ticks(501, 601)
    await schedules.turn(first + timedelta(hours=601))
    assert await begun() == ticks(601, 602)
