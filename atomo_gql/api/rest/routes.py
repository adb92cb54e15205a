"""Every path on one screen."""

from collections.abc import Mapping

from starlette.routing import Route

from atomo_gql.api.rest import bodies, health, jobs, schemas, tokens, worker
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
