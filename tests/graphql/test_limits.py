"""However a request unfolds, it is measured before it is run, and what it brings back is bounded."""

import time
from typing import Any

import pytest

from tests.conftest import Server, bearer
from tests.graphql.helpers import as_admin, ask

_LEVELS = 60


def _bomb(last: str, spread: str = "...F{0} ...F{0}") -> str:
    """A document of a few kilobytes whose fragments unfold into 2^60 fields."""
    fragments = [f"fragment F{n} on Job {{ {spread.format(n + 1)} }}" for n in range(_LEVELS)]
    return f"{{ jobs {{ nodes {{ ...F0 }} }} }} {' '.join(fragments)} fragment F{_LEVELS} on Job {{ {last} }}"


@pytest.mark.parametrize("spread", ["...F{0} ...F{0}", "... on Job {{ ...F{0} }} ... on Job {{ ...F{0} }}"])
async def test_fragments_that_unfold_without_end_cost_nothing(server: Server, spread: str) -> None:
    await server.enqueue()
    began = time.monotonic()
    told = await ask(server, _bomb("id", spread))
    assert [list(node) for node in told["jobs"]["nodes"]] == [["id"]]
    answer = await server.graphql(_bomb("a: id", spread))
    assert "at most 30 aliases" in answer["errors"][0]["message"]
    assert time.monotonic() - began < 20, "2^60 steps would take longer"


@pytest.mark.parametrize(
    ("query", "rule"),
    [
        ("{ " + "__typename " * 250 + "}", "a selection must have at most 200 fields, not 250"),
        ("{ " + "jobs { nodes { id } } " * 100 + "}", "jobs must stand at most 60 times"),
        ("{ jobs { nodes { " + "events { job { " * 9 + "id" + " } }" * 9 + " } } }", "at most 12 deep, not 20"),
        ("{ jobs { nodes { " + " ".join(f"a{n}: id" for n in range(40)) + " } } }", "at most 30 aliases"),
        ("{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }", "within itself"),
        ("{ ...nobody }", "nobody"),
    ],
)
async def test_a_document_over_a_limit_says_which(server: Server, query: str, rule: str) -> None:
    [error, *_] = (await server.graphql(query))["errors"]
    assert error["extensions"]["code"] == "BAD_USER_INPUT"
    assert rule in error["message"]


async def test_an_answer_is_bounded_however_it_is_asked_for(server: Server) -> None:
    for _ in range(4):
        await server.enqueue(payload="x" * 1_000_000)
    aliases = " ".join(f"a{n}: payload" for n in range(10))
    events = "events(first: 1000) { " + " ".join(f"a{n}: data" for n in range(10)) + " }"
    for query in (f"{{ jobs {{ nodes {{ {aliases} }} }} }}", f"{{ jobs {{ nodes {{ {events} }} }} }}"):
        answer = await server.graphql(query)
        codes = {error["extensions"]["code"] for error in answer["errors"]}
        assert (codes, len(str(answer)) < 40_000_000) == ({"PAYLOAD_TOO_LARGE"}, True)
    told = await ask(server, "{ jobs { nodes { payload } } }")
    assert [len(node["payload"]) for node in told["jobs"]["nodes"]] == [1_000_000] * 4


async def test_a_page_has_results_and_progress_where_they_are_asked_for(server: Server) -> None:
    worker = await server.mint("q")
    for _ in range(2):
        await server.enqueue()
    done, running = await worker.lease("q", capacity=2)
    await worker.report("complete", done, result={"n": 1})
    await worker.report("progress", running, percent=0.5)
    told = await ask(server, "{ jobs(orderBy: OLDEST_FIRST) { nodes { id result progress } } }")
    half = {"percent": 0.5, "message": None, "data": None}
    assert told["jobs"]["nodes"] == [
        {"id": done["id"], "result": {"n": 1}, "progress": None},
        {"id": running["id"], "result": None, "progress": half},
    ]
    one: Any = await ask(server, "query ($id: ID!) { job(id: $id) { result } }", id=done["id"])
    assert one["job"]["result"] == {"n": 1}


async def test_a_page_of_the_log_ends_before_it_is_too_large(server: Server) -> None:
    for _ in range(40):
        await server.enqueue(payload="x" * 1_000_000)
    query = "query ($after: String) { events(first: 1000, after: $after) { nodes { streamId data } pageInfo { %s } } }"
    query %= "hasNextPage endCursor"
    after, seen = None, []
    while True:
        page = (await as_admin(server, query, after=after))["events"]
        seen += [node["streamId"] for node in page["nodes"]]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
        assert len(page["nodes"]) < 34
    assert len(seen) == len(set(seen)) == 40


async def test_a_stream_that_is_refused_says_why_in_the_stream(server: Server) -> None:
    headers = {"Accept": "text/event-stream"} | bearer()
    body = {"query": "subscription { nope }"}
    async with server.http.post(f"{server.url}/graphql", json=body, headers=headers) as answer:
        text = await answer.text()
    assert answer.content_type == "text/event-stream"
    assert text.startswith('event: next\ndata: {"errors":[{"message":"Cannot query field \'nope\'')
    assert text.endswith("event: complete\ndata:\n\n")
