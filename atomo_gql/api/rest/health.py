"""The open routes: for orchestrators, and for Prometheus."""

from atomo_gql.api.rest.endpoint import Answer, Call
from atomo_gql.service import metrics


async def live(call: Call) -> Answer:
    """`GET /healthz`: the process answers."""
    return Answer(200, b'{"status":"ok"}')


async def ready(call: Call) -> Answer:
    """`GET /readyz`: the database answers, and has the right schema."""
    await call.services.health.check_ready()
    return Answer(200, b'{"status":"ready"}')


async def prometheus(call: Call) -> Answer:
    """`GET /metrics`."""
    return Answer(200, metrics.exposition(), b"text/plain; version=0.0.4; charset=utf-8")
