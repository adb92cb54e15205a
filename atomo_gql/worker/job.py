"""The leased job, as a handler sees it."""

from typing import Any

import msgspec


class Job(msgspec.Struct, frozen=True, rename="camel"):
    """One leased job.

    id: UUIDv7 in canonical form. payload: any JSON value, decoded. attempts: attempts so far, this one included
    (1 on the first). max_attempts: after how many the job is dead. lease_id: names this attempt; a report with any
    other is refused. deliveries: leases so far, those handed back too, or None where the server does not say.
    timeout_secs: what this attempt may take, or None. deadline: from when it is not worth doing any more (RFC 3339), or
    None. traceparent: the W3C trace context of whoever enqueued it, or None.

    An answer of the server is decoded into these, and fields that this version does not know are left aside.
    """

    id: str
    queue: str
    kind: str
    payload: Any
    attempts: int
    max_attempts: int
    lease_id: str
    deliveries: int | None = None
    timeout_secs: int | float | None = None
    traceparent: str | None = None
    tenant_id: str | None = None
    deadline: str | None = None

    @property
    def label(self) -> str:
        """Kind and id for a log: one printable line, whatever the kind holds."""
        return f"{self.kind if self.kind.isprintable() else ascii(self.kind)} {self.id}"
