"""What the attempts of one worker have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atomo_gql.worker.errors import Refused
from atomo_gql.worker.outbox import Outbox
from atomo_gql.worker.processes import Processes
from atomo_gql.worker.tally import Tally
from atomo_gql.worker.threads import Threads

if TYPE_CHECKING:
    from atomo_gql.worker.attempt import Attempt


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The callbacks are told: when a handler has ended, so that there is room; when the attempt has; when the server
    answers a call with a 4xx that the attempt can do nothing about."""

    outbox: Outbox
    threads: Threads
    processes: Processes
    tally: Tally
    visibility: int
    on_room: Callable[["Attempt"], None]
    on_end: Callable[["Attempt"], None]
    on_refused: Callable[[Refused], None]
