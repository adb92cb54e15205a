"""One report on its way to the server."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import orjson

from atomo_gql.worker.encoding import encode_checked
from atomo_gql.worker.job import Job

# What ended a lease, where a report of that type had arrived and only its answer was lost.
_ARRIVED = {
    "complete": frozenset({"succeeded"}),
    "fail": frozenset({"failed", "dead"}),
    "release": frozenset({"released", "dead"}),
}


class Outcome(msgspec.Struct, frozen=True, rename="camel"):
    """What the server says of a report: the status of its own call, and of that call's body what matters here."""

    status: int
    detail: str | None = None
    code: str | None = None
    ended: str | None = None  # of a 409: how the lease had ended
    outcome: str | None = None  # of a failure: retry or dead
    delay_secs: float | None = None  # until the retry

    def is_retried(self) -> bool:
        """Of a failure: whether there will be another attempt."""
        return self.outcome == "retry" or self.ended == "failed"


TAKEN = Outcome(204)


class Report:
    """A report, encoded; then what became of it: `outcome`, or `error`.

    `field` names the field that comes from the user's code; ValueError says why it is not JSON. A report that ends a
    lease is sent until it is answered; the others give up with the first request that fails.
    """

    __slots__ = ("body", "error", "is_done", "is_final", "job", "on_done", "outcome", "tries", "type")

    def __init__(self, type_: str, job: Job, fields: Mapping[str, Any], field: str = "") -> None:
        self.type = type_
        self.job = job
        self.body = encode_checked({"type": type_, "id": job.id, "leaseId": job.lease_id, **fields}, field)
        self.is_final = type_ in _ARRIVED
        self.tries = 0
        self.is_done = False
        self.outcome = TAKEN
        self.error: BaseException | None = None
        self.on_done: Callable[[Report], None] | None = None

    def fields(self) -> dict[str, Any]:
        """What it says, decoded."""
        decoded: dict[str, Any] = orjson.loads(self.body)
        return decoded

    def has_arrived(self, outcome: Outcome) -> bool:
        """Whether this 409 tells that an earlier try had taken effect."""
        return self.tries > 1 and outcome.ended in _ARRIVED.get(self.type, ())

    def settle(self, outcome: Outcome) -> None:
        """It took effect."""
        if not self.is_done:
            self.outcome = outcome
            self._tell()

    def fail(self, error: BaseException) -> None:
        """The outcome is an error."""
        if not self.is_done:
            self.error = error
            self._tell()

    def drop(self) -> None:
        """Nobody waits for its outcome any more: it is not sent again."""
        self.is_done = True

    async def wait(self) -> Outcome:
        """The outcome. Raises the error, where it is one; cancelled, it drops the report."""
        if not self.is_done:
            told = asyncio.get_running_loop().create_future()

            def tell(_: Report) -> None:
                if not told.done():
                    told.set_result(None)

            self.on_done = tell
            try:
                await told
            except asyncio.CancelledError:
                self.drop()
                raise
        if self.error is not None:
            raise self.error
        return self.outcome

    def _tell(self) -> None:
        self.is_done = True
        if self.on_done is not None:
            self.on_done(self)


def encode_list(reports: list[Report]) -> bytes:
    """The JSON of the list."""
    return b"[" + b",".join([report.body for report in reports]) + b"]"
