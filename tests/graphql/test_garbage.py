"""What an operation held is free when it has been answered: a collection comes late, and payloads are large."""

import gc
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Server, bearer

_PAGE = "{ jobs(first: 20) { edges { node { id payload result events { type } } } } }"
_ENQUEUE = 'mutation ($payload: JSON) { enqueueJob(queue: "q", kind: "k", payload: $payload) }'
_REFUSED = 'mutation ($payload: JSON) { enqueueJob(queue: "q", kind: "k", payload: $payload, maxAttempts: 0) }'


@pytest.fixture
def kept() -> Iterator[None]:
    """What a collection finds stays in gc.garbage."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


@pytest.mark.parametrize("query", [_PAGE, _ENQUEUE, _REFUSED])
async def test_an_answer_leaves_no_garbage(server: Server, query: str, request: pytest.FixtureRequest) -> None:
    async def ask() -> Any:
        body = {"query": query, "variables": {"payload": {"a": "b" * 1_000}}}
        return (await server.call("POST", "/graphql", body, headers=bearer()))[1]

    for _ in range(20):
        await server.enqueue(payload={"a": 1})
    assert ("errors" in await ask()) == (query == _REFUSED)
    request.getfixturevalue("kept")
    for _ in range(5):
        await ask()
    gc.collect()
    found = Counter(type(left).__name__ for left in gc.garbage)
    assert {name: found[name] for name in ("LoaderTask", "Context", "frame", "VariableValues") if found[name]} == {}
