"""What every service needs."""

from dataclasses import dataclass, field

from atomo_gql.realtime.hub import Hub
from atomo_gql.service.recorder import Recorder
from atomo_gql.store.database import Database


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds an operator sets."""

    max_body: int  # bytes of a request, and of one JSON value in it
    max_waiting: int  # long polls at a time
    max_subscriptions: int  # watchers at a time
    spare_deliveries: int  # leases of a job beyond its attempts


@dataclass(frozen=True, slots=True)
class Resources:
    """Shared by the services of one process."""

    database: Database
    hub: Hub
    limits: Limits
    seen: Recorder = field(default_factory=Recorder)
