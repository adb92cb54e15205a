"""Trying a handler without a server.

    ran = await run_handler(worker, "video.generate", {"seconds": 5})
    assert ran.result == {"assetId": 7}
    assert [p["percent"] for p in ran.progress] == [0.1, 0.9]

The handler runs as it would in a worker: on the event loop or in a thread, with its middleware, its payload as its own
type. What it would report is in the answer.
"""

import asyncio
import uuid
from dataclasses import dataclass, field
from typing import Any

from atomo_gql.worker.attempt import Attempt, Cut
from atomo_gql.worker.job import Job
from atomo_gql.worker.outbox import Outbox
from atomo_gql.worker.processes import Processes
from atomo_gql.worker.report import TAKEN, Report
from atomo_gql.worker.surroundings import Surroundings
from atomo_gql.worker.tally import Tally
from atomo_gql.worker.threads import Threads
from atomo_gql.worker.worker import Worker

_LEFT_OUT: Any = object()  # a payload may be None, which is null
_LEAST_SECONDS = 60  # of visibility: no heartbeat is wanted in a test


@dataclass(slots=True)
class Ran:
    """What the handler did.

    outcome: "complete", "fail" or "release". result: what it returned, of complete. error, retryable,
    retry_after_secs: of fail. progress: the updates it sent, in order.
    """

    outcome: str = ""
    result: Any = None
    error: str | None = None
    retryable: bool | None = None
    retry_after_secs: float | None = None
    progress: list[dict[str, Any]] = field(default_factory=list)


async def run_handler(
    worker: Worker,
    kind: str,
    payload: Any = _LEFT_OUT,
    *,
    attempts: int = 1,
    max_attempts: int = 5,
    timeout_secs: float | None = None,
    cancel_after: float | None = None,
) -> Ran:
    """Run the handler that `worker` has for `kind`, once, with this payload (left out: {}).

    timeout_secs: the job's. cancel_after: seconds after which the worker stops, as seen by the handler.

    Raises ValueError when there is no such handler.
    """
    handler = worker.handlers.get(kind)
    if handler is None:
        raise ValueError(f"kind {kind!r} has no handler; there are {', '.join(worker.handlers) or 'none'}")
    job = Job(
        id=str(uuid.uuid4()),
        queue="test",
        kind=kind,
        payload={} if payload is _LEFT_OUT else payload,
        attempts=attempts,
        max_attempts=max_attempts,
        lease_id=str(uuid.uuid4()),
        timeout_secs=timeout_secs,
    )
    outbox, threads, processes = _Outbox(), Threads(1, lambda: None), Processes()
    around = Surroundings(
        outbox,
        threads,
        processes,
        Tally(),
        _LEAST_SECONDS * 60,
        on_room=lambda _: None,
        on_end=lambda _: None,
        on_refused=lambda _: None,
    )
    attempt = Attempt(job, handler, around, asyncio.get_running_loop().time())
    if cancel_after is not None:
        asyncio.get_running_loop().call_later(cancel_after, attempt.cut, Cut.STOPPING)
    try:
        await attempt.task
    finally:
        threads.close()
        processes.close()
    return outbox.ran


class _Outbox(Outbox):
    """Takes everything, and keeps it."""

    def __init__(self) -> None:
        self.ran = Ran()

    def post(self, report: Report) -> None:
        """As a server that takes it."""
        said = report.fields()
        match report.type:
            case "progress":
                self.ran.progress.append({name: said.get(name) for name in ("percent", "message", "data")})
            case "complete":
                self.ran.outcome, self.ran.result = "complete", said["result"]
            case "fail":
                self.ran.outcome, self.ran.error, self.ran.retryable = "fail", said["error"], said["retryable"]
                self.ran.retry_after_secs = said.get("retryAfterSecs")
            case "release":
                self.ran.outcome = "release"
            case _:
                pass
        report.settle(TAKEN)
