"""Who may do what, decided once for every door."""

from uuid import UUID

from atomo_gql.domain.errors import Forbidden, NotFound
from atomo_gql.domain.principals import Caller, WorkerToken


def visible_tenant(caller: Caller) -> str | None:
    """The tenant whose jobs the caller sees, as the store knows it: '' those without one, None all of them.

    Raises:
        Forbidden: the caller has but a pass to watch one job.
    """
    return None if caller.sees_all else acting_tenant(caller)


def acting_tenant(caller: Caller) -> str:
    """The tenant whose jobs the caller makes, as the store knows it: '' is none.

    Raises:
        Forbidden: the caller has but a pass to watch one job.
    """
    if caller.only_job is not None:
        raise Forbidden("this token can watch one job, and nothing else")
    return caller.tenant or ""


def watched_tenant(caller: Caller, job_id: UUID) -> str | None:
    """As `visible_tenant`, for watching a job, which a pass for it opens too.

    Raises:
        NotFound: the pass is for another job.
    """
    if caller.only_job not in (None, job_id):
        raise NotFound(f"there is no job {job_id}")
    return None if caller.sees_all else caller.tenant or ""


def require_admin(caller: Caller) -> None:
    """Refuse everybody but operators.

    Raises:
        Forbidden: the caller is not an admin.
    """
    if not caller.is_admin or caller.only_job is not None:
        raise Forbidden('this needs a token with the claim role: "admin"')


def kinds_within(token: WorkerToken, kinds: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The kinds that a request is about; None: any.

    Raises:
        Forbidden: the token reaches none of them.
    """
    if token.kinds is None or kinds is None:
        return kinds if token.kinds is None else token.kinds
    within = tuple(kind for kind in kinds if kind in token.kinds)
    if not within:
        raise Forbidden(f"this worker token reaches none of these kinds; it has {', '.join(map(repr, token.kinds))}")
    return within


def require_queues(token: WorkerToken, queues: tuple[str, ...]) -> None:
    """Refuse queues outside the token.

    Raises:
        Forbidden: names the first queue that is not covered.
    """
    for queue in queues:
        if not token.covers(queue):
            what = "every queue" if queue == "*" else f"queue {queue!r}"
            raise Forbidden(f"this worker token does not reach {what}; it has {', '.join(map(repr, token.queues))}")
