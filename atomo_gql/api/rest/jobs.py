"""The app plane: enqueue and poll."""

import re

from atomo_gql.api.rest import render
from atomo_gql.api.rest.bodies import EnqueueBody
from atomo_gql.api.rest.endpoint import Answer, Call
from atomo_gql.domain.errors import BadUserInput, NotFound
from atomo_gql.domain.jobs import NewJob
from atomo_gql.domain.rules import parse_id

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def new_job(body: EnqueueBody) -> NewJob:
    """The job that a body describes."""
    return NewJob(
        queue=body.queue,
        kind=body.kind,
        payload=body.payload,
        idempotency_key=body.idempotency_key,
        max_attempts=5 if body.max_attempts is None else body.max_attempts,
        priority=0 if body.priority is None else body.priority,
        run_at=body.run_at,
        timeout_secs=body.timeout_secs,
        deadline=body.deadline,
    )


def trace_of(header: str | None) -> str | None:
    """A W3C traceparent, if it is one; what is not is no reason to refuse a job."""
    return header if header and _TRACEPARENT.fullmatch(header) else None


async def enqueue(call: Call) -> Answer:
    """`POST /jobs`."""
    job_id = await call.services.jobs.enqueue(
        call.caller, new_job(call.body), trace=trace_of(call.header(b"traceparent"))
    )
    return Answer(201, b'{"id":"%b"}' % str(job_id).encode())


async def enqueue_batch(call: Call) -> Answer:
    """`POST /jobs/batch`."""
    ids = await call.services.jobs.enqueue_many(
        call.caller, [new_job(body) for body in call.body.jobs], trace=trace_of(call.header(b"traceparent"))
    )
    return Answer(201, render.to_json({"jobs": [{"id": job_id} for job_id in ids]}))


async def get(call: Call) -> Answer:
    """`GET /jobs/{id}`."""
    try:
        job_id = parse_id("id", call.path["id"])
    except BadUserInput:
        raise NotFound(f"there is no job {call.path['id'][:100]!r}") from None
    return Answer(200, render.to_json(render.job(await call.services.jobs.get(call.caller, job_id))))
