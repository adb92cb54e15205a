"""The leased job, as a handler sees it."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Job:
    """One leased job.

    id: UUIDv7 in canonical form. payload: any JSON value, decoded. attempts: attempts so far, this one included
    (1 on the first). max_attempts: after how many the job is dead. lease_id: names this attempt; a report with any
    other is refused. deliveries: leases so far, those handed back too. timeout_secs: what this attempt may take, or
    None. deadline: from when it is not worth doing any more (RFC 3339), or None. traceparent: the W3C trace context of
    whoever enqueued it, or None.
    """

    id: str
    queue: str
    kind: str
    payload: Any
    attempts: int
    max_attempts: int
    lease_id: str
    deliveries: int = 1
    timeout_secs: float | None = None
    traceparent: str | None = None
    tenant_id: str | None = None
    deadline: str | None = None

    @property
    def label(self) -> str:
        """Kind and id for a log: one printable line, whatever the kind holds."""
        return f"{self.kind if self.kind.isprintable() else ascii(self.kind)} {self.id}"

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> "Job":
        """Read one entry of a lease answer; fields that this version does not know are left aside.

        Raises KeyError when a field is missing.
        """
        return cls(
            id=wire["id"],
            queue=wire["queue"],
            kind=wire["kind"],
            payload=wire["payload"],
            attempts=wire["attempts"],
            max_attempts=wire["maxAttempts"],
            lease_id=wire["leaseId"],
            deliveries=wire.get("deliveries", wire["attempts"]),
            timeout_secs=wire.get("timeoutSecs"),
            traceparent=wire.get("traceparent"),
            tenant_id=wire.get("tenantId"),
            deadline=wire.get("deadline"),
        )
