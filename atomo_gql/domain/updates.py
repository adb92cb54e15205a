"""What watchers of a job are told."""

from dataclasses import dataclass
from uuid import UUID

from atomo_gql.domain.jobs import Job, JobStatus, Json


@dataclass(frozen=True, slots=True, kw_only=True)
class JobUpdate:
    """One word about a job: its state, and the newest progress of the attempt under way."""

    job_id: UUID
    status: JobStatus
    attempts: int
    percent: float | None = None
    message: str | None = None
    data: Json = None
    result: Json = None  # once it has succeeded
    error: str | None = None  # of the last attempt that failed

    @property
    def is_last(self) -> bool:
        """Whether nothing comes after it."""
        return self.status.is_final


def update_of(job: Job) -> JobUpdate:
    """What there is to say of a job as it stands."""
    progress = job.progress or {}
    return JobUpdate(
        job_id=job.id,
        status=job.status,
        attempts=job.attempts,
        percent=progress.get("percent"),
        message=progress.get("message"),
        data=progress.get("data"),
        result=job.result,
        error=job.error,
    )
