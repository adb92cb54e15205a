"""Connections: two pools, the codecs, and the translation of what PostgreSQL says when it fails."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from atomo_gql.domain.errors import Unavailable
from atomo_gql.store.statements import statements

SCHEMA = "atomo"

# The planner may not forget an index because a table happened to be empty when a plan was cached, and hot statements
# are not planned again for each call.
_DISPATCH_SETTINGS = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_material": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
# Queries have conditions that may be null; planned for the values at hand, those that are vanish.
_QUERY_SETTINGS = {"plan_cache_mode": "force_custom_plan"}
_COMMON_SETTINGS = {
    "search_path": SCHEMA,
    "timezone": "UTC",
    "jit": "off",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "60s",
}
_LOST = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.CannotConnectNowError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,
)
_PARTITION_DAYS_AHEAD = 4
_MAKE_PARTITIONS = f"SELECT make_partitions({_PARTITION_DAYS_AHEAD})"
_PARTITIONED_SECS = (_PARTITION_DAYS_AHEAD - 1) * 86_400.0  # that they are enough for
_STARTS_SECS = 60
_COLLIDED = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)


class _Connection(asyncpg.Connection):
    def get_reset_query(self) -> str:
        """Nothing to reset: no statement here leaves session state behind, and each reset is a round trip."""
        return ""


async def _set_codecs(connection: Any) -> None:
    """JSON goes as bytes that are encoded already, and comes as Python values."""
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=lambda encoded: b"\x01" + encoded,
        decoder=lambda raw: orjson.loads(memoryview(raw)[1:]),
    )


class Database:
    """A PostgreSQL with our schema, through two pools.

    `dispatch` serves the hot statements, whose plans are pinned; `query` everything else.
    """

    def __init__(self, dsn: str, *, dispatch_size: int = 10, query_size: int = 6, timeout: float = 10) -> None:
        """`timeout`: seconds to wait for a connection, and thrice that for a statement."""
        self.dsn = dsn
        self._sizes = {"dispatch": dispatch_size, "query": query_size}
        self._timeout = timeout
        self._pools: dict[str, Any] = {}
        self._partitioned_until = 0.0  # by this machine's clock
        self._starts: list[UUID] = []
        self._starts_until = 0.0  # by the monotonic clock

    async def open(self) -> None:
        """Connect.

        Raises:
            Unavailable: the database cannot be reached.
        """
        for name, settings in (("dispatch", _DISPATCH_SETTINGS), ("query", _QUERY_SETTINGS)):
            with translated():
                self._pools[name] = await asyncpg.create_pool(
                    self.dsn,
                    min_size=1,
                    max_size=self._sizes[name],
                    command_timeout=3 * self._timeout,
                    timeout=self._timeout,
                    max_inactive_connection_lifetime=300,
                    init=_set_codecs,
                    connection_class=_Connection,
                    server_settings={**_COMMON_SETTINGS, **settings, "application_name": f"atomo-gql {name}"},
                )

    async def close(self) -> None:
        """Give the connections back, waiting a little for statements under way."""
        for pool in self._pools.values():
            try:
                await asyncio.wait_for(pool.close(), self._timeout)
            except (TimeoutError, *_LOST):
                pool.terminate()
        self._pools.clear()

    @contextlib.asynccontextmanager
    async def connection(self, pool: str = "query") -> AsyncIterator[Any]:
        """A connection for the length of the block.

        Raises:
            Unavailable: none could be had in time, or it was lost.
        """
        with translated():
            connection = await self._acquire(self._pools[pool])
            try:
                yield connection
            finally:
                await self._pools[pool].release(connection)

    async def _acquire(self, pool: Any) -> Any:
        try:
            return await pool.acquire(timeout=self._timeout)
        except asyncpg.PostgresError as error:  # whatever it says to somebody who knocks, it is away
            raise Unavailable("the database cannot be reached just now; try again") from error

    async def fetch(self, statement: str, *arguments: object) -> list[Any]:
        """The rows of a named statement, on the query pool."""
        text = statements()[statement].text
        async with self.connection() as connection:
            try:
                rows: list[Any] = await connection.fetch(text, *arguments)
            except asyncpg.CheckViolationError as error:
                await _make_missing_partition(connection, error)
                rows = await connection.fetch(text, *arguments)
            return rows

    async def fetch_one(self, statement: str, *arguments: object) -> Any:
        """The first row of a named statement, or None."""
        rows = await self.fetch(statement, *arguments)
        return rows[0] if rows else None

    async def dispatch(self, statement: str, *arguments: object) -> list[Any]:
        """The rows of a hot statement. It is tried again after a deadlock, which undid it."""
        text = statements()[statement].text
        pool = self._pools["dispatch"]
        for _ in range(5):
            with translated():
                connection = await self._acquire(pool)
                try:
                    rows: list[Any] = await connection.fetch(text, *arguments)
                except _COLLIDED:
                    continue
                except asyncpg.CheckViolationError as error:
                    await _make_missing_partition(connection, error)
                    continue
                finally:
                    await pool.release(connection)
                return rows
        raise Unavailable("the database is too busy with the same jobs; try again")

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """A transaction for the length of the block, on a connection whose plans are pinned.

        Raises:
            Unavailable: the database was lost, or others were in the way too long; nothing was written.
        """
        try:
            async with self.connection("dispatch") as connection, connection.transaction():
                if self._is_past_partitions():
                    await connection.execute(_MAKE_PARTITIONS)
                    self._partitioned_until = time.time() + _PARTITIONED_SECS
                yield connection
        except _COLLIDED as error:
            raise Unavailable("the database is too busy with the same rows; try again") from error
        except asyncpg.CheckViolationError as error:
            async with self.connection() as connection:
                await _make_missing_partition(connection, error)
            raise Unavailable("the database's clock has moved, and its partitions with it; try again") from error

    def _is_past_partitions(self) -> bool:
        """Whether partitions for now may be missing, as far as this machine's clock can tell."""
        return not 0 < self._partitioned_until - time.time() <= _PARTITIONED_SECS

    async def partition_starts(self) -> Sequence[UUID]:
        """The first ids of the partitions that had begun at most a minute ago, in order."""
        if time.monotonic() > self._starts_until:
            self._starts = [row["first_id"] for row in await self.fetch("partition_starts")]
            self._starts_until = time.monotonic() + _STARTS_SECS
        return self._starts

    async def notify(self, channel: str, payloads: Sequence[str]) -> None:
        """Send hints to every replica. Never inside a transaction that writes: NOTIFY queues up at commit."""
        async with self.connection("query") as connection:
            await connection.execute("SELECT pg_notify($1, p) FROM unnest($2::text[]) AS p", channel, list(payloads))


async def _make_missing_partition(connection: Any, error: asyncpg.CheckViolationError) -> None:
    """Make the partitions of these days, if the statement lacked one; else raise the error again."""
    if error.constraint_name is not None:
        raise error
    await connection.execute(_MAKE_PARTITIONS)


async def fetch_in(connection: Any, statement: str, *arguments: object) -> list[Any]:
    """The rows of a named statement, within the transaction of a connection that has our settings and codecs."""
    rows: list[Any] = await connection.fetch(statements()[statement].text, *arguments)
    return rows


async def connections_allowed(dsn: str) -> int:
    """How many connections the server takes from those who are not superusers.

    Raises:
        Unavailable: the database cannot be reached.
    """
    with translated():
        connection: Any = await asyncpg.connect(dsn, timeout=10, command_timeout=10)
        try:
            allowed: int = await connection.fetchval(statements()["connections_allowed"].text)
        finally:
            await connection.close(timeout=5)
    return allowed


class translated:  # noqa: N801  # reads as the function it stands for, and costs less on the hot path
    """Turn the many ways to lose a database into one.

    Raises:
        Unavailable: the block lost the database, or waited too long for it.
    """

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Translate."""
        if isinstance(error, _LOST):
            raise Unavailable("the database cannot be reached just now; try again") from error


def is_data_error(error: BaseException) -> bool:
    """Whether PostgreSQL refused a value: one item of a batch may be to blame."""
    return isinstance(
        error, asyncpg.DataError | asyncpg.IntegrityConstraintViolationError | asyncpg.ProgramLimitExceededError
    )


def is_database_error(error: BaseException) -> bool:
    """Whether it came from PostgreSQL, or on the way there."""
    return isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError | asyncpg.InternalClientError)
