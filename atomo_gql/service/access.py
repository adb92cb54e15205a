"""Who may do what, decided once for every door."""

from atomo_gql.domain.errors import Forbidden
from atomo_gql.domain.principals import Caller, WorkerToken


def visible_tenant(caller: Caller) -> str | None:
    """The tenant whose jobs the caller sees, as the store knows it: '' those without one, None all of them."""
    return None if caller.sees_all else caller.tenant or ""


def require_admin(caller: Caller) -> None:
    """Refuse everybody but operators.

    Raises:
        Forbidden: the caller is not an admin.
    """
    if not caller.is_admin:
        raise Forbidden('this needs a token with the claim role: "admin"')


def require_queues(token: WorkerToken, queues: tuple[str, ...]) -> None:
    """Refuse queues outside the token.

    Raises:
        Forbidden: names the first queue that is not covered.
    """
    for queue in queues:
        if not token.covers(queue):
            what = "every queue" if queue == "*" else f"queue {queue!r}"
            raise Forbidden(f"this worker token does not reach {what}; it has {', '.join(map(repr, token.queues))}")
