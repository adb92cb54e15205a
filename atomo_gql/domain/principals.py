"""Who is calling, and what they may see."""

import time
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A person or service on the app or admin plane, known by a JWT."""

    subject: str
    is_admin: bool
    bound_tenant: str | None = None  # the token's own
    acting_tenant: str | None = None  # the one an unbound admin acts for
    only_job: UUID | None = None  # a pass to watch that job, and for nothing else
    expires_at: float | None = None  # when the token ends; seconds since 1970

    @property
    def tenant(self) -> str | None:
        """The tenant whose jobs this caller makes; None: without one."""
        return self.bound_tenant or self.acting_tenant

    @property
    def sees_all(self) -> bool:
        """Whether every tenant's jobs are visible: an unbound admin who acts for nobody."""
        return self.is_admin and self.tenant is None

    @property
    def actor(self) -> str:
        """How events name this caller."""
        return f"user:{self.subject}"


def remaining_secs(caller: Caller) -> float | None:
    """How long the caller's token is still good; None: it says no end."""
    return None if caller.expires_at is None else max(0.0, caller.expires_at - time.time())


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerToken:
    """A worker's credential, without the secret."""

    id: UUID
    name: str
    queues: tuple[str, ...]  # ("*",): any
    tenant: str | None  # None: every tenant's jobs
    created_at: datetime
    created_by: str
    revoked_at: datetime | None = None
    kinds: tuple[str, ...] | None = None  # None: any
    expires_at: datetime | None = None  # None: never
    last_used_at: datetime | None = None  # give or take a minute

    @property
    def is_revoked(self) -> bool:
        """Whether it opens nothing any more."""
        return self.revoked_at is not None

    def covers(self, queue: str) -> bool:
        """Whether it may lease from that queue ("*": from every one)."""
        return "*" in self.queues or queue in self.queues
