"""Making connections: hosts in turn, sockets that notice a dead peer, our settings, and what a pooler allows.

Three ways lead to a PostgreSQL. On a way of one's own, and through a pooler that gives each client a server for the
length of its session, settings are made once. A pooler in transaction mode gives each transaction any server it has:
there, settings are made with each transaction, and nothing is done outside of one.
"""

import asyncio
import contextlib
import secrets
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

import asyncpg
import orjson

from atomo_gql.address import Address, KeepAlive

SCHEMA = "atomo"
HOST_SECS = 3.0
"""Seconds for one of several hosts to answer before the next one is tried."""

# A role or a database may have other defaults; tests/store/test_defaults.py has those that would break something.
# default_transaction_read_only is not among them: who sets it means it.
COMMON_SETTINGS = {
    "search_path": SCHEMA,
    "timezone": "UTC",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "extra_float_digits": "1",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "jit": "off",
    "lock_timeout": "10s",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "60s",
    "idle_session_timeout": "0",
}
_SINCE_17 = {"transaction_timeout": "0"}


class Way(Enum):
    """How a connection comes to its PostgreSQL."""

    DIRECT = "direct"
    SESSION = "through a pooler, a server for each session"
    TRANSACTION = "through a pooler, a server for each transaction"
    TRANSACTION_PREPARED = "through a pooler that knows prepared statements, a server for each transaction"

    @property
    def is_shared(self) -> bool:
        """Whether another client may get the same server after each transaction."""
        return self in (Way.TRANSACTION, Way.TRANSACTION_PREPARED)


_Plain: Any = asyncpg.Connection  # which has no types of its private parts


class Connection(_Plain):  # type: ignore[misc]
    """One that keeps its server for as long as it lives."""

    backend_pid = 0  # of the server's process; 0: not known, or another one each time
    opening = ""  # statements that each transaction begins with, where one has its server for no longer

    def get_reset_query(self) -> str:
        """Nothing to reset: no statement here leaves session state behind, and each reset is a round trip."""
        return ""

    def _get_unique_id(self, prefix: str) -> str:
        """A name for a statement that no other client makes: where a pooler mixes up servers, a statement is not there
        rather than another one under its name."""
        return f"atomo_{_PROCESS}_{super()._get_unique_id(prefix).strip('_')}"


class SharedConnection(Connection):
    """One that has a server for a transaction at a time: what is not in one gets one."""

    begun = 0  # statements
    is_waiting = False  # for the answer to one

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> Any:
        """As asyncpg's; a transaction makes our settings as it begins."""
        if query.startswith("BEGIN"):
            query = ("BEGIN ISOLATION LEVEL READ COMMITTED;" if query == "BEGIN;" else query) + self.opening
        elif not self.is_in_transaction():
            async with self.transaction():
                return await self.execute(query, *args, timeout=timeout)
        with self._answer():
            return await super().execute(query, *args, timeout=timeout)

    async def _execute(self, *args: Any, **more: Any) -> Any:
        if not self.is_in_transaction():
            async with self.transaction():
                return await self._execute(*args, **more)
        with self._answer():
            return await super()._execute(*args, **more)

    @contextlib.contextmanager
    def _answer(self) -> Iterator[None]:
        self.begun += 1
        self.is_waiting = True
        try:
            yield
        finally:
            self.is_waiting = False


_PROCESS = secrets.token_hex(4)


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a connection is for."""

    name: str  # shown by pg_stat_activity
    settings: Mapping[str, str]


async def connect(
    address: Address, purpose: Purpose, way: Way = Way.DIRECT, *, timeout: float = 10, **more: Any
) -> Connection:
    """A connection to the first host that can be written, with our settings and codecs.

    Raises:
        OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError: no host lets us in.
        asyncpg.ReadOnlySQLTransactionError: those that let us in cannot be written.
    """
    last: Exception | None = None
    hosts = address.hosts or ((None, None),)
    limit = min(timeout, address.connect_timeout or (HOST_SECS if len(hosts) > 1 else timeout))
    async with asyncio.timeout(timeout):
        for host, port in hosts:
            try:
                async with asyncio.timeout(limit):
                    return await _connect_to(address, host, port, purpose, way, **more)
            except (OSError, TimeoutError, asyncpg.CannotConnectNowError, asyncpg.ReadOnlySQLTransactionError) as error:
                # The more telling error is kept: another host may just be gone.
                last = last if isinstance(last, asyncpg.ReadOnlySQLTransactionError) else error
    assert last is not None  # noqa: S101  # there is a host, and it returned or failed
    raise last


async def _connect_to(
    address: Address, host: str | None, port: int | None, purpose: Purpose, way: Way, **more: Any
) -> Connection:
    if way is Way.TRANSACTION:
        more["statement_cache_size"] = 0
    more["connection_class"] = SharedConnection if way.is_shared else Connection
    startup = {"application_name": f"{address.application_name} {purpose.name}"}
    if address.startup_options:
        startup["options"] = address.startup_options
    driver: Any = asyncpg.connect
    connection: Connection = await driver(
        address.driver_dsn,
        host=host,
        port=port,
        user=address.user,
        password=address.password,
        database=address.database,
        ssl=_system_roots() if address.uses_system_roots else None,
        server_settings=startup,
        target_session_attrs="any",  # seen to below, in a way that a pooler does not disturb
        **more,
    )
    try:
        if address.keep_alive:
            _keep_alive(connection, address.keep_alive)
        await _furnish(connection, {**address.settings, **purpose.settings}, way)
    except BaseException:
        connection.terminate()
        raise
    return connection


async def _furnish(connection: Connection, settings: Mapping[str, str], way: Way) -> None:
    """Make our settings and codecs, and see that the server can be written."""
    if connection.get_server_version().major >= 17:
        settings = {**settings, **_SINCE_17}
    values = ", ".join(f"set_config({_quoted(n)}, {_quoted(v)}, {way.is_shared})" for n, v in settings.items())
    if way.is_shared:  # isinstance() would not tell: asyncpg has it say yes of every connection
        connection.opening = f" SELECT {values}"
    else:
        await connection.execute(f"SELECT {values}")
    if way is Way.DIRECT:
        connection.backend_pid = connection.get_server_pid()
        told = connection.get_settings()
        is_standby, is_read_only = (
            getattr(told, name, "off") == "on" for name in ("in_hot_standby", "default_transaction_read_only")
        )
    else:  # a pooler may have told us what was so of another server
        [(is_standby, is_read_only, pid)] = await connection.fetch(
            "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::boolean, pg_backend_pid()"
        )
        connection.backend_pid = 0 if way.is_shared else pid
    if is_standby or is_read_only:
        why = "a standby" if is_standby else "read-only (default_transaction_read_only is on)"
        raise asyncpg.ReadOnlySQLTransactionError(f"the database is {why}, and nothing can be written")
    await _set_codecs(connection)


async def _set_codecs(connection: Connection) -> None:
    """JSON goes as bytes that are encoded already, and comes as Python values."""
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=lambda encoded: b"\x01" + encoded,
        decoder=lambda raw: orjson.loads(memoryview(raw)[1:]),
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@cache
def _system_roots() -> ssl.SSLContext:
    return ssl.create_default_context()


def _keep_alive(connection: Connection, wanted: KeepAlive) -> None:
    """Have the operating system find out that the peer is gone, without a word of ours and with one."""
    transport = getattr(connection, "_transport", None)
    peer: socket.socket | None = transport.get_extra_info("socket") if transport else None
    if peer is None or peer.family not in (socket.AF_INET, socket.AF_INET6):
        return
    options = {
        "TCP_KEEPIDLE": wanted.idle,
        "TCP_KEEPINTVL": wanted.interval,
        "TCP_KEEPCNT": wanted.count,
        "TCP_USER_TIMEOUT": int(wanted.user_timeout * 1_000),
    }
    with contextlib.suppress(OSError):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in options.items():
            if (option := getattr(socket, name, None)) is not None:  # each system has some of them
                peer.setsockopt(socket.IPPROTO_TCP, option, value)
