"""The only door to PostgreSQL: one module per file of `sql/queries`, one function per statement.

For applications in Python it has `JobStore`, which enqueues inside their own transactions.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atomo_gql.store.jobstore import JobStore as JobStore

__all__ = ["JobStore"]


def __getattr__(name: str) -> Any:
    """`JobStore`, imported when it is asked for."""
    if name == "JobStore":
        from atomo_gql.store.jobstore import JobStore

        return JobStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
