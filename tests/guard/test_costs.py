"""Counts that the machine has no part in: no hot path costs more than the baseline says."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import asyncpg
import pytest
from starlette.types import Receive, Scope, Send

from atomo_gql.cli.bench import fill
from atomo_gql.store import lease
from atomo_gql.worker import tracing
from tests.conftest import MakeServer, with_database
from tests.guard import baseline, worker
from tests.guard.baseline import RENEW, RENEWING, Line, Measured, compare, table
from tests.guard.paths import REFERENCE, Costs, Rig, rig

pytestmark = pytest.mark.guard
_PATH = "POST /jobs"
Value = TypeVar("Value")


@pytest.fixture(autouse=True)
def _apart_from_chance(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whether lines and spans are written depends on the tests before; whether a lease was slow, on the machine."""
    monkeypatch.setattr(lease, "_SLOW_SECS", 60)
    monkeypatch.setattr(tracing, "_recorded", False)
    monkeypatch.setattr(tracing, "_asked_at", float("inf"))  # not to be asked for again
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


async def _apart(work: Callable[[], Awaitable[Value]]) -> Value:
    """Run it in a thread and a loop of its own, where nothing else is counted."""

    async def run() -> Value:
        return await work()

    return await asyncio.to_thread(lambda: asyncio.run(run()))


async def _served(dsn: str, cluster: str) -> tuple[dict[str, Costs], str]:
    """What the paths of the server cost, on an empty database; and the version of PostgreSQL."""
    async with rig(dsn, cluster) as made:
        return {REFERENCE: await made.reference(), **await made.measure()}, await made.meter.version()


async def _measured(dsn: str, cluster: str, make_server: MakeServer) -> Measured:
    costs, postgresql = await _apart(lambda: _served(dsn, cluster))
    server = await make_server()  # not before: what it does by itself would be counted
    minted = await server.mint("w")
    await fill.queued(server.application.database, ["w"], worker.JOBS)
    costs[worker.NAME] = await _apart(lambda: worker.measure(server.url, minted.token, "w"))
    return Measured(costs, postgresql)


async def _least(measured: Measured, cluster: str, template: str) -> Measured:
    """The lesser of each count, after another database has been measured, too.

    How PostgreSQL fills and splits the pages of its indexes has some chance in it, which a database keeps for its life.
    """
    name = f"{template}_guard"
    sql: Any = await asyncpg.connect(cluster)
    try:
        await sql.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        again, _ = await _apart(lambda: _served(with_database(cluster, name), cluster))
        await sql.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await sql.close()
    costs = {
        path: {measure: min(cost, again.get(path, {}).get(measure, cost)) for measure, cost in of.items()}
        for path, of in measured.costs.items()
    }
    return Measured(costs, measured.postgresql, measured.python)


async def test_no_hot_path_is_costlier(
    dsn: str, cluster: str, template: str, make_server: MakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = await _measured(dsn, cluster, make_server)
    if os.environ.get(RENEWING):
        baseline.save(measured)
    lines = compare(baseline.load(), measured)
    if any(line.is_costlier for line in lines):
        lines = compare(baseline.load(), await _least(measured, cluster, template))
    if any(line.is_costlier for line in lines):
        pytest.fail(f"a hot path has become costlier\n{table(lines)}\nwhere that is meant: {RENEW}", pytrace=False)
    if any(line.is_stale for line in lines):
        pytest.fail(
            f"a hot path is far cheaper than its guard knows\n{table(lines)}\nto keep it so: {RENEW}", pytrace=False
        )
    if any(line.is_cheaper for line in lines):
        with capsys.disabled():
            print(f"\na hot path has become cheaper; to keep it so: {RENEW}\n{table(lines)}")


@pytest.mark.parametrize(
    ("instructions", "is_costlier"), [({"path": 600.0}, False), ({"path": 800.0}, True), ({"another": 600.0}, True)]
)
def test_another_python_is_judged_by_the_reference(instructions: dict[str, float], is_costlier: bool) -> None:
    before = Measured({REFERENCE: {"instructions": 100}, "path": {"instructions": 400}}, "", "3.11")
    now = {path: {"instructions": count} for path, count in {REFERENCE: 150.0, **instructions}.items()}

    lines = compare(before, Measured(now, "", "3.99"))

    assert any(line.is_costlier for line in lines) == is_costlier, table(lines)


def test_what_has_become_far_cheaper_wants_its_baseline_renewed() -> None:
    lines = compare(Measured({"path": {"calls": 100}}, ""), Measured({"path": {"calls": 80}}, ""))

    assert [(line.is_costlier, line.is_cheaper, line.is_stale) for line in lines] == [(False, True, True)]


async def _nothing(made: Rig) -> None:
    """The control."""


async def _work(made: Rig) -> None:
    """Some Python in front of each request."""
    inner = made.asgi

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        sorted(range(200), key=lambda n: -n)
        await inner(scope, receive, send)

    made.asgi = outer


async def _statement(made: Rig) -> None:
    """A look at the database before each statement."""
    dispatch = made.database.dispatch

    async def after_a_look(statement: str, *arguments: object) -> list[Any]:
        await made.database.fetch("schema_version")
        return await dispatch(statement, *arguments)

    made.database.dispatch = after_a_look  # type: ignore[method-assign]


async def _indexes(made: Rig) -> None:
    """More to be written with each event."""
    async with made.database.connection() as connection:
        for _ in range(3):
            await connection.execute("CREATE INDEX ON events (stream_id, at)")


@pytest.mark.parametrize(
    ("change", "costlier"),
    [
        (_nothing, set()),
        (_work, {"instructions", "calls"}),
        (_statement, {"instructions", "calls", "statements"}),
        (_indexes, {"WAL bytes", "buffers"}),
    ],
)
async def test_a_path_that_has_become_costlier_is_found(
    dsn: str, cluster: str, change: Callable[[Rig], Awaitable[None]], costlier: set[str]
) -> None:
    async def twice() -> list[Line]:
        async with rig(dsn, cluster) as made:
            before = await made.measure([_PATH])
            await change(made)
            return compare(Measured(before, ""), Measured(await made.measure([_PATH]), ""))

    lines = await _apart(twice)
    assert {line.measure for line in lines if line.is_costlier} == costlier, table(lines)
