"""What to do about a database that cannot be used: one sentence for each of the usual mistakes.

For the start and for `atomo-gql check`, where somebody reads it. A service under way only needs `Unavailable`.
"""

import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

import asyncpg

from atomo_gql.domain.errors import Unavailable

_LIMITS = "raise max_connections (or the limit of the role or the database), or lower ATOMO_POOL_SIZE and ATOMO_WORKERS"
_PRIMARY = "name the primary in DATABASE_URL, or all hosts with target_session_attrs=read-write"
_PARAMETER = "take what it names out of DATABASE_URL"
_GRANT = (
    "let an owner of the database say GRANT CREATE ON DATABASE … TO this role, or CREATE SCHEMA atomo AUTHORIZATION "
    "this role"
)

# What to do, by SQLSTATE. Of a class (its first two letters) where the code itself is not there.
_ADVICE = {
    "28": "correct the user and the password in DATABASE_URL, or let pg_hba.conf and the role allow this login",
    "3D": "create it (createdb), or correct DATABASE_URL",
    "42501": _GRANT,
    "42601": _PARAMETER,
    "42704": _PARAMETER,
    "08P01": _PARAMETER + "; of PgBouncer, name it in ignore_startup_parameters",
    "22021": "the database must be UTF8: make one with createdb -E UTF8 -T template0",
    "22P05": "the database must be UTF8: make one with createdb -E UTF8 -T template0",
    "22023": _PARAMETER,
    "25006": _PRIMARY,
    "53100": "free some space on the disk of PostgreSQL",
    "53": _LIMITS,
    "55P03": "end the transaction that holds the lock (pg_stat_activity shows it), and start again",
    "57014": "start again when PostgreSQL has less to do",
    "57": "start again when PostgreSQL is up",
}


class DatabaseUnusable(Exception):
    """The database cannot be used as it is; the message says why, and what to do."""


@contextlib.contextmanager
def explained(dsn: str) -> Iterator[None]:
    """Turn what PostgreSQL, its driver and the network say in the block into one sentence.

    Raises:
        DatabaseUnusable: the block met such an error.
    """
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, Unavailable) as error:
        cause = error.__cause__ or error if isinstance(error, Unavailable) else error
        raise DatabaseUnusable(f"the database {described(dsn)} cannot be used: {_sentence(cause)}") from error


def described(dsn: str) -> str:
    """The address without password and parameters."""
    try:
        parts = urlsplit(dsn)
        user, _, hosts = parts.netloc.rpartition("@")
        # A sign that should have been percent-encoded moves a part of the password to where it would be told.
        if "@" in parts.path + parts.fragment or not parts.scheme.startswith("postgres"):
            return "of DATABASE_URL"
        named = f"{unquote(user.partition(':')[0])}@" if user else ""
        return f"postgresql://{named}{hosts}{unquote(parts.path)}"
    except ValueError:
        return "of DATABASE_URL"


def _sentence(error: BaseException) -> str:
    code = getattr(error, "sqlstate", None)
    if isinstance(error, asyncpg.PostgresError) and code:
        reason = str(error).partition("\n")[0]
        advice = _ADVICE.get(code) or _ADVICE.get(code[:2])
        if code == "42501" and ("must be owner" in reason or ("for schema" not in reason and "database" not in reason)):
            advice = "connect as the role that owns the schema atomo, or let that role be granted to this one"
        if code == "42501" and "CONNECT" in (getattr(error, "detail", None) or ""):
            advice = "let an owner of the database say GRANT CONNECT ON DATABASE … TO this role"
        return f"{reason}; {advice}" if advice else f"{reason} (SQLSTATE {code})"
    if isinstance(error, asyncpg.exceptions.TargetServerAttributeNotMatched):
        return "none of its hosts is what target_session_attrs asks for; correct it, or name the host that is"
    if isinstance(error, OSError):
        return _of_network(error)
    return " ".join(str(error).split()) or type(error).__name__


def _of_network(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "it does not answer in time; correct DATABASE_URL, or let the network pass"
    if isinstance(error, socket.gaierror):
        return f"its host is not known ({error.strerror}); correct DATABASE_URL, or the name service"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused ({error.verify_message}); correct sslrootcert or sslmode in DATABASE_URL"
    if isinstance(error, ssl.SSLError):
        return f"TLS fails ({error.reason or error}); correct sslmode in DATABASE_URL"
    said = " ".join(str(error).split())
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "too many files are open here; raise ulimit -n"
    if "rejected SSL upgrade" in said:
        return "it speaks no TLS, which sslmode asks for, or is no PostgreSQL; correct host, port or sslmode"
    if "connection_lost" in said or isinstance(error, ConnectionResetError):
        return "it ends the connection without a word; is PostgreSQL what listens there?"
    if error.errno == errno.ECONNREFUSED or "Multiple exceptions" in said:
        return "nobody listens there (connection refused); start PostgreSQL, or correct host and port in DATABASE_URL"
    if isinstance(error, FileNotFoundError):
        named = f" {error.filename}" if error.filename else ""
        return f"a file{named} or socket that DATABASE_URL names is not there; correct its path"
    reason = os.strerror(error.errno) if error.errno and error.errno in errno.errorcode else said
    return f"{reason}; correct DATABASE_URL, or what is in the way"
