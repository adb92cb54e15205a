"""Workflows: their definitions, for admins; their runs, for every application."""

import re
from typing import Any
from uuid import UUID

from atomo_gql.api.rest import render
from atomo_gql.api.rest.endpoint import Answer, Call, header_text
from atomo_gql.api.rest.jobs import trace_of
from atomo_gql.domain.errors import BadUserInput, NotFound
from atomo_gql.domain.paging import Window
from atomo_gql.domain.rules import MAX_KEY, check_name, parse_id
from atomo_gql.domain.workflows.runs import Run, RunStatus
from atomo_gql.service.workflows.runs import RunFilter

_IDEMPOTENCY_KEY = "Idempotency-Key"


async def listing(call: Call) -> Answer:
    """`GET /workflows`."""
    found = await call.services.workflows.listed(call.caller)
    return Answer(200, render.to_json({"workflows": [render.workflow(workflow) for workflow in found]}))


async def register(call: Call) -> Answer:
    """`POST /workflows`."""
    made = await call.services.workflows.register(call.caller, call.body, trace=trace_of(call.header(b"traceparent")))
    return Answer(201, render.to_json(render.workflow(made)))


async def get(call: Call) -> Answer:
    """`GET /workflows/{name}`."""
    return Answer(200, render.to_json(render.workflow(await call.services.workflows.find(call.caller, _name(call)))))


async def remove(call: Call) -> Answer:
    """`DELETE /workflows/{name}`."""
    await call.services.workflows.remove(call.caller, _name(call))
    return Answer(204)


async def pause(call: Call) -> Answer:
    """`POST /workflows/{name}/pause`."""
    return Answer(200, render.to_json(render.workflow(await call.services.workflows.pause(call.caller, _name(call)))))


async def resume(call: Call) -> Answer:
    """`POST /workflows/{name}/resume`."""
    return Answer(200, render.to_json(render.workflow(await call.services.workflows.resume(call.caller, _name(call)))))


async def run(call: Call) -> Answer:
    """`POST /workflows/{name}/run`."""
    given = call.headers.get(_IDEMPOTENCY_KEY.lower().encode())
    key = None
    if given is not None:
        key = check_name(_IDEMPOTENCY_KEY, header_text(_IDEMPOTENCY_KEY, given), MAX_KEY)
    trace = trace_of(call.header(b"traceparent"))
    return await _run(call, await call.services.runs.start(call.caller, _name(call), call.body, key=key, trace=trace))


async def runs(call: Call) -> Answer:
    """`GET /workflows/runs`."""
    wanted = RunFilter(workflow=_one(call, "workflow"), statuses=_statuses(call))
    if wanted.workflow is not None:
        check_name("workflow", wanted.workflow)
    first, after = _one(call, "first"), _one(call, "after")
    if first is not None and not re.fullmatch(r"\d{1,9}", first, re.ASCII):
        raise BadUserInput("first must be a whole number", field="first")
    window = Window.of(
        None if first is None else int(first), None if after is None else parse_id("after", after), None, None
    )
    page = await call.services.runs.page(call.caller, wanted, window, oldest_first=False)
    return Answer(200, render.to_json({"runs": [render.run_line(r) for r in page.items], "hasMore": page.has_next}))


async def run_get(call: Call) -> Answer:
    """`GET /workflows/runs/{id}`."""
    return await _run(call, await call.services.runs.get(call.caller, _id(call)))


async def run_cancel(call: Call) -> Answer:
    """`POST /workflows/runs/{id}/cancel`."""
    return await _run(call, await call.services.runs.cancel(call.caller, _id(call), call.body.reason))


async def run_retry(call: Call) -> Answer:
    """`POST /workflows/runs/{id}/retry`."""
    return await _run(call, await call.services.runs.retry(call.caller, _id(call)))


async def _run(call: Call, run: Run) -> Answer:
    version = run.workflow_id, run.definition_version
    definition = (await call.services.workflows.of_runs([version]))[version]
    return Answer(200, render.to_json(render.run(run, definition)))


def _name(call: Call) -> str:
    name: str = call.path["name"]
    return name


def _id(call: Call) -> UUID:
    try:
        return parse_id("id", call.path["id"])
    except BadUserInput:
        raise NotFound(f"there is no run {call.path['id'][:100]!r}") from None


def _one(call: Call, name: str) -> str | None:
    values = call.query.get(name)
    return values[0] if values else None


def _statuses(call: Call) -> tuple[RunStatus, ...] | None:
    named = call.query.get("status")
    if named is None:
        return None
    known = {status.value: status for status in RunStatus}
    if any(name not in known for name in named):
        raise BadUserInput(f"status must be one of {', '.join(known)}", field="status")
    return tuple(known[name] for name in named)


RUNS_QUERY: dict[str, Any] = {
    "workflow": {"type": "string", "description": "Of the workflow of that name."},
    "status": {
        "type": "array",
        "items": {"type": "string", "enum": [status.value for status in RunStatus]},
        "description": "In this state; again for more.",
    },
    "first": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20, "description": "At most so many."},
    "after": {"type": "string", "format": "uuid", "description": "Those that began before the run of that id."},
}
RUN_HEADERS = {_IDEMPOTENCY_KEY: "The same key of the same workflow, in a tenant, is the same run."}
