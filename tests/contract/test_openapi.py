"""The OpenAPI document is valid, an answer that it does not describe is seen, and no input is answered with a 5xx."""

import asyncio
import json
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate

from atomo_gql.api.rest.routes import ROUTES
from tests.conftest import Server, admin
from tests.openapi import PROBLEM, Answer, contract

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_FIELDS = [
    "queue",
    "kind",
    "payload",
    "queues",
    "capacity",
    "visibilitySecs",
    "leaseId",
    "percent",
    "message",
    "data",
    "result",
    "error",
    "retryable",
    "name",
    "tenantId",
    "idempotencyKey",
    "maxAttempts",
    "priority",
    "runAt",
]
_BODY = st.dictionaries(st.sampled_from(_FIELDS), _JSON, max_size=6) | _JSON
_CALL = st.tuples(
    st.sampled_from([(name, path) for path, methods in ROUTES.items() for name in methods]),
    _BODY,
    st.text(min_size=1, max_size=12),
)


async def test_the_document_is_valid_and_names_every_route(server: Server) -> None:
    status, document = await server.call("GET", "/openapi.json")
    validate(document)
    assert (status, set(document["paths"])) == (200, set(ROUTES))


async def test_the_document_says_what_is_a_time(server: Server) -> None:
    _, document = await server.call("GET", "/openapi.json")
    untold = [
        f"{name}.{field}"
        for name, schema in document["components"]["schemas"].items()
        for field, described in schema.get("properties", {}).items()
        if field.endswith("At") and "date-time" not in json.dumps(described)
    ]
    assert untold == []


_ID = "0190f3a8-7c1e-7000-8000-0123456789ab"
_TOKEN = {
    "id": _ID,
    "name": "n",
    "queues": ["q"],
    "tenantId": None,
    "isRevoked": False,
    "createdAt": "2026-01-01T00:00:00Z",
    "createdBy": "user:root",
    "revokedAt": None,
    "kinds": None,
    "expiresAt": None,
    "lastUsedAt": None,
}
_WRONG = {"type": "about:blank", "status": 404, "title": "Not found", "detail": "d", "code": "NOT_FOUND"}


def _check(method: str, path: str, status: int, body: Any = None, media_type: str = "application/json") -> None:
    raw = b"" if body is None else json.dumps(body).encode()
    contract().check(method, path, Answer(status, {"Content-Type": media_type} if media_type else {}, raw))


def test_answers_as_documented_pass() -> None:
    _check("POST", "/jobs", 201, {"id": _ID})
    _check("GET", "/jobs/workers", 200, {"workers": [_TOKEN]})
    _check("HEAD", "/jobs/workers", 200)
    _check("DELETE", f"/jobs/workers/{_ID}", 204, media_type="")
    _check("DELETE", f"/jobs/workers/{_ID}", 404, _WRONG, PROBLEM)
    _check("PUT", "/jobs", 405, {**_WRONG, "status": 405}, PROBLEM)
    _check("GET", "/nothing", 418, "of no interest")


@pytest.mark.parametrize(
    ("method", "path", "status", "body", "media_type"),
    [
        ("POST", "/jobs", 200, {"id": _ID}, "application/json"),
        ("POST", "/jobs", 201, {"id": _ID}, "text/plain"),
        ("POST", "/jobs", 201, {"id": _ID}, ""),
        ("POST", "/jobs", 201, {"id": "not a UUID"}, "application/json"),
        ("POST", "/jobs", 201, {"id": _ID, "more": 1}, "application/json"),
        ("POST", "/jobs", 201, {}, "application/json"),
        ("PUT", "/jobs", 201, {"id": _ID}, "application/json"),
        ("POST", "/jobs", 405, {**_WRONG, "status": 405}, PROBLEM),
        ("GET", "/jobs/workers", 200, {"workers": [_TOKEN | {"createdAt": "yesterday"}]}, "application/json"),
        ("GET", "/jobs/workers", 200, {"workers": [_TOKEN | {"hash": "x"}]}, "application/json"),
        (
            "GET",
            "/jobs/workers",
            200,
            {"workers": [{k: v for k, v in _TOKEN.items() if k != "name"}]},
            "application/json",
        ),
        ("HEAD", "/jobs/workers", 200, {"workers": []}, "application/json"),
        ("DELETE", "/jobs/workers/x", 204, {}, ""),
        ("DELETE", "/jobs/workers/x", 204, None, "application/json"),
        ("DELETE", "/jobs/workers/x", 404, _WRONG, "application/json"),
        ("DELETE", "/jobs/workers/x", 404, {**_WRONG, "status": 400}, PROBLEM),
        ("DELETE", "/jobs/workers/x", 409, {**_WRONG, "status": 409}, PROBLEM),
    ],
)
def test_other_answers_fail(method: str, path: str, status: int, body: Any, media_type: str) -> None:
    with pytest.raises(AssertionError, match=f"answered {status}"):
        _check(method, path, status, body, media_type)


@pytest.fixture
async def call(server: Server) -> Any:
    """Make a call of any plane, on the session's loop; the status."""
    loop = asyncio.get_running_loop()
    worker = await server.mint("*")
    job_id = await server.enqueue()
    headers = admin() | {"X-Worker-Token": worker.token}

    def make(method: str, path: str, body: Any) -> int:
        return loop.run_until_complete(server.call(method, path, body, headers=headers))[0]

    make.job_id = job_id  # type: ignore[attr-defined]
    return make


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(_CALL)
def test_no_input_gives_a_500(call: Any, wanted: Any) -> None:
    (method, path), body, text = wanted
    path = path.replace("{id}", call.job_id if random.random() < 0.5 else text.replace("/", "_"))
    try:
        status = call(method, path, None if method == "GET" else body)
    except (UnicodeEncodeError, ValueError):
        return  # the client itself cannot send it
    assert status < 500
