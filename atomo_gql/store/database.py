"""Connections: two pools, and what becomes of a connection that fails."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import asyncpg

from atomo_gql.address import parse_address
from atomo_gql.domain.errors import Unavailable
from atomo_gql.store.connecting import COMMON_SETTINGS, SCHEMA, Connection, Purpose, Way, connect
from atomo_gql.store.failures import COLLIDED, in_short, is_disk_full, is_of_a_pooler, is_spent, unavailable
from atomo_gql.store.half_open import Watch
from atomo_gql.store.poolers import find_way, is_same_database
from atomo_gql.store.statements import statements

__all__ = ["SCHEMA", "Database", "connections_allowed", "fetch_in", "is_data_error", "is_database_error", "translated"]

log = logging.getLogger("atomo_gql.database")

# The planner may not forget an index because a table happened to be empty when a plan was cached, and hot statements
# are not planned again for each call.
_DISPATCH_SETTINGS = {
    **COMMON_SETTINGS,
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_material": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_nestloop": "on",
    "enable_indexscan": "on",
}
# Queries have conditions that may be null; planned for the values at hand, those that are vanish.
_QUERY_SETTINGS = {**COMMON_SETTINGS, "plan_cache_mode": "force_custom_plan"}
_HOT_SECS = 12.0  # for a hot statement; a little more than it may wait for a lock
_STATEMENT_SECS = 30.0  # for any other
_CONNECT_SECS = 5.0  # to make a connection
_RELEASE_SECS = 2.0  # for a statement that is given up to be cancelled
_CLOSE_SECS = 5.0  # for all connections to be closed in good order
_TELL_SECS = 10.0  # between two lines of the log about errors of one kind
_PARTITION_DAYS_AHEAD = 4
_MAKE_PARTITIONS = f"SELECT make_partitions({_PARTITION_DAYS_AHEAD})"
_PARTITIONED_SECS = (_PARTITION_DAYS_AHEAD - 1) * 86_400.0  # that they are enough for
_EXPIRE_SECS = 1.0  # between two times that all connections of a pool are made anew
_STARTS_SECS = 60


class Database:
    """A PostgreSQL with our schema, through two pools.

    `dispatch` serves the hot statements, whose plans are pinned; `query` everything else.
    """

    def __init__(self, dsn: str, *, dispatch_size: int = 10, query_size: int = 6, timeout: float = 10) -> None:
        """`timeout`: seconds to wait for a connection.

        Raises:
            AddressError: the address cannot be used.
        """
        self.dsn = dsn
        self.address = parse_address(dsn)
        self._sizes = {"dispatch": dispatch_size, "query": query_size}
        self._timeout = timeout
        self._pools: dict[str, Any] = {}
        self._partitioned_until = 0.0  # by this machine's clock
        self._way: Way | None = None
        self._finding: asyncio.Task[Way] | None = None
        self._busy: dict[Any, float] = {}  # connections that are given out, and since when
        self._watch = Watch(self._busy, self._look_connection, self.expire)
        self._expired_at = float("-inf")
        self._away_since: float | None = None
        self._disk_full_at: float | None = None
        self._told: dict[type, float] = {}  # kinds of errors, and when the log had one last
        self._closing: set[asyncio.Task[None]] = set()
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
                    min_size=1,
                    max_size=self._sizes[name],
                    command_timeout=_HOT_SECS if name == "dispatch" else _STATEMENT_SECS,
                    max_inactive_connection_lifetime=300,
                    connection_class=Connection,
                    connect=self._connector(Purpose(name, settings)),
                )

    def watch(self) -> None:
        """Begin to find connections that have gone silent, until this is closed."""
        self._watch.start()

    async def close(self) -> None:
        """Give the connections back, waiting a little for statements under way."""
        await self._watch.stop()
        await asyncio.gather(*(_close(pool) for pool in self._pools.values()))
        for task in self._closing:
            task.cancel()
        self._pools.clear()

    async def way(self) -> Way:
        """How connections come to the PostgreSQL; looked at once, and again when a pooler surprises us.

        Raises:
            Unavailable: the database cannot be reached.
        """
        with translated():
            return await self._find_way()

    async def check_listening(self, dsn: str) -> str | None:
        """Why notifications of this database cannot be listened to by another address of it; None: they can be.

        Raises:
            Unavailable: the database cannot be reached by one of them.
        """
        with translated():
            if (await find_way(parse_address(dsn))).is_shared:
                return "leads through a pooler in transaction mode, where nothing can be listened to"
            if not await is_same_database(self.address, parse_address(dsn)):
                return "leads to another database than DATABASE_URL"
        return None

    async def _find_way(self) -> Way:
        if self._way is None:
            if self._finding is None or self._finding.done():
                self._finding = asyncio.create_task(find_way(self.address, timeout=_CONNECT_SECS))
                self._finding.add_done_callback(lambda found: found.cancelled() or found.exception())
            self._way = await asyncio.shield(self._finding)
        return self._way

    def _connector(self, purpose: Purpose) -> Any:
        async def make(*_: Any, loop: Any, connection_class: Any, **more: Any) -> Connection:
            return await connect(self.address, purpose, await self._find_way(), timeout=_CONNECT_SECS, **more)

        return make

    async def _look_connection(self, timeout: float) -> Connection:
        """A new connection, to look at the others from outside."""
        return await connect(
            self.address, Purpose("look", {"search_path": SCHEMA}), await self._find_way(), timeout=timeout
        )

    @contextlib.asynccontextmanager
    async def beside(self, timeout: float) -> AsyncIterator[Connection]:
        """A new connection beside the pools, for the length of the block.

        Raises:
            Unavailable: none could be had in so many seconds, or it was lost.
        """
        with translated():
            connection = await self._look_connection(timeout)
            try:
                yield connection
            finally:
                connection.terminate()

    @contextlib.asynccontextmanager
    async def connection(self, pool: str = "query") -> AsyncIterator[Any]:
        """A connection for the length of the block.

        Raises:
            Unavailable: none could be had in time, or it was lost.
        """
        of = self._pools[pool]
        with translated():
            connection = await self._acquire(of)
            try:
                yield connection
            except BaseException as error:
                await self._put_back(of, connection, error)
                raise
            await self._put_back(of, connection)

    async def _acquire(self, pool: Any) -> Any:
        try:
            connection = await pool.acquire(timeout=self._timeout)
        except asyncpg.PostgresError as error:  # whatever it says to somebody who knocks, it is away
            self._note(error, is_away=True)
            raise unavailable(error) or Unavailable("the database cannot be reached just now; try again") from error
        except OSError as error:
            self._note(error)
            raise
        self._busy[connection] = asyncio.get_running_loop().time()
        return connection

    async def _put_back(self, pool: Any, connection: Any, error: BaseException | None = None) -> None:
        """To its pool; or not, where an error says that it is of no use any more."""
        self._busy.pop(connection, None)
        if error is None:
            if self._away_since is not None:
                self._tell_that_it_is_back()
            await pool.release(connection)
            return
        self._note(error)
        if not is_spent(error):
            await _release(pool, connection)  # whatever becomes of it, the error that is under way must not be lost
            return
        if isinstance(error, TimeoutError):  # its statement is being cancelled
            task = asyncio.get_running_loop().create_task(_release(pool, connection))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        else:
            connection.terminate()
        if is_of_a_pooler(error):
            self._way = None  # its mode may have been changed
        await self.expire()

    async def expire(self) -> None:
        """Have every connection that is not in use made anew before it is used again."""
        now = asyncio.get_running_loop().time()
        if now - self._expired_at < _EXPIRE_SECS:
            return
        self._expired_at = now
        for pool in self._pools.values():
            await pool.expire_connections()

    def _note(self, error: BaseException, *, is_away: bool = False) -> None:
        """Say in the database's own words that it is away, once; and what else it refuses, now and then."""
        if unavailable(error) is None:
            return
        now = asyncio.get_running_loop().time()
        if is_disk_full(error):
            self._disk_full_at = now
        if is_away or is_spent(error):
            if self._away_since is None:
                self._away_since = now
                log.warning("the database is away: %s", in_short(error))
        elif now - self._told.get(type(error), float("-inf")) > _TELL_SECS:
            self._told[type(error)] = now
            log.warning("the database does not do what it is asked: %s", in_short(error))

    def _tell_that_it_is_back(self) -> None:
        assert self._away_since is not None  # noqa: S101  # the caller asked
        seconds = asyncio.get_running_loop().time() - self._away_since
        self._away_since = None
        log.info("the database is back, after %.1f seconds", seconds)

    def disk_was_full(self, within: float) -> bool:
        """Whether the database has had no room in the last so many seconds."""
        return self._disk_full_at is not None and asyncio.get_running_loop().time() - self._disk_full_at < within

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
                    try:
                        rows: list[Any] = await connection.fetch(text, *arguments)
                    except asyncpg.CheckViolationError as error:
                        await _make_missing_partition(connection, error)
                        rows = await connection.fetch(text, *arguments)
                except BaseException as error:
                    await self._put_back(pool, connection, error)
                    if isinstance(error, COLLIDED):
                        continue
                    raise
                await self._put_back(pool, connection)
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
        except COLLIDED as error:
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


async def _release(pool: Any, connection: Any) -> None:
    """Back to its pool, or away with it if its statement does not end soon."""
    with contextlib.suppress(Exception):
        await pool.release(connection, timeout=_RELEASE_SECS)


async def _close(pool: Any) -> None:
    try:
        await asyncio.wait_for(pool.close(), _CLOSE_SECS)
    except Exception as error:
        if unavailable(error) is None:
            raise
        pool.terminate()


async def connections_allowed(dsn: str) -> int:
    """How many connections the server takes from those who are not superusers.

    Raises:
        Unavailable: the database cannot be reached.
    """
    database = Database(dsn)
    async with database.beside(10) as connection:
        allowed: int = await connection.fetchval(statements()["connections_allowed"].text)
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
        if error is not None and (told := unavailable(error)):
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # What the end of a transaction met on its way out must not keep a task alive that is to end.
                raise asyncio.CancelledError from error
            raise told from error


def is_data_error(error: BaseException) -> bool:
    """Whether PostgreSQL refused a value: one item of a batch may be to blame."""
    return isinstance(
        error, asyncpg.DataError | asyncpg.IntegrityConstraintViolationError | asyncpg.ProgramLimitExceededError
    )


def is_database_error(error: BaseException) -> bool:
    """Whether it came from PostgreSQL, or on the way there."""
    return isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError | asyncpg.InternalClientError)
