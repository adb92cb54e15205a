"""What is too large, of the wrong kind, or too much at once: for every row of the table where it applies."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest

from tests.conftest import Server, token, until
from tests.contract.conftest import MakeShared
from tests.contract.malformed import Case, goods
from tests.contract.table import TABLE, WITH_BODY, Row, World, line

_LIMIT = 2_000
_ALWAYS_OPEN = ("/healthz", "/readyz", "/metrics")  # who watches a busy server must not take it for dead


@pytest.fixture(scope="module")
async def small(make_shared: MakeShared) -> Server:
    """A server that takes small bodies."""
    return await make_shared(max_body=_LIMIT, max_batch=_LIMIT)


def _padded(world: World, row: Row, size: int) -> bytes:
    """A body that would do, and blanks up to that size."""
    return json.dumps(world.body(row)).encode().ljust(size)


async def _chunks(raw: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(raw), 700):
        yield raw[start : start + 700]


async def _without_end(raw: bytes) -> AsyncIterator[bytes]:
    yield raw
    await asyncio.Event().wait()  # until the answer has come, and the client gives up


@pytest.mark.parametrize("row", WITH_BODY, ids=str)
async def test_a_body_over_the_limit_is_413(steady: World, small: Server, row: Row) -> None:
    for size in (_LIMIT + 1, 50 * _LIMIT):
        await steady.refuse(row, 413, on=small, data=_padded(steady, row, size))
    await steady.refuse(row, 413, on=small, data=_chunks(_padded(steady, row, _LIMIT + 1)))
    await steady.refuse(row, 413, on=small, data=_chunks(_padded(steady, row, 5 * _LIMIT)))
    await steady.refuse(row, 413, on=small, data=_without_end(_padded(steady, row, _LIMIT + 1)))


@pytest.mark.parametrize("row", WITH_BODY, ids=str)
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_of_the_limit_is_taken(world: World, small: Server, row: Row, chunked: bool) -> None:
    raw = _padded(world, row, _LIMIT)
    assert (await world.ask(row, on=small, data=_chunks(raw) if chunked else raw)).status == row.status


@pytest.mark.parametrize(
    ("path", "field"), [("/jobs", "payload"), ("/jobs/{id}/progress", "data"), ("/jobs/{id}/complete", "result")]
)
async def test_a_value_that_grows_over_the_limit_is_413(steady: World, small: Server, path: str, field: str) -> None:
    row = line("POST", path)
    raw = json.dumps(steady.body(row))[:-1] + f', "{field}": [{",".join(["1e9"] * 400)}]}}'
    assert len(raw) <= _LIMIT
    answer = await steady.refuse(row, 413, on=small, data=raw)
    assert field in answer.body["detail"]


@pytest.mark.parametrize("row", WITH_BODY, ids=str)
async def test_another_media_type_is_415(steady: World, row: Row) -> None:
    for media_type in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "json",
        "application/json; charset=latin-1",
        "application/problem+json; charset=utf-16",
    ):
        headers = steady.headers(row) | {"Content-Type": media_type}
        await steady.refuse(row, 415, headers=headers, data=json.dumps(steady.body(row)))


@pytest.mark.parametrize(
    "media_type",
    [
        "application/json; charset=utf-8",
        'Application/JSON;charset="UTF-8"',
        "application/vnd.api+json",
        "application/json; profile=x",
        "application/json; charset=utf-8; profile=x",
    ],
)
async def test_json_by_another_name_is_taken(world: World, media_type: str) -> None:
    row = line("POST", "/jobs")
    headers = world.headers(row) | {"Content-Type": media_type}
    assert (await world.ask(row, headers=headers, data=json.dumps(world.body(row)))).status == 201


@contextlib.asynccontextmanager
async def _somebody_waits(server: Server) -> AsyncIterator[None]:
    worker = await server.mint("nothing")
    polling = asyncio.create_task(worker.lease("nothing", waitSecs=60))
    await until(lambda: _waiting(server))
    yield
    polling.cancel()
    await asyncio.gather(polling, return_exceptions=True)


async def _waiting(server: Server) -> int:
    return len(server.application.services.leases.room)


@pytest.fixture(scope="module")
async def full(make_shared: MakeShared) -> AsyncIterator[Server]:
    """A server where somebody watches already, for as long as it takes, and nobody else may do anything."""
    server = await make_shared(max_connections=1)
    async with server.http.ws_connect(f"{server.url}/realtime/ws?token={token()}"):
        yield server


@pytest.mark.parametrize("row", [row for row in TABLE if row.path not in _ALWAYS_OPEN], ids=str)
async def test_one_call_too_many_is_429(steady: World, full: Server, row: Row) -> None:
    answer = await steady.refuse(row, 429, on=full)
    assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.parametrize("path", _ALWAYS_OPEN)
async def test_a_full_server_still_says_how_it_is(steady: World, full: Server, path: str) -> None:
    assert (await steady.ask(line("GET", path), on=full)).status == 200


async def test_one_long_poll_too_many_is_429(steady: World, make_shared: MakeShared) -> None:
    server = await make_shared(max_waiting=1)
    async with _somebody_waits(server):
        lease = line("POST", "/jobs/lease")
        answer = await steady.refuse(lease, 429, on=server, queues=["nothing"], waitSecs=5)
        assert int(answer.headers["Retry-After"]) > 0
        assert (await steady.ask(lease, on=server, queues=["nothing"])).body == {"jobs": []}


@pytest.mark.parametrize("good", list(goods()), ids=str)
async def test_a_value_just_within_its_bounds_is_taken(world: World, good: Case) -> None:
    # Last of all, for some of these leases run out at once, and a server that starts would sweep them.
    answer = await world.ask(good.row, data=good.body(world.body(good.row) or {}))
    assert answer.status == good.row.status, answer.body
