"""The OpenAPI document is valid, and no input of any shape is answered with a 5xx."""

import asyncio
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate

from atomo_gql.api.rest.routes import ROUTES
from tests.conftest import Server, admin

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


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_CALL)
def test_no_input_gives_a_500(call: Any, wanted: Any) -> None:
    (method, path), body, text = wanted
    path = path.replace("{id}", call.job_id if random.random() < 0.5 else text.replace("/", "_"))
    try:
        status = call(method, path, None if method == "GET" else body)
    except (UnicodeEncodeError, ValueError):
        return  # the client itself cannot send it
    assert status < 500
