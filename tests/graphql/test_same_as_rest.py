"""Workflows and actions have the same effect, the same code and the same words through GraphQL and REST."""

from typing import Any
from urllib.parse import quote

import pytest

from tests.conftest import Server, admin, bearer
from tests.graphql.flows import BIND, FILM, MAIL, RECORD, REGISTER, REMOVE, RESUME, register, waiting

ABSENT = "01900000-0000-7000-8000-000000000000"
_RUN = """mutation ($name: String!, $context: JSON) { runWorkflow(name: $name, context: $context) {
  workflow status stepsRun errors context } }"""
_GRAPHQL = {
    "register": REGISTER,
    "run": _RUN,
    "get": "query ($id: ID!) { workflowRun(id: $id) { id } }",
    "cancel": "mutation ($id: ID!) { cancelWorkflowRun(id: $id) { id } }",
    "retry": "mutation ($id: ID!) { retryWorkflowRun(id: $id) { id } }",
    "remove": "mutation ($name: String!) { removeWorkflow(name: $name) { id } }",
    "record": RECORD,
    "bind": BIND,
    "unbind": REMOVE,
    "resume": RESUME,
}
_REST = {
    "register": ("POST", "/workflows", "definition"),
    "run": ("POST", "/workflows/{name}/run", "context"),
    "get": ("GET", "/workflows/runs/{id}", None),
    "cancel": ("POST", "/workflows/runs/{id}/cancel", "body"),
    "retry": ("POST", "/workflows/runs/{id}/retry", "body"),
    "remove": ("DELETE", "/workflows/{name}", None),
    "record": ("POST", "/events", ""),
    "bind": ("POST", "/actions", "binding"),
    "unbind": ("DELETE", "/actions/{id}", None),
    "resume": ("POST", "/actions/{id}/resume", "body"),
}
EVENT: dict[str, Any] = {"model": "Deal", "event": "created", "id": "7", "data": {}}
SCENARIOS: list[tuple[str, dict[str, str], dict[str, Any]]] = [
    ("register", admin(), {"definition": FILM}),
    ("register", bearer(), {"definition": FILM}),
    ("register", {"Authorization": "Bearer x"}, {"definition": FILM}),
    ("register", admin(), {"definition": {"name": "x"}}),
    ("register", admin(), {"definition": {"name": " ", "steps": []}}),
    ("register", admin(), {"definition": waiting(trigger={"Schedule": {"cron": "x"}})}),
    ("register", admin(), {"definition": {"name": "x", "steps": [{"name": "a", "action": {"Job": {"queue": "q"}}}]}}),
    ("run", bearer(), {"name": "wait", "context": {"a": 1}}),
    ("run", bearer(), {"name": "nothing", "context": {}}),
    ("run", bearer(), {"name": "wait", "context": {"steps": 1}}),
    ("run", bearer(), {"name": "wait", "context": {"a": "\u0000"}}),
    ("get", bearer(), {"id": ABSENT}),
    ("cancel", bearer(), {"id": ABSENT}),
    ("retry", bearer(), {"id": ABSENT}),
    ("remove", admin(), {"name": "nothing"}),
    ("remove", admin(tenant_id="acme"), {"name": "wait"}),
    ("remove", bearer(), {"name": "wait"}),
    ("record", bearer(), EVENT | {"eventId": "e"}),
    ("record", bearer(), EVENT | {"model": "Job"}),
    ("record", bearer(), EVENT | {"model": "\u0007"}),
    ("record", bearer(), EVENT | {"event": "sold"}),
    ("record", bearer(), EVENT | {"origin": ""}),
    ("record", bearer(), EVENT | {"eventId": "x" * 400}),
    ("bind", admin(), {"binding": MAIL}),
    ("bind", bearer(), {"binding": MAIL}),
    ("bind", admin(), {"binding": MAIL | {"queue": "*"}}),
    ("bind", admin(), {"binding": {**MAIL, "condition": {"fieldEquals": {}}}}),
    ("bind", admin(), {"binding": {"model": "Deal"}}),
    ("unbind", admin(), {"id": ABSENT}),
    ("unbind", bearer(), {"id": ABSENT}),
    ("resume", admin(), {"id": ABSENT}),
]


async def _rest(server: Server, verb: str, headers: dict[str, str], fields: dict[str, Any]) -> tuple[str, Any]:
    method, path, part = _REST[verb]
    body = None if part is None else fields if part == "" else fields.get(part, {})
    for name in ("id", "name"):
        path = path.replace(f"{{{name}}}", quote(str(fields.get(name, "")), safe=""))
    status, answer = await server.call(method, path, body, headers=headers)
    if status < 400:
        return "OK", answer
    return answer["code"], (answer["detail"], answer.get("field"))


async def _graphql(server: Server, verb: str, headers: dict[str, str], fields: dict[str, Any]) -> tuple[str, Any]:
    body = {"query": _GRAPHQL[verb], "variables": fields}
    status, answer = await server.call("POST", "/graphql", body, headers=headers)
    if status != 200:
        return answer["errors"][0]["extensions"]["code"], (answer["errors"][0]["message"], None)
    if errors := answer.get("errors"):
        return errors[0]["extensions"]["code"], (errors[0]["message"], errors[0]["extensions"].get("field"))
    [data] = answer["data"].values()
    return ("OK", data) if data is not None else ("NOT_FOUND", (f"there is no run {fields['id']}", None))


@pytest.mark.parametrize(
    ("verb", "headers", "fields"), SCENARIOS, ids=[f"{n} {verb}" for n, (verb, _, _) in enumerate(SCENARIOS)]
)
async def test_both_edges_answer_the_same(
    server: Server, verb: str, headers: dict[str, str], fields: dict[str, Any]
) -> None:
    await register(server, waiting())
    code, told = await _graphql(server, verb, headers, fields)
    rest_code, rest_told = await _rest(server, verb, headers, fields)
    assert code == rest_code, (told, rest_told)
    if code != "OK":
        assert told == rest_told
    elif verb == "run":
        shown = (rest_told["workflow"], rest_told["status"].upper(), rest_told["steps_run"], rest_told["errors"])
        assert (told["workflow"], told["status"], told["stepsRun"], told["errors"]) == shown
        contexts = [{k: v for k, v in t["context"].items() if k != "job_id"} for t in (told, rest_told)]
        assert contexts == [fields["context"]] * 2
    elif verb == "record":
        assert (told, rest_told) == ({"eventId": "e", "isNew": True}, {"eventId": "e", "isNew": False})
    else:
        assert told["id"] == rest_told["id"], "the same again is the same"
