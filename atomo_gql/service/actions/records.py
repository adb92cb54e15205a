"""Recording what happens to the models of applications."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

from atomo_gql.domain.actions import NewEvent
from atomo_gql.domain.model_rules import check_new_event
from atomo_gql.domain.principals import Caller
from atomo_gql.domain.rules import check_unique
from atomo_gql.service import metrics
from atomo_gql.service.access import acting_tenant
from atomo_gql.service.context import Resources
from atomo_gql.service.encoding import encode
from atomo_gql.store import actions as store
from atomo_gql.store.actions import RecordRow
from atomo_gql.store.batching import Batcher


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event in the log, and whether this call put it there."""

    event_id: str
    is_new: bool


class RecordService:
    """The app plane's verb for events."""

    def __init__(self, resources: Resources) -> None:
        self._database = resources.database
        self._bell = resources.log_bell
        self._most = resources.limits.max_body
        self._recording: Batcher[RecordRow, bool] = Batcher(self._write, weigh=lambda row: len(row.data))

    async def record(self, caller: Caller, event: NewEvent, *, trace: str | None = None) -> Recorded:
        """Append an event to the stream of its model and id. The same event id of a tenant is the same event.

        Raises:
            BadUserInput, PayloadTooLarge: a field breaks a rule, which is named.
        """
        event = check_new_event(event)
        tenant = acting_tenant(caller)
        check_unique("id", event.entity_id, event.model, tenant, names="model and tenant")
        event_id = event.event_id or str(uuid4())
        data = {
            "model": event.model,
            "event": event.event,
            "id": event.entity_id,
            "eventId": event_id,
            "data": event.data,
            "previousData": event.previous,
            "origin": event.origin,
        }
        row = RecordRow(
            tenant=tenant,
            model=event.model,
            entity_id=event.entity_id,
            event_id=event_id,
            actor=caller.actor,
            trace=trace,
            data=encode("data", data, self._most),
        )
        return Recorded(event_id, await self._recording.submit(row))

    async def _write(self, rows: Sequence[RecordRow]) -> list[bool]:
        new = await store.record(self._database, rows)
        metrics.RECORDED.inc(sum(new))
        self._bell.ring()
        return new
