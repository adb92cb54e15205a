"""One report on its way to the server."""

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson

from atomo_gql.worker.encoding import encode_checked
from atomo_gql.worker.job import Job

# What ended a lease, where a report of that type had arrived and only its answer was lost.
_ARRIVED = {
    "complete": frozenset({"succeeded"}),
    "fail": frozenset({"failed", "dead"}),
    "release": frozenset({"released", "dead"}),
}


class Report:
    """A report, encoded, and the future of its outcome: the fields of the answer.

    `field` names the field that comes from the user's code; ValueError says why it is not JSON. A report that ends a
    lease is sent until it is answered; the others give up with the first request that fails.
    """

    __slots__ = ("body", "is_final", "job", "outcome", "tries", "type")

    def __init__(self, type_: str, job: Job, fields: Mapping[str, Any], field: str = "") -> None:
        self.type = type_
        self.job = job
        self.body = encode_checked({"type": type_, "id": job.id, "leaseId": job.lease_id, **fields}, field)
        self.is_final = type_ in _ARRIVED
        self.tries = 0
        self.outcome: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    def fields(self) -> dict[str, Any]:
        """What it says, decoded."""
        decoded: dict[str, Any] = orjson.loads(self.body)
        return decoded

    def has_arrived(self, outcome: Mapping[str, Any]) -> bool:
        """Whether this 409 tells that an earlier try had taken effect."""
        return self.tries > 1 and outcome.get("ended") in _ARRIVED.get(self.type, ())

    def fail(self, error: BaseException) -> None:
        """The outcome is an error."""
        if not self.outcome.done():
            self.outcome.set_exception(error)


def encode_list(reports: list[Report]) -> bytes:
    """The JSON of the list."""
    return b"[" + b",".join([report.body for report in reports]) + b"]"


def decode_outcomes(answer: Any, count: int) -> list[dict[str, Any]]:
    """The outcomes in an answer, one for each report.

    Raises ValueError where it is not the protocol's.
    """
    outcomes = answer["outcomes"] if isinstance(answer, dict) and "outcomes" in answer else None
    if not isinstance(outcomes, list) or len(outcomes) != count or not all(isinstance(o, dict) for o in outcomes):
        raise ValueError(f"the outcomes are not the protocol's: {orjson.dumps(answer)[:200]!r}")
    return outcomes
