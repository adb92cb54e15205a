"""The worker plane: lease, and the reports on what was leased, one by one or many at once."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from atomo_gql.api.errors import STATUS
from atomo_gql.api.rest import render
from atomo_gql.api.rest.bodies import ReportBody, decode, id_of
from atomo_gql.api.rest.endpoint import Answer, Call
from atomo_gql.domain.errors import AtomoError, BadUserInput, LeaseLost
from atomo_gql.domain.principals import WorkerToken
from atomo_gql.domain.reports import FailOutcome, Progress, Report, ReportType
from atomo_gql.domain.rules import (
    MAX_MESSAGE,
    MAX_REPORTS,
    are_ids,
    check_error,
    check_retry_after,
    check_text,
    check_visibility,
    is_id,
    lease_request,
)
from atomo_gql.service.reports import Outcome, ReportService


async def lease(call: Call) -> Answer:
    """`POST /jobs/lease`."""
    body = call.body
    request = lease_request(
        body.queues, body.capacity, body.visibility_secs, body.wait_secs, body.kinds, body.request_id
    )
    leases = call.services.leases
    if body.reports is None:
        jobs, _ = await leases.lease(call.worker, request, call.hung_up)
        return Answer(200, b'{"jobs":%b}' % render.leased(jobs))
    listed = _Listed(body.reports)
    jobs, outcomes = await leases.lease(call.worker, request, call.hung_up, listed.reports)
    return Answer(200, b'{"jobs":%b,"outcomes":%b}' % (render.leased(jobs), render.to_json(listed.render(outcomes))))


async def reports(call: Call) -> Answer:
    """`POST /jobs/reports`."""
    listed = _Listed(call.body.reports)
    return Answer(200, render.to_json({"outcomes": await listed.apply(call.services.reports, call.worker)}))


async def heartbeat(call: Call) -> Answer:
    """`POST /jobs/{id}/heartbeat`."""
    await _report(call, ReportType.HEARTBEAT)
    return Answer(204)


async def progress(call: Call) -> Answer:
    """`POST /jobs/{id}/progress`."""
    await _report(call, ReportType.PROGRESS)
    return Answer(204)


async def complete(call: Call) -> Answer:
    """`POST /jobs/{id}/complete`."""
    await _report(call, ReportType.COMPLETE)
    return Answer(204)


async def fail(call: Call) -> Answer:
    """`POST /jobs/{id}/fail`."""
    return Answer(200, render.to_json(await _report(call, ReportType.FAIL)))


async def release(call: Call) -> Answer:
    """`POST /jobs/{id}/release`."""
    await _report(call, ReportType.RELEASE)
    return Answer(204)


async def _report(call: Call, type_: ReportType) -> dict[str, Any]:
    job_id, lease_id = call.path["id"], call.body.lease_id
    _check_lease(job_id, lease_id)
    report = _READERS[type_](job_id, lease_id, call.body)
    outcome = await call.services.reports.report(call.worker, report)
    return {} if outcome is None else render.outcome(outcome)


def _check_lease(job_id: str, lease_id: str) -> None:
    """What is no id at all is nobody's lease either."""
    if not is_id(job_id) or not is_id(lease_id):
        check_text("leaseId", lease_id, 1_000)
        raise LeaseLost(job_id[:100])


def _heartbeat(job_id: str, lease_id: str, body: Any) -> Report:
    return Report(ReportType.HEARTBEAT, job_id, lease_id, visibility_secs=check_visibility(body.visibility_secs))


def _progress(job_id: str, lease_id: str, body: Any) -> Report:
    if body.message is not None:
        check_text("message", body.message, MAX_MESSAGE)
    if body.percent is not None and not math.isfinite(body.percent):
        raise BadUserInput("percent must be a finite number", field="percent")
    return Report(
        ReportType.PROGRESS,
        job_id,
        lease_id,
        visibility_secs=None if body.visibility_secs is None else check_visibility(body.visibility_secs),
        progress=Progress(percent=body.percent, message=body.message, data=body.data),
    )


def _complete(job_id: str, lease_id: str, body: Any) -> Report:
    return Report(ReportType.COMPLETE, job_id, lease_id, body.result)


def _fail(job_id: str, lease_id: str, body: Any) -> Report:
    return Report(
        ReportType.FAIL,
        job_id,
        lease_id,
        error=check_error(body.error),
        retryable=body.retryable is not False,
        retry_after_secs=check_retry_after(body.retry_after_secs),
    )


def _release(job_id: str, lease_id: str, body: Any) -> Report:
    return Report(ReportType.RELEASE, job_id, lease_id)


_READERS: Mapping[str, Callable[[str, str, Any], Report]] = {
    ReportType.HEARTBEAT: _heartbeat,
    ReportType.PROGRESS: _progress,
    ReportType.COMPLETE: _complete,
    ReportType.FAIL: _fail,
    ReportType.RELEASE: _release,
}


def _bodies(raw: Sequence[msgspec.Raw]) -> Sequence[ReportBody | bytes]:
    """The members of a list in one go; if one is malformed, as they are, to be read one by one."""
    try:
        return decode(b"[%b]" % b",".join(raw), list[ReportBody])
    except BadUserInput:
        return [bytes(item) for item in raw]


def _have_ids(bodies: Sequence[ReportBody | bytes]) -> bool:
    """Whether all could be read, and name a lease as leases are named."""
    read = [body for body in bodies if isinstance(body, ReportBody)]
    return len(read) == len(bodies) and are_ids([b.id for b in read]) and are_ids([b.lease_id for b in read])


class _Listed:
    """A list of reports: what could be read of it, and room for an outcome each."""

    def __init__(self, raw: Sequence[msgspec.Raw]) -> None:
        if not 0 < len(raw) <= MAX_REPORTS:
            raise BadUserInput(f"reports must hold from 1 to {MAX_REPORTS} reports, not {len(raw)}", field="reports")
        bodies = _bodies(raw)
        self._ids = [body.id[:100] if isinstance(body, ReportBody) else id_of(body) for body in bodies]
        self._outcomes: list[Outcome] = [None] * len(raw)
        self._places: list[int] = []
        self.reports: list[Report] = []
        is_checked = _have_ids(bodies)
        for place, body in enumerate(bodies):
            try:
                if not isinstance(body, ReportBody):
                    body = decode(body, ReportBody)
                if not is_checked:
                    _check_lease(body.id, body.lease_id)
                report = _READERS[body.type](body.id, body.lease_id, body)
            except AtomoError as error:
                self._outcomes[place] = error
            else:
                self._places.append(place)
                self.reports.append(report)

    async def apply(self, service: ReportService, token: WorkerToken) -> list[dict[str, Any]]:
        """Apply those that could be read, and say what became of each."""
        return self.render(await service.apply(token, self.reports))

    def render(self, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
        """Each as its own call would have been answered: a status, and the fields of the answer's body."""
        for place, outcome in zip(self._places, outcomes, strict=True):
            self._outcomes[place] = outcome
        return [
            {"id": job_id, "status": 204} if outcome is None else _rendered(job_id, outcome)
            for job_id, outcome in zip(self._ids, self._outcomes, strict=True)
        ]


def _rendered(job_id: str | None, outcome: FailOutcome | AtomoError) -> dict[str, Any]:
    if isinstance(outcome, AtomoError):
        return {"id": job_id, "status": STATUS[outcome.code], "detail": outcome.detail, **outcome.extensions}
    return {"id": job_id, "status": 200, **render.outcome(outcome)}
