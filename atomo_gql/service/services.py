"""All verbs of one process, in one hand for the edges."""

from dataclasses import dataclass

from atomo_gql.service.context import Resources
from atomo_gql.service.health import HealthService
from atomo_gql.service.history import HistoryService
from atomo_gql.service.housekeeping import HousekeepingService, Retention
from atomo_gql.service.jobs import JobService
from atomo_gql.service.leases import LeaseService
from atomo_gql.service.manage import ManageService
from atomo_gql.service.queues import QueueService
from atomo_gql.service.reports import ReportService
from atomo_gql.service.tokens import TokenService
from atomo_gql.service.watching import WatchService


@dataclass(frozen=True, slots=True)
class Services:
    """What an edge can ask for."""

    jobs: JobService
    leases: LeaseService
    reports: ReportService
    history: HistoryService
    manage: ManageService
    queues: QueueService
    tokens: TokenService
    watching: WatchService
    housekeeping: HousekeepingService
    health: HealthService


def make_services(resources: Resources, retention: Retention) -> Services:
    """Put the services together on shared resources."""
    tokens = TokenService(resources)
    jobs = JobService(resources)
    reports = ReportService(resources, tokens)
    return Services(
        jobs=jobs,
        leases=LeaseService(resources, tokens, reports),
        reports=reports,
        history=HistoryService(resources),
        manage=ManageService(resources, jobs),
        queues=QueueService(resources),
        tokens=tokens,
        watching=WatchService(resources, jobs),
        housekeeping=HousekeepingService(resources, retention),
        health=HealthService(resources),
    )
