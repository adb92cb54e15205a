"""The trace of whoever enqueued a job goes on in its handler.

With OpenTelemetry installed the handler runs in a span of its own, a child of the enqueuer's. Without it the W3C
traceparent is still at hand: `ctx.job.traceparent`, and `current_traceparent()` for what the handler calls.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

from atomo_gql.worker.job import Job

try:
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:  # an optional companion
    _HAS_OPENTELEMETRY = False
else:
    _HAS_OPENTELEMETRY = True

ASK_SECONDS = 0.5
_recorded, _asked_at = False, float("-inf")
_UNTRACED = nullcontext()
_traceparent: ContextVar[str | None] = ContextVar("atomo_traceparent", default=None)


def current_traceparent() -> str | None:
    """The W3C traceparent of the span or job under way here, or None."""
    if _HAS_OPENTELEMETRY:
        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier)
        if "traceparent" in carrier:
            return carrier["traceparent"]
    return _traceparent.get()


def in_trace(job: Job) -> AbstractContextManager[None]:
    """Within it the job's trace is the current one."""
    if job.traceparent is None and not _is_recorded():
        return _UNTRACED
    return _in_trace(job)


def _is_recorded() -> bool:
    """Whether the application has set OpenTelemetry up, and not only installed it. To ask costs more than a job, and it
    seldom changes."""
    global _recorded, _asked_at
    if _HAS_OPENTELEMETRY and (now := time.monotonic()) - _asked_at > ASK_SECONDS:
        _recorded = not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
        _asked_at = now
    return _recorded


@contextmanager
def _in_trace(job: Job) -> Iterator[None]:
    token = _traceparent.set(job.traceparent)
    try:
        if not _HAS_OPENTELEMETRY:
            yield
            return
        carrier = {} if job.traceparent is None else {"traceparent": job.traceparent}
        with trace.get_tracer("atomo_gql.worker").start_as_current_span(
            f"process {job.kind}",
            context=TraceContextTextMapPropagator().extract(carrier),
            kind=trace.SpanKind.CONSUMER,
            attributes={
                "messaging.system": "atomo_gql",
                "messaging.operation.type": "process",
                "messaging.destination.name": job.queue,
                "messaging.message.id": job.id,
                "atomo.job.kind": job.kind,
                "atomo.job.attempt": job.attempts,
            },
        ):
            yield
    finally:
        _traceparent.reset(token)
