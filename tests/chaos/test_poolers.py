"""Behind PgBouncer, in either mode: the load of the other chaos tests, and the conformance kit, without an error."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.conftest import admin, until, with_database

from .postgres import PgBouncer, needs_pgbouncer
from .rig import Rig, a_folder

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180), needs_pgbouncer]

MODES = ["session", "transaction"]
JOBS = 400
KILL_AT = 80  # jobs that have succeeded


@contextlib.asynccontextmanager
async def a_pooled_rig(dsn: str, mode: str) -> AsyncIterator[tuple[Rig, PgBouncer]]:
    """A server whose way to its database leads through PgBouncer, but for what it listens to."""
    with a_folder() as folder:
        rig, pooler = Rig(folder), PgBouncer(folder / "pooler", dsn, mode)
        try:
            await pooler.start()
            rig.use(pooler.dsn, looked_at=dsn, ATOMO_LISTEN_URL=dsn)
            await rig.start_server()
            yield rig, pooler
        finally:
            await rig.stop()
            await pooler.kill()


@pytest.mark.parametrize("mode", MODES)
async def test_the_worker_protocol_is_kept_behind_pgbouncer(dsn: str, mode: str) -> None:
    async with a_pooled_rig(dsn, mode) as (rig, _):
        told = await rig.command("conformance", "--token", await rig.mint("conformance"))
        assert re.search(r"^\d+ kept$", told, re.MULTILINE), told


@pytest.mark.parametrize("mode", MODES)
async def test_a_load_through_pgbouncer_survives_its_death_and_the_server_s(dsn: str, mode: str) -> None:
    async with a_pooled_rig(dsn, mode) as (rig, pooler):
        await rig.start_doubling()
        steps = asyncio.create_task(_other_calls(rig))
        enqueueing = asyncio.create_task(rig.enqueue(JOBS))

        async def enough(least: int) -> bool:
            return (await rig.progress())[0] >= least

        await until(lambda: enough(KILL_AT), within=60)
        await pooler.kill()
        await pooler.start()
        await until(lambda: enough(2 * KILL_AT), within=60)
        await rig.kill("server")
        await rig.start_server()
        ids = await enqueueing
        await until(lambda: enough(JOBS), within=60)
        steps.cancel()
        statuses = (await asyncio.gather(steps, return_exceptions=True))[0]
        assert isinstance(statuses, asyncio.CancelledError), statuses
        async with rig.sql() as sql:
            rows = await sql.fetch("SELECT id::text, status FROM jobs WHERE queue = 'load'")
            assert sorted(map(tuple, rows)) == sorted((job_id, "succeeded") for job_id in ids)
        assert "0 differ" in await rig.command("rebuild", "--verify")


async def _other_calls(rig: Rig) -> None:
    """Workflows, events that fire, lists: what is not on the hot path, for ever; nothing but 503 is an error."""
    flow = {"name": "flow", "steps": [{"name": "note", "action": {"SetVariable": {"key": "x", "value": 1}}}]}
    bound = {"model": "Deal", "event": "created", "action": "greet"}
    lists = "{ jobs(first: 5) { nodes { id status } } queues { name } workflowRuns(first: 5) { nodes { id status } } }"
    calls: list[tuple[str, Any]] = [
        ("/workflows", flow),
        ("/actions", bound),
        ("/workflows/flow/run", {}),
        ("/events", {"model": "Deal", "event": "created", "id": "1", "data": {}}),
        ("/graphql", {"query": lists}),
    ]
    async with aiohttp.ClientSession(headers=admin()) as http:
        while True:
            for path, body in calls:
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    async with http.post(rig.url + path, json=body) as answer:
                        text = await answer.text()
                        assert answer.status < 500 or answer.status == 503, f"{path}: {answer.status} {text}"
                        assert "INTERNAL" not in text, text
            await asyncio.sleep(0.02)


async def test_a_pooler_in_transaction_mode_without_a_way_to_listen_is_refused_in_one_sentence(
    dsn: str, template: str
) -> None:
    with a_folder() as folder:
        rig, pooler = Rig(folder), PgBouncer(folder / "pooler", dsn, "transaction")
        try:
            await pooler.start()
            rig.use(pooler.dsn)
            with pytest.raises(AssertionError, match="set ATOMO_LISTEN_URL to a direct address of the same database"):
                await rig.command("serve", "--port", "0")
            rig.use(pooler.dsn, ATOMO_LISTEN_URL=pooler.dsn)
            with pytest.raises(AssertionError, match="ATOMO_LISTEN_URL leads through a pooler in transaction mode"):
                await rig.command("serve", "--port", "0")
            rig.use(pooler.dsn, ATOMO_LISTEN_URL=with_database(dsn, template))
            with pytest.raises(AssertionError, match="ATOMO_LISTEN_URL leads to another database than DATABASE_URL"):
                await rig.command("serve", "--port", "0")
        finally:
            await pooler.kill()


@pytest.mark.parametrize("mode", MODES)
async def test_an_application_s_store_enqueues_through_pgbouncer(dsn: str, mode: str, sql: Any) -> None:
    from atomo_gql.store import JobStore

    with a_folder() as folder:
        pooler = PgBouncer(folder / "pooler", dsn, mode)
        try:
            await pooler.start()
            async with JobStore(pooler.dsn) as store:
                ids = await asyncio.gather(*(store.enqueue("q", "k", {"n": n}) for n in range(20)))
            assert await sql.fetchval("SELECT count(*) FROM jobs WHERE id = ANY ($1)", ids) == 20
        finally:
            await pooler.kill()
