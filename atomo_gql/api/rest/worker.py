"""The worker plane: lease, heartbeat, progress, complete, fail, release."""

import math

from atomo_gql.api.rest import render
from atomo_gql.api.rest.endpoint import Answer, Call
from atomo_gql.domain.errors import BadUserInput, LeaseLost
from atomo_gql.domain.jobs import Lease, Progress
from atomo_gql.domain.rules import (
    MAX_MESSAGE,
    check_error,
    check_text,
    check_visibility,
    lease_request,
    parse_id,
)


async def lease(call: Call) -> Answer:
    """`POST /jobs/lease`."""
    body = call.body
    request = lease_request(body.queues, body.capacity, body.visibility_secs, body.wait_secs)
    jobs = await call.services.leases.lease(call.worker, request, call.hung_up)
    return Answer(200, render.to_json({"jobs": [render.leased_job(job) for job in jobs]}))


async def heartbeat(call: Call) -> Answer:
    """`POST /jobs/{id}/heartbeat`."""
    seconds = check_visibility(call.body.visibility_secs)
    await call.services.leases.heartbeat(call.worker, _lease(call), seconds)
    return Answer(204)


async def progress(call: Call) -> Answer:
    """`POST /jobs/{id}/progress`."""
    body = call.body
    if body.message is not None:
        check_text("message", body.message, MAX_MESSAGE)
    if body.percent is not None and not math.isfinite(body.percent):
        raise BadUserInput("percent must be a finite number", field="percent")
    seconds = None if body.visibility_secs is None else check_visibility(body.visibility_secs)
    said = Progress(percent=body.percent, message=body.message, data=body.data)
    await call.services.leases.progress(call.worker, _lease(call), said, seconds)
    return Answer(204)


async def complete(call: Call) -> Answer:
    """`POST /jobs/{id}/complete`."""
    await call.services.leases.complete(call.worker, _lease(call), call.body.result)
    return Answer(204)


async def fail(call: Call) -> Answer:
    """`POST /jobs/{id}/fail`."""
    error = check_error(call.body.error)
    retryable = call.body.retryable is not False
    outcome = await call.services.leases.fail(call.worker, _lease(call), error, retryable=retryable)
    return Answer(200, render.to_json(render.outcome(outcome)))


async def release(call: Call) -> Answer:
    """`POST /jobs/{id}/release`."""
    await call.services.leases.release(call.worker, _lease(call))
    return Answer(204)


def _lease(call: Call) -> Lease:
    """The lease a report names. What is no id at all is nobody's lease either."""
    check_text("leaseId", call.body.lease_id, 1_000)
    try:
        return Lease(parse_id("id", call.path["id"]), parse_id("leaseId", call.body.lease_id))
    except BadUserInput:
        raise LeaseLost(call.path["id"][:100]) from None
