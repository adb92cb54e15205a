"""The services of a replica without its loops and its doors: a test calls what time would call."""

import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson

from atomo_gql.app import Application
from atomo_gql.domain.jobs import Json, LeasedJob
from atomo_gql.domain.principals import Caller, WorkerToken
from atomo_gql.service.services import Services
from atomo_gql.settings import Settings
from atomo_gql.store import lease, rebuild, report, tokens
from atomo_gql.store.database import Database
from atomo_gql.store.lease import LeaseRow
from atomo_gql.store.report import ReportRow

ALICE = Caller(subject="alice", is_admin=False)
ROOT = Caller(subject="root", is_admin=True)


def of(tenant: str, subject: str = "alice", *, is_admin: bool = False) -> Caller:
    """Somebody of a tenant."""
    return Caller(subject=subject, is_admin=is_admin, bound_tenant=tenant)


@dataclass
class Replica:
    """One of the processes that share a database."""

    services: Services
    database: Database
    token: WorkerToken
    held: list[LeasedJob] = field(default_factory=list)

    async def settle(self) -> None:
        """Carry runs and actions on until nothing is left to do but to wait."""
        while True:
            await self.services.engine.settle()
            fired = await self.services.dispatcher.turn()
            done = await self.services.engine.turn()
            if not done and not (fired and (fired.events or fired.has_more)):
                return

    async def lease(self, *queues: str) -> list[LeasedJob]:
        """All jobs that are due."""
        [jobs] = await lease.lease(self.database, [LeaseRow(self.token.id, 100, 300, queues or ("*",))])
        self.held += jobs
        return jobs

    async def complete(self, job: LeasedJob, result: Json = None) -> None:
        """Its work is done."""
        self.held.remove(job)
        said = ReportRow(job.id, job.lease_id, self.token.id, body=orjson.dumps(result))
        assert await report.complete(self.database, [said]) != [None]

    async def fail(self, job: LeasedJob, error: str = "boom", *, retryable: bool = False) -> None:
        """Its work failed."""
        self.held.remove(job)
        said = ReportRow(job.id, job.lease_id, self.token.id, error=error, retryable=retryable)
        assert await report.fail(self.database, [said]) != [None]

    async def differences(self) -> list[rebuild.Difference]:
        """What a proof of the projection finds."""
        return [found async for proof in rebuild.verify(self.database) for found in proof.differences]


@contextlib.asynccontextmanager
async def replica_on(dsn: str, **settings: Any) -> AsyncIterator[Replica]:
    """A replica on that database."""
    full = {"jwt_secret": "s" * 64, "data_dir": Path("/nowhere"), "env": "test", **settings}
    application = Application(Settings(**full), dsn)
    database = application.database
    await database.open()
    try:
        token = await tokens.mint(
            database, tenant="", name="w", queues=("*",), token_hash=uuid.uuid4().bytes * 2, created_by="user:x"
        )
        yield Replica(application.services, database, token)
    finally:
        await database.close()


async def let_time_pass(sql: Any, *, timeouts: bool = False) -> None:
    """As if all that runs wait for by the clock had come: the truth and the rows are moved together."""
    now = datetime.now(UTC)
    moment = now.isoformat()
    parked = "SELECT id FROM workflow_runs WHERE status = 'Paused'"
    for name in ("until", "retryAt"):
        await sql.execute(
            f"UPDATE events SET data = data || jsonb_build_object('{name}', $1::text) "
            f"WHERE stream = 'Workflow' AND data ? '{name}' AND stream_id IN ({parked})",
            moment,
        )
    await sql.execute(
        """
        UPDATE workflow_runs AS r SET wake_at = $1::text::timestamptz, steps = (
            SELECT jsonb_object_agg(key, value || CASE WHEN value ? 'until' THEN jsonb_build_object('until', $1::text)
                                                  ELSE '{}' END) FROM jsonb_each(r.steps))
        WHERE status = 'Paused' AND EXISTS (SELECT FROM jsonb_each(r.steps) WHERE value ? 'until')""",
        moment,
    )
    if timeouts:
        await sql.execute(
            f"UPDATE events SET data = data || jsonb_build_object('timeoutAt', $1::text) "
            f"WHERE stream = 'Workflow' AND data ? 'timeoutAt' AND stream_id IN ({parked})",
            moment,
        )
        await sql.execute(
            "UPDATE workflow_runs SET timeout_at = $1, wake_at = $1 WHERE status = 'Paused' AND timeout_at IS NOT NULL",
            now,
        )


async def history(sql: Any, run_id: UUID) -> list[tuple[str, str | None]]:
    """What happened to a run: the types of its events, and the steps they are about."""
    rows = await sql.fetch("SELECT type::text, data FROM events WHERE stream_id = $1 ORDER BY version", run_id)
    return [(row["type"], orjson.loads(row["data"]).get("step")) for row in rows]
