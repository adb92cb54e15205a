"""Recorded events and bindings through REST."""

import asyncio
import json
from typing import Any

import pytest

from tests.conftest import Server, admin, bearer, until
from tests.contract.conftest import waits_for_locks
from tests.contract.table import BINDING, World, line, refused

REGISTER = line("POST", "/actions")
ACME, OTHER = bearer(tenant_id="acme"), bearer(tenant_id="other")
DEAL = {"model": "Deal", "event": "updated", "action": "deal.notify"}
EVENT = {"model": "Deal", "event": "updated", "id": "7", "data": {"stage": "won"}}


async def _bind(server: Server, *, headers: Any = None, **fields: Any) -> Any:
    status, answer = await server.call("POST", "/actions", {**DEAL, **fields}, headers=headers or admin())
    assert status == 201, answer
    return answer


async def _record(server: Server, *, headers: Any = None, **fields: Any) -> Any:
    status, answer = await server.call("POST", "/events", {**EVENT, **fields}, headers=headers or bearer())
    assert status == 201, answer
    return answer


async def test_a_binding_answers_what_it_is_and_the_same_again_is_the_same(server: Server) -> None:
    condition = {"changedAny": ["stage"], "fieldEquals": {"stage": "won"}}
    first = await _bind(server, condition=condition, input=["stage"])
    assert set(first) == BINDING
    assert {name: first[name] for name in ("queue", "condition", "input", "tenantId", "isSetAside", "error")} == {
        "queue": "actions",
        "condition": condition,
        "input": ["stage"],
        "tenantId": None,
        "isSetAside": False,
        "error": None,
    }
    again = await asyncio.gather(*(_bind(server, condition=condition, input=["stage"]) for _ in range(10)))
    assert {json.dumps(one) for one in again} == {json.dumps(first)}
    assert await server.call("GET", "/actions", headers=bearer()) == (200, {"bindings": [first]})


async def test_bindings_that_race_to_be_registered_are_one(server: Server, sql: Any) -> None:
    key = "hashtextextended('binding ' || E'\\x1f' || 'Deal', 0)"
    await sql.execute(f"SELECT pg_advisory_lock({key})")
    racing = asyncio.gather(_bind(server), _bind(server))
    await until(lambda: waits_for_locks(sql, 2))
    await sql.execute(f"SELECT pg_advisory_unlock({key})")
    first, second = await racing
    assert first == second
    assert len((await server.call("GET", "/actions", headers=admin()))[1]["bindings"]) == 1


async def test_an_event_is_recorded_once_by_its_id_and_fires(server: Server) -> None:
    await _bind(server)
    told = await asyncio.gather(*(_record(server, eventId="e1", headers=ACME) for _ in range(10)))
    assert {one["eventId"] for one in told} == {"e1"}
    assert sum(one["isNew"] for one in told) == 1
    assert (await _record(server, eventId="e1", headers=OTHER))["isNew"]
    worker = await server.mint("actions", headers=admin(tenant_id="acme"))
    [job] = await worker.lease("actions", capacity=10, waitSecs=30)
    assert (job["kind"], job["tenantId"]) == ("deal.notify", "acme")
    payload = job["payload"]
    assert {name: payload[name] for name in ("action", "model", "event", "eventId", "input", "actor", "origin")} == {
        "action": "deal.notify",
        "model": "Deal",
        "event": "updated",
        "eventId": "e1",
        "input": {"stage": "won"},
        "actor": "user:alice",
        "origin": None,
    }


async def test_an_event_without_an_id_gets_one_of_its_own(server: Server) -> None:
    first, second = await _record(server), await _record(server)
    assert first["eventId"] != second["eventId"]
    assert first["isNew"] is second["isNew"] is True


@pytest.mark.parametrize("data", [None, 7, "text", [], {}, {"a": [1.5, None]}])
async def test_any_json_is_data(server: Server, data: Any) -> None:
    await _bind(server)
    await _record(server, data=data)
    worker = await server.mint("actions")
    [job] = await worker.lease("actions", waitSecs=30)
    assert job["payload"]["input"] == data


async def test_what_happens_to_jobs_is_not_for_applications_to_record(steady: World) -> None:
    answer = await steady.refuse(line("POST", "/events"), 400, model="Job")
    assert answer.body["field"] == "model"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        *(
            ({"model": None}, "model"),
            ({"model": " "}, "model"),
            ({"model": "x" * 201}, "model"),
            ({"model": 7}, "model"),
        ),
        *(
            ({"event": "won"}, "event"),
            ({"event": None}, "event"),
            ({"action": ""}, "action"),
            ({"action": "a\nb"}, "action"),
        ),
        *(({"queue": "*"}, "queue"), ({"queue": 7}, "queue"), ({"tenant": "a"}, "tenant"), ({"input": []}, "input")),
        *(({"input": "stage"}, "input"), ({"input": ["stage", 7]}, "input[1]"), ({"condition": []}, "condition")),
        ({"condition": {"changed": ["a"]}}, "condition.changed"),
        ({"condition": {"changedAny": []}}, "condition.changedAny"),
        ({"condition": {"changedAny": ["a", ""]}}, "condition.changedAny[1]"),
        ({"condition": {"fieldEquals": {}}}, "condition.fieldEquals"),
        *(({"action": "a\x00b"}, "binding"), ({"condition": {"fieldEquals": {"a": 2**64}}}, "binding")),
    ],
)
async def test_a_binding_is_refused_by_the_place_that_is_wrong(steady: World, fields: Any, field: str) -> None:
    answer = await steady.refuse(REGISTER, 400, data=json.dumps({**DEAL, **fields}).encode())
    assert (answer.body["field"], field in answer.body["detail"]) == (field, True)


@pytest.mark.parametrize("name", ["model", "event", "action"])
async def test_a_binding_without_what_it_needs_is_refused(steady: World, name: str) -> None:
    body = {field: value for field, value in DEAL.items() if field != name}
    answer = await steady.refuse(REGISTER, 400, data=json.dumps(body).encode())
    assert (answer.body["field"], answer.body["detail"]) == (name, f"{name} is required")


async def test_a_binding_over_its_limit_is_413(steady: World) -> None:
    body = {**DEAL, "condition": {"fieldEquals": {"a": "x" * 65_536}}}
    await steady.refuse(REGISTER, 413, data=json.dumps(body).encode())


async def test_a_tenant_has_its_own_bindings_and_those_of_the_service(server: Server) -> None:
    shared, own = await _bind(server), await _bind(server, headers=admin(tenant_id="acme"))

    async def seen(headers: Any) -> list[str]:
        return [one["id"] for one in (await server.call("GET", "/actions", headers=headers))[1]["bindings"]]

    assert await seen(OTHER) == await seen(bearer()) == [shared["id"]]
    assert await seen(ACME) == await seen(admin()) == [shared["id"], own["id"]]
    refused(await server.ask("DELETE", f"/actions/{own['id']}", headers=admin(tenant_id="other")), 404)
    refused(await server.ask("DELETE", f"/actions/{shared['id']}", headers=admin(tenant_id="acme")), 404)
    assert (await server.call("DELETE", f"/actions/{own['id']}", headers=admin(tenant_id="acme")))[0] == 204
    refused(await server.ask("DELETE", f"/actions/{own['id']}", headers=admin()), 404)
    assert await seen(admin()) == [shared["id"]]


async def test_a_binding_that_was_set_aside_says_why_and_is_resumed_once(world: World) -> None:
    async def seen(headers: Any) -> tuple[bool, str | None]:
        bindings = (await world.server.call("GET", "/actions", headers=headers))[1]["bindings"]
        [found] = [one for one in bindings if one["id"] == world.binding]
        return found["isSetAside"], found["error"]

    assert await seen(admin()) == (True, "e")
    assert await seen(bearer()) == (True, None), "it names the event of some tenant"
    resume = line("POST", "/actions/{id}/resume")
    answer = (await world.ask(resume, skip=True)).body
    assert (answer["isSetAside"], answer["setAsideAt"], answer["error"]) == (False, None, None)
    assert "set aside" in (await world.refuse(resume, 404)).body["detail"]
