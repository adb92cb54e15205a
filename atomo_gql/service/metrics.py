"""What Prometheus sees. No label takes a caller's word (queue, tenant, kind): their number has no bound."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nobody reads
REGISTRY = CollectorRegistry()

ENQUEUED = Counter("atomo_jobs_enqueued", "Jobs made", registry=REGISTRY)
LEASED = Counter("atomo_jobs_leased", "Leases given", registry=REGISTRY)
SUCCEEDED = Counter("atomo_jobs_succeeded", "Jobs completed", registry=REGISTRY)
FAILED = Counter("atomo_jobs_failed", "Attempts that failed and will be retried", registry=REGISTRY)
DEAD = Counter("atomo_jobs_dead", "Jobs that became dead letters", registry=REGISTRY)
RETRIED = Counter("atomo_jobs_retried", "Dead jobs queued again by hand", registry=REGISTRY)
CANCELLED = Counter("atomo_jobs_cancelled", "Jobs ended by hand", registry=REGISTRY)
RELEASED = Counter("atomo_jobs_released", "Jobs handed back unharmed", registry=REGISTRY)
RECLAIMED = Counter("atomo_jobs_reclaimed", "Leases that ran out", registry=REGISTRY)
LEASES_LOST = Counter(
    "atomo_leases_lost", "Reports refused because the lease was not the current one", registry=REGISTRY
)
RUNS_STARTED = Counter("atomo_workflow_runs_started", "Runs of workflows begun", registry=REGISTRY)
RUNS_ENDED = Counter("atomo_workflow_runs_ended", "Runs of workflows that ended", ["status"], registry=REGISTRY)
STEPS = Counter("atomo_workflow_steps_completed", "Steps of runs completed", registry=REGISTRY)
RECORDED = Counter("atomo_events_recorded", "Events of models recorded by applications", registry=REGISTRY)
FIRED = Counter("atomo_actions_fired", "Jobs enqueued by bindings", registry=REGISTRY)
SET_ASIDE = Counter("atomo_bindings_set_aside", "Bindings that failed, and were set aside", registry=REGISTRY)
DISPATCH_LAG = Gauge(
    "atomo_dispatch_lag_seconds",
    "Age of the first event that the action dispatcher has not seen; 0 when it has seen all",
    registry=REGISTRY,
    multiprocess_mode="livemax",
)
WAITING = Gauge(
    "atomo_long_polls", "Lease requests that wait for a job", registry=REGISTRY, multiprocess_mode="livesum"
)
WATCHERS = Gauge("atomo_watchers", "Watchers of jobs", registry=REGISTRY, multiprocess_mode="livesum")
REQUESTS = Counter("atomo_http_requests", "HTTP requests", ["route", "method", "status"], registry=REGISTRY)
DURATION = Histogram(
    "atomo_http_request_duration_seconds",
    "Time to answer, long polls included",
    ["route"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30, 60),
    registry=REGISTRY,
)
RETENTION_DELETED = Counter("atomo_jobs_forgotten", "Ended jobs deleted one by one by retention", registry=REGISTRY)
PARTITIONS_REPLACED = Counter(
    "atomo_partitions_replaced", "Pairs of partitions that were merged, or written anew by retention", registry=REGISTRY
)


_told = REGISTRY


class Sums(MultiProcessCollector):
    """The sums over the files of all processes in a folder.

    For a moment the file of a process that begins is empty. Its base class takes such a file for a broken one, and no
    metric would be told.
    """

    def __init__(self, registry: CollectorRegistry, folder: str) -> None:
        """Adds itself to the registry."""
        super().__init__(registry, folder)  # type: ignore[no-untyped-call]
        self._folder = Path(folder)

    def collect(self) -> Iterable[Metric]:
        """The metrics of all processes together."""
        found: Iterable[Metric] = self.merge(  # type: ignore[no-untyped-call]
            [str(file) for file in self._folder.glob("*.db") if _has_content(file)]
        )
        return found


def _has_content(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:  # of a process that has just ended
        return False


def tell_sums(folder: str) -> None:
    """From now on tell the sums over all processes that keep their values in this folder."""
    global _told
    _told = CollectorRegistry()
    Sums(_told, folder)


def exposition() -> bytes:
    """The text format of Prometheus."""
    return generate_latest(_told)


@cache
def _route(route: str, method: str, status: int) -> tuple[Counter, Histogram]:
    # Looking labels up costs more than counting; there are few.
    return REQUESTS.labels(route, method, status), DURATION.labels(route)


def observe(route: str, method: str, status: int, seconds: float) -> None:
    """Count an answered request."""
    count, duration = _route(route, method, status)
    count.inc()
    duration.observe(seconds)
