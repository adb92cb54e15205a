"""The worked examples of docs/examples-workflows.md: the files it shows, on a real server, with real workers."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from atomo_gql.domain.actions import NewEvent
from atomo_gql.domain.paging import Window
from atomo_gql.domain.principals import Caller
from atomo_gql.domain.workflows.runs import Run, RunStatus, StepState, StepStatus
from atomo_gql.service.boot import register_files
from atomo_gql.service.workflows.runs import RunFilter
from atomo_gql.worker import JobContext, NonRetryableError, Worker
from tests.conftest import Server, until
from tests.worker.helpers import working

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "examples-workflows.md").read_text()
ALICE = Caller(subject="alice", is_admin=False)
UPLOAD = {"id": "u-1", "url": "s3://in/u-1.mp4", "owner": "ada@example.com", "title": "Summer"}


@pytest.fixture
async def server(server: Server) -> Server:
    """A server that has read the examples at boot."""
    await register_files(server.application.services, ROOT / "examples" / "workflows", ROOT / "examples" / "actions")
    return server


class Studio:
    """A worker for all that the examples need, and the payloads it was given, by kind."""

    def __init__(self, server: Server, token: str) -> None:
        self.given: dict[str, list[Any]] = {}
        self.seconds, self.height = 90, 1080
        self.broken: set[str] = set()
        self.worker = Worker(url=server.url, token=token, queues=["*"], concurrency=4, wait=2)
        results = {
            "media.probe": lambda _: {"seconds": self.seconds, "height": self.height},
            "media.cut": lambda _: {"url": "s3://out/teaser.mp4"},
            "media.poster": lambda _: {"url": "s3://out/poster.jpg"},
            "media.transcode": lambda payload: {"url": f"s3://out/{payload['height']}.mp4"},
            "media.transcribe": lambda _: {"text": "Hello"},
            "media.captions": lambda _: {"url": "s3://out/captions.vtt"},
            "mail.send": lambda _: None,
            "report.collect": lambda _: {"orders": 7},
            "invoice.send": lambda payload: {"invoice": f"I-{payload['input']['number']}"},
            "ledger.post": lambda _: None,
            "desk.ring": lambda _: None,
        }
        for kind, make in results.items():
            self.worker.on(kind)(self._handler(kind, make))

    def _handler(self, kind: str, make: Any) -> Any:
        async def handle(ctx: JobContext) -> Any:
            self.given.setdefault(kind, []).append(ctx.job.payload)
            if kind in self.broken:
                raise NonRetryableError(f"{kind} is broken")
            return make(ctx.job.payload)

        return handle

    async def has(self, kind: str, count: int = 1) -> list[Any]:
        """What jobs of that kind were given, once there were so many."""

        async def look() -> bool:
            return len(self.given.get(kind, [])) >= count

        await until(look)
        return self.given[kind]


@pytest.fixture
async def studio(server: Server) -> AsyncIterator[Studio]:
    """A studio at work."""
    found = Studio(server, (await server.mint("*")).token)
    async with working(found.worker):
        yield found


async def _ended(server: Server, run_id: UUID) -> Run:
    last: Run | None = None
    async with asyncio.timeout(30):
        async for run in server.application.services.runs.follow(ALICE, run_id):
            last = run
    assert last is not None
    return last


async def _runs(server: Server, workflow: str) -> list[Run]:
    window: Window[UUID] = Window.of(50, None, None, None)
    page = await server.application.services.runs.page(ALICE, RunFilter(workflow=workflow), window, oldest_first=True)
    return list(page.items)


async def _retrying(server: Server, run_id: UUID, attempt: int) -> tuple[StepState, datetime]:
    """The probe, once that attempt has failed, and when."""

    async def look() -> Run | None:
        run = await server.application.services.runs.get(ALICE, run_id)
        step = run.steps["probe"]
        return run if step.status is StepStatus.RETRYING and step.attempt == attempt else None

    run = await until(look)
    return run.steps["probe"], run.changed_at


# As if the wait for the retry were over.
_DUE = """
UPDATE workflow_runs
SET wake_at = statement_timestamp(), steps = jsonb_set(steps, '{probe,until}', to_jsonb(statement_timestamp()))
WHERE id = $1"""


def test_the_page_shows_the_files_as_they_are() -> None:
    shown = re.findall(r"<!-- file: (\S+) -->\n```json\n(.*?)```", PAGE, re.DOTALL)
    files = [*(ROOT / "examples" / "workflows").glob("*.json"), *(ROOT / "examples" / "actions").glob("*.json")]
    assert sorted(name for name, _ in shown) == sorted(str(file.relative_to(ROOT)) for file in files)
    for name, text in shown:
        assert text == (ROOT / name).read_text(), name


async def test_the_media_pipeline_branches_runs_side_by_side_and_tells_the_owner(
    server: Server, studio: Studio
) -> None:
    services = server.application.services
    run = await services.runs.start(ALICE, "media-pipeline", {"upload": UPLOAD, "grace_secs": 0.05}, key="u-1")
    assert run.status is RunStatus.PAUSED  # it waits for the probe
    again = await services.runs.start(ALICE, "media-pipeline", {"upload": UPLOAD}, key="u-1")
    assert again.id == run.id

    run = await _ended(server, run.id)
    assert run.status is RunStatus.COMPLETED, run.errors
    assert run.steps["cut"].status is StepStatus.COMPLETED
    assert run.steps["poster"].status is StepStatus.SKIPPED
    assert run.context["teaser"] == "s3://out/teaser.mp4"
    assert sorted(payload["height"] for payload in studio.given["media.transcode"]) == [480, 1080]
    assert studio.given["media.captions"] == [{"text": "Hello"}]
    [mail] = await studio.has("mail.send")
    assert mail == {
        "to": "ada@example.com",
        "subject": "“Summer” is ready",
        "teaser": "s3://out/teaser.mp4",
        "sd": "s3://out/480.mp4",
        "hd": "s3://out/1080.mp4",
        "hasCaptions": True,
    }
    jobs = (await services.runs.jobs([run.id], 100))[run.id]
    assert len(jobs) == 7  # probe, cut, hd, sd, transcript, captions, notify


async def test_a_short_small_upload_gets_a_poster_and_no_large_rendition(server: Server, studio: Studio) -> None:
    studio.seconds, studio.height = 12, 480
    studio.broken = {"media.captions"}
    upload = {"id": "u-2", "url": "s3://in/u-2.mp4", "owner": "bob@example.com"}
    run = await server.application.services.runs.start(ALICE, "media-pipeline", {"upload": upload, "grace_secs": 0})

    run = await _ended(server, run.id)
    assert run.status is RunStatus.COMPLETED
    assert [run.steps[name].status for name in ("cut", "poster", "hd", "captions", "renditions")] == [
        StepStatus.SKIPPED,
        StepStatus.COMPLETED,
        StepStatus.SKIPPED,
        StepStatus.PASSED,
        StepStatus.COMPLETED,
    ]
    [error] = run.errors
    assert error.startswith("captions: job ")
    assert "media.captions is broken" in error
    [mail] = await studio.has("mail.send")
    assert mail["subject"] == "“Your video” is ready"
    assert mail["teaser"] == "s3://out/poster.jpg"
    assert mail["hd"] is None
    assert mail["hasCaptions"] is False


async def test_a_probe_that_fails_three_times_ends_the_run_and_a_retry_by_hand_goes_on(
    server: Server, studio: Studio, sql: Any
) -> None:
    services = server.application.services
    studio.broken = {"media.probe"}
    run = await services.runs.start(ALICE, "media-pipeline", {"upload": UPLOAD, "grace_secs": 0})
    for attempt in (1, 2):
        step, changed_at = await _retrying(server, run.id, attempt)
        assert step.until is not None
        assert step.until - changed_at == timedelta(seconds=5 * attempt)
        await sql.execute(_DUE, run.id)
    run = await _ended(server, run.id)
    assert run.status is RunStatus.FAILED
    keys = await sql.fetch("SELECT idempotency_key FROM jobs WHERE run_id = $1 ORDER BY id", run.id)
    assert [row["idempotency_key"] for row in keys] == [
        f"run:{run.id}:probe",
        f"run:{run.id}:probe:2",
        f"run:{run.id}:probe:3",
    ]

    studio.broken = set()
    await services.runs.retry(ALICE, run.id)
    run = await _ended(server, run.id)
    assert run.status is RunStatus.COMPLETED
    assert run.errors == []


async def test_the_nightly_report_ticks_once_a_night_also_where_the_clocks_change(
    server: Server, studio: Studio
) -> None:
    schedules = server.application.services.schedules

    async def ticks(now: str) -> list[str]:
        """Those that are new when the clock says `now`."""
        before = {run.id for run in await _runs(server, "nightly-report")}
        await schedules.turn(datetime.fromisoformat(now))
        return [
            run.trigger["tick"]
            for run in await _runs(server, "nightly-report")
            if run.id not in before and run.trigger["tick"] > "2031"
        ]

    # The servers were away for years: one run, for the latest of the ticks.
    assert await ticks("2031-03-29T12:00:00Z") == ["2031-03-29T01:30:00Z"]
    # 30 March: the clocks go from 02:00 to 03:00, and it ticks at 03:00 (01:00 UTC).
    assert await ticks("2031-03-30T00:59:59Z") == []
    assert await ticks("2031-03-30T01:00:00Z") == ["2031-03-30T01:00:00Z"]
    assert await ticks("2031-03-30T01:00:00Z") == []
    assert await ticks("2031-03-31T00:29:59Z") == []
    assert await ticks("2031-03-31T00:30:00Z") == ["2031-03-31T00:30:00Z"]
    # Four nights without a server.
    assert await ticks("2031-04-04T12:00:00Z") == ["2031-04-04T00:30:00Z"]
    assert await ticks("2031-10-25T12:00:00Z") == ["2031-10-25T00:30:00Z"]
    # 26 October: 02:30 comes twice, and it ticks the first time.
    assert await ticks("2031-10-26T00:30:00Z") == ["2031-10-26T00:30:00Z"]
    assert await ticks("2031-10-26T01:30:00Z") == []
    # A clock that jumps back finds nothing to do.
    assert await ticks("2031-10-20T12:00:00Z") == []

    ends = [await _ended(server, run.id) for run in await _runs(server, "nightly-report")]
    assert {run.status for run in ends} == {RunStatus.COMPLETED}
    mails = await studio.has("mail.send", len(ends))
    assert "7 orders up to 2031-03-30T01:00:00Z" in [mail["subject"] for mail in mails]


async def test_a_paid_order_is_invoiced_and_posted_once(server: Server, studio: Studio) -> None:
    records = server.application.services.records
    order = {"number": 7, "total": 99, "customer": {"email": "ada@example.com", "phone": "1"}}
    paid = NewEvent(
        model="Order",
        event="updated",
        entity_id="o-7",
        data={**order, "status": "paid"},
        previous={**order, "status": "open"},
        event_id="order-7-paid",
    )
    assert (await records.record(ALICE, paid)).is_new
    assert not (await records.record(ALICE, paid)).is_new
    shipped = NewEvent(
        model="Order",
        event="updated",
        entity_id="o-7",
        data={**order, "status": "paid", "shipped": True},
        previous={**order, "status": "paid"},
    )
    await records.record(ALICE, shipped)  # the status has not changed

    [ledger] = await studio.has("ledger.post")
    assert ledger["event"] == "updated"
    assert ledger["input"]["result"] == {"invoice": "I-7"}
    assert ledger["origin"] == "invoice.send"
    [invoice] = studio.given["invoice.send"]
    assert {name: invoice[name] for name in ("action", "model", "event", "eventId", "input", "actor", "origin")} == {
        "action": "invoice.send",
        "model": "Order",
        "event": "updated",
        "eventId": "order-7-paid",
        "input": {"number": 7, "total": 99, "customer.email": "ada@example.com"},
        "actor": "user:alice",
        "origin": None,
    }
    await _caught_up(server)
    assert len(studio.given["invoice.send"]) == len(studio.given["ledger.post"]) == 1


async def test_a_dead_invoice_starts_the_workflow_of_the_desk_once_and_its_own_jobs_do_not(
    server: Server, studio: Studio
) -> None:
    studio.broken = {"invoice.send", "desk.ring"}
    data = {"number": 8, "status": "paid"}
    event = NewEvent(model="Order", event="updated", entity_id="o-8", data=data, previous={"status": "open"})
    await server.application.services.records.record(ALICE, event)

    [ring] = await studio.has("desk.ring")
    assert ring["text"].startswith("invoice.send: NonRetryableError: invoice.send is broken")
    [mail] = await studio.has("mail.send")
    assert mail == {"to": "books@example.com", "job": ring["job"]}
    [run] = await _runs(server, "dead-letter-desk")
    assert (await _ended(server, run.id)).status is RunStatus.COMPLETED
    # The desk's own job is dead as well, and that starts nothing: it is of this workflow's origin.
    await _caught_up(server)
    assert len(await _runs(server, "dead-letter-desk")) == 1
    assert "ledger.post" not in studio.given


async def _caught_up(server: Server) -> None:
    """No job is left to be done, and the dispatcher has seen all that happened."""

    async def is_done() -> bool:
        return await server.application.services.dispatcher.look() == 0 and not await _alive(server)

    await until(is_done)


async def _alive(server: Server) -> int:
    answer = await server.graphql("{jobs(filter: {status: [QUEUED, LEASED]}, first: 1) {nodes {id}}}")
    return len(answer["data"]["jobs"]["nodes"])
