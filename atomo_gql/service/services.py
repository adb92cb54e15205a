"""All verbs of one process, in one hand for the edges."""

from dataclasses import dataclass

from atomo_gql.service.actions.bindings import BindingService
from atomo_gql.service.actions.dispatcher import Dispatcher
from atomo_gql.service.actions.records import RecordService
from atomo_gql.service.context import Bell, Resources
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
from atomo_gql.service.workflows.definitions import DefinitionService
from atomo_gql.service.workflows.engine import Engine
from atomo_gql.service.workflows.runs import RunService
from atomo_gql.service.workflows.schedules import ScheduleService


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
    workflows: DefinitionService
    runs: RunService
    engine: Engine
    schedules: ScheduleService
    records: RecordService
    bindings: BindingService
    dispatcher: Dispatcher
    bells: tuple[Bell, Bell]  # of the engine, and of the dispatcher


def make_services(resources: Resources, retention: Retention) -> Services:
    """Put the services together on shared resources."""
    tokens = TokenService(resources)
    jobs = JobService(resources)
    reports = ReportService(resources, tokens)
    workflows = DefinitionService(resources)
    engine = Engine(resources, jobs, workflows)
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
        workflows=workflows,
        runs=RunService(resources, workflows, engine),
        engine=engine,
        schedules=ScheduleService(resources, workflows),
        records=RecordService(resources),
        bindings=BindingService(resources),
        dispatcher=Dispatcher(resources, jobs),
        bells=(resources.runs_bell, resources.log_bell),
    )
