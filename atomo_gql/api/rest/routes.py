"""Every path on one screen."""

from collections.abc import Mapping

from starlette.routing import Route

from atomo_gql.api.rest import actions, bodies, health, jobs, schemas, tokens, worker, workflows
from atomo_gql.api.rest.endpoint import Answer, Call, Doors, Endpoint, Method, Plane
from atomo_gql.api.rest.openapi import document

_APP, _ADMIN, _WORKER, _OPEN = Plane.APP, Plane.ADMIN, Plane.WORKER, Plane.OPEN

ROUTES: dict[str, Mapping[str, Method]] = {
    "/jobs": {
        "POST": Method(_APP, jobs.enqueue, bodies.EnqueueBody, "Enqueue a job", {201: schemas.Created}),
    },
    "/jobs/batch": {
        "POST": Method(
            _APP,
            jobs.enqueue_batch,
            bodies.BatchBody,
            "Enqueue up to 1,000 jobs, all or none",
            {201: schemas.CreatedBatch},
            is_batch=True,
        ),
    },
    "/jobs/lease": {
        "POST": Method(
            _WORKER,
            worker.lease,
            bodies.LeaseBody,
            "Lease jobs, waiting for some",
            {200: schemas.Leased},
            is_batch=True,
            is_listed=True,
        ),
    },
    "/jobs/reports": {
        "POST": Method(
            _WORKER,
            worker.reports,
            bodies.ReportsBody,
            "Report on up to 1,000 leased jobs, each with its own outcome",
            {200: schemas.ReportOutcomes},
            is_batch=True,
            is_listed=True,
        ),
    },
    "/jobs/workers": {
        "GET": Method(_ADMIN, tokens.listing, None, "List the worker tokens", {200: schemas.WorkerTokens}),
        "POST": Method(_ADMIN, tokens.mint, bodies.MintBody, "Mint a worker token", {201: schemas.MintedToken}),
    },
    "/jobs/workers/{id}": {
        "DELETE": Method(_ADMIN, tokens.revoke, None, "Revoke a worker token", {204: None}),
    },
    "/jobs/workers/{id}/rotate": {
        "POST": Method(
            _ADMIN, tokens.rotate, bodies.RotateBody, "Mint a successor of a worker token", {201: schemas.MintedToken}
        ),
    },
    "/jobs/{id}": {
        "GET": Method(_APP, jobs.get, None, "A job as it stands", {200: schemas.JobView}),
    },
    "/jobs/{id}/heartbeat": {
        "POST": Method(_WORKER, worker.heartbeat, bodies.HeartbeatBody, "Extend a lease", {204: None}),
    },
    "/jobs/{id}/progress": {
        "POST": Method(_WORKER, worker.progress, bodies.ProgressBody, "Tell watchers, and extend", {204: None}),
    },
    "/jobs/{id}/complete": {
        "POST": Method(_WORKER, worker.complete, bodies.CompleteBody, "Report success", {204: None}),
    },
    "/jobs/{id}/fail": {
        "POST": Method(_WORKER, worker.fail, bodies.FailBody, "Report failure", {200: schemas.FailOutcome}),
    },
    "/jobs/{id}/release": {
        "POST": Method(_WORKER, worker.release, bodies.ReleaseBody, "Hand a job back unharmed", {204: None}),
    },
    "/workflows": {
        "GET": Method(_APP, workflows.listing, None, "List the workflows", {200: schemas.Workflows}),
        "POST": Method(
            _ADMIN,
            workflows.register,
            schemas.AnyObject,
            "Register a workflow, or a new version of it",
            {201: schemas.WorkflowView},
        ),
    },
    "/workflows/runs": {
        "GET": Method(
            _APP,
            workflows.runs,
            None,
            "List runs, the newest first",
            {200: schemas.Runs},
            query=workflows.RUNS_QUERY,
        ),
    },
    "/workflows/{name}": {
        "GET": Method(_APP, workflows.get, None, "A workflow in its newest version", {200: schemas.WorkflowView}),
        "DELETE": Method(_ADMIN, workflows.remove, None, "Let no run of it begin any more", {204: None}),
    },
    "/workflows/{name}/run": {
        "POST": Method(
            _APP,
            workflows.run,
            schemas.AnyObject,
            "Begin a run; the body is its context",
            {200: schemas.RunView},
            is_optional=True,
            headers=workflows.RUN_HEADERS,
        ),
    },
    "/workflows/{name}/pause": {
        "POST": Method(
            _ADMIN,
            workflows.pause,
            None,
            "Let neither its schedule nor events begin runs",
            {200: schemas.WorkflowView},
        ),
    },
    "/workflows/{name}/resume": {
        "POST": Method(_ADMIN, workflows.resume, None, "End a pause of a workflow", {200: schemas.WorkflowView}),
    },
    "/workflows/runs/{id}": {
        "GET": Method(_APP, workflows.run_get, None, "A run as it stands", {200: schemas.RunView}),
    },
    "/workflows/runs/{id}/cancel": {
        "POST": Method(
            _APP,
            workflows.run_cancel,
            bodies.CancelBody,
            "End a run, and the jobs that it waits for",
            {200: schemas.RunView},
            is_optional=True,
        ),
    },
    "/workflows/runs/{id}/retry": {
        "POST": Method(
            _APP,
            workflows.run_retry,
            None,
            "Go on with a run that has failed, from the step that failed",
            {200: schemas.RunView},
        ),
    },
    "/events": {
        "POST": Method(
            _APP, actions.record, bodies.RecordBody, "Record what happened to a model", {201: schemas.Recorded}
        ),
    },
    "/actions": {
        "GET": Method(_APP, actions.listing, None, "List the bindings", {200: schemas.Bindings}),
        "POST": Method(
            _ADMIN,
            actions.register,
            schemas.AnyObject,
            "Have an action fire on an event",
            {201: schemas.BindingView},
        ),
    },
    "/actions/{id}": {
        "DELETE": Method(_ADMIN, actions.remove, None, "Have it fire no more", {204: None}),
    },
    "/actions/{id}/resume": {
        "POST": Method(
            _ADMIN,
            actions.resume,
            bodies.ResumeBody,
            "Let a binding that was set aside go on",
            {200: schemas.BindingView},
            is_optional=True,
        ),
    },
    "/healthz": {"GET": Method(_OPEN, health.live, None, "The process answers", {200: schemas.Status})},
    "/readyz": {"GET": Method(_OPEN, health.ready, None, "The database answers too", {200: schemas.Status})},
    "/metrics": {"GET": Method(_OPEN, health.prometheus, None, "Prometheus text format", {200: str})},
}


async def _openapi(call: Call) -> Answer:
    """`GET /openapi.json`."""
    return Answer(200, document(ROUTES))


ROUTES["/openapi.json"] = {"GET": Method(_OPEN, _openapi, None, "This document", {200: schemas.AnyObject})}


def rest_routes(doors: Doors) -> list[Route]:
    """The routes, the hottest paths first."""
    return [Route(path, Endpoint(doors, methods), include_in_schema=False) for path, methods in ROUTES.items()]
