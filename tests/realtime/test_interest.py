"""Hints go to those who want them, and what a new want came too late for is made up for."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from atomo_gql.realtime.interest import Want
from tests.conftest import MakeServer, Server, WorkerClient, until
from tests.graphql.helpers import Subscription, subscribed

WATCH = "subscription ($id: ID!) { jobProgress(id: $id) { status percent } }"


def _sent(server: Server, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a server puts on the wire from now on."""
    sent: list[str] = []
    transport = server.application.hub._transport
    send = transport.send

    async def noted(message: str) -> None:
        sent.append(message)
        await send(message)

    monkeypatch.setattr(transport, "send", noted)
    return sent


def _settled(*servers: Server) -> None:
    """Each knows what the others want, as it does a few seconds after its start."""
    for server in servers:
        server.application.hub.wants._unknown_until = 0.0


@contextlib.asynccontextmanager
async def _watched_elsewhere(
    make_server: MakeServer,
) -> AsyncIterator[tuple[Server, WorkerClient, Any, Subscription]]:
    """A server with a worker and its leased job, which somebody has just begun to watch on another."""
    here, there = await make_server(), await make_server()
    _settled(here, there)
    worker = await there.mint("q")
    job_id = await there.enqueue()
    [job] = await worker.lease("q")
    async with subscribed(here, WATCH, id=job_id) as watching:
        assert await watching.next() == {"jobProgress": {"status": "LEASED", "percent": None}}
        yield there, worker, job, watching


async def test_nothing_is_said_to_nobody(make_server: MakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await make_server()
    _settled(server)
    sent = _sent(server, monkeypatch)
    worker = await server.mint("q")
    job_id = await server.enqueue()
    [job] = await worker.lease("q")
    async with subscribed(server, WATCH, id=job_id) as watching:
        assert await watching.next() == {"jobProgress": {"status": "LEASED", "percent": None}}
        await worker.report("progress", job, percent=0.5)
        assert await watching.next() == {"jobProgress": {"status": "LEASED", "percent": 0.5}}
        await worker.report("complete", job)
        assert (await watching.next())["jobProgress"]["status"] == "SUCCEEDED"
    assert [message for message in sent if job_id in message or '"q"' in message] == []


async def test_a_replica_with_a_watcher_hears(make_server: MakeServer) -> None:
    async with _watched_elsewhere(make_server) as (there, worker, job, watching):

        async def is_known() -> bool:
            return Want.CHANGES in there.application.hub.wants.of_others()

        await until(is_known)
        await worker.report("progress", job, percent=0.5)
        assert await watching.next() == {"jobProgress": {"status": "LEASED", "percent": 0.5}}
        await worker.report("complete", job)
        assert (await watching.next())["jobProgress"]["status"] == "SUCCEEDED"
        assert await watching.next() is None


async def test_what_happened_before_the_others_knew_of_a_want_is_looked_up(make_server: MakeServer) -> None:
    async with _watched_elsewhere(make_server) as (_, worker, job, watching):
        await worker.report("complete", job)  # very likely before its server has heard that somebody watches
        assert (await watching.next())["jobProgress"]["status"] == "SUCCEEDED"
