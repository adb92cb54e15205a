"""What PostgreSQL, a pooler or the network says when it fails, in words for a caller and for the log."""

import asyncpg

from atomo_gql.domain.errors import Unavailable

COLLIDED = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
"""Two transactions were in each other's way; neither their fault nor ours, and the next try works."""

_NO_PARTITION = "the database has no partition for these ids, and none could be made; atomo-gql check says more"
_AWAY = "the database cannot be reached just now; try again"
_READ_ONLY = "the database is read-only just now; try again"
_SCHEMA = "the database's schema is not the one that this server needs just now; try again"
_POOLER = "the way to the database was changed under a statement; try again"
_TROUBLE = "the database has an internal trouble, which its own log explains; try again"
# By SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html
_BY_CODE = {
    "25006": _READ_ONLY,
    "26000": _POOLER,  # a prepared statement that is not there
    "42P05": _POOLER,  # a prepared statement that is there already
    "53100": "the disk of the database is full; nothing can be written until it has room",
    "53200": "the database is out of memory, or of locks (max_locks_per_transaction); try again",
    "53300": "the database has no connection left (max_connections); try again",
    "55P03": "the database is too busy with the same rows; try again",
    "57014": "the database took too long; try again",
    "42P01": _SCHEMA,
    "42703": _SCHEMA,
    "42704": _SCHEMA,
    "42883": _SCHEMA,
    "42P10": _SCHEMA,
    "3F000": _SCHEMA,
    "42501": "the database's role may not do that (its rights were changed)",
}
_BY_CLASS = {
    "08": _AWAY,  # the connection
    "28": "the database does not let the service in; see its log",
    "53": "the database is out of some resource; try again",
    "55": "the database is too busy; try again",
    "57": _AWAY,  # somebody intervened: shutdown, start, end of a session
    "58": _TROUBLE,  # the system around PostgreSQL: files that are gone, input and output
    "F0": _TROUBLE,
    "XX": _TROUBLE,
}
# After these the connection is of no use, and the others of its pool are most likely not, either.
_SPENT_CODES = {"25006", "26000", "42P05"}
_SPENT_CLASSES = {"08", "28", "58"}
_SPENT_57 = {"57P01", "57P02", "57P03", "57P04", "57P05"}
_CLIENT = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)


def unavailable(error: BaseException | None) -> Unavailable | None:
    """What a caller is told; None: it is not the database's being away, but somebody's fault."""
    if isinstance(error, asyncpg.PostgresError):
        code = error.sqlstate or ""
        if isinstance(error, asyncpg.CheckViolationError) and error.constraint_name is None:
            return Unavailable(_NO_PARTITION)
        detail = _BY_CODE.get(code) or _BY_CLASS.get(code[:2])
        return Unavailable(detail) if detail else None
    return Unavailable(_AWAY) if isinstance(error, _CLIENT) else None


def is_spent(error: BaseException) -> bool:
    """Whether the connection that it came from must not be used again."""
    if isinstance(error, asyncpg.PostgresError):
        code = error.sqlstate or ""
        return code in _SPENT_CODES or code[:2] in _SPENT_CLASSES or code in _SPENT_57
    return isinstance(error, OSError | TimeoutError | asyncpg.InternalClientError)


def is_of_a_pooler(error: BaseException) -> bool:
    """Whether a prepared statement was not there, or was there already: another server than before has answered."""
    return isinstance(error, asyncpg.InvalidSQLStatementNameError | asyncpg.DuplicatePreparedStatementError)


def is_disk_full(error: BaseException) -> bool:
    """Whether PostgreSQL has no room to write."""
    return isinstance(error, asyncpg.DiskFullError)


def in_short(error: BaseException) -> str:
    """One line for the log."""
    text = " ".join(str(error).split())
    code = f" ({error.sqlstate})" if isinstance(error, asyncpg.PostgresError) and error.sqlstate else ""
    return f"{text or type(error).__name__}{code}"
