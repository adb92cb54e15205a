"""`sql/queries/check.sql`: what a start finds in a database, before it changes anything there."""

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from atomo_gql.address import AddressError, parse_address
from atomo_gql.store.connecting import SCHEMA, Purpose, connect
from atomo_gql.store.poolers import find_way
from atomo_gql.store.refusals import DatabaseUnusable, described, explained
from atomo_gql.store.statements import statements

_CONNECT_SECS = 10.0
_STATEMENT_SECS = 10.0
_PURPOSE = Purpose("check", {"timezone": "UTC"})
_LEAST_SERVER = 15
_BOUNDS = re.compile(r"FROM \('([^']+)'\) TO \('([^']+)'\)")


@dataclass(frozen=True, slots=True)
class Server:
    """A PostgreSQL, and who we are there."""

    version_number: int  # 150004
    version: str
    database: str
    role: str
    encoding: str
    isolation: str  # the default of transactions
    is_standby: bool
    is_read_only: bool
    may_create_schema: bool
    clock_ahead: float  # seconds that its clock is ahead of this machine's; negative: behind
    round_trip: float  # seconds; the clocks are compared as exactly as that


@dataclass(frozen=True, slots=True)
class Connections:
    """How many there may be."""

    allowed: int  # to this role, on this database
    others: int  # taken just now by clients of the whole server that are not this service


@dataclass(frozen=True, slots=True)
class Schema:
    """The schema of this service, as far as it is there."""

    is_there: bool
    may_use: bool
    may_create: bool
    tables: int
    has_journal: bool
    may_read_journal: bool
    foreign_tables: int  # of another owner, whose rights this role does not have
    foreign_owner: str | None
    is_of_before: bool  # of a version that kept its journal elsewhere
    version: int = 0
    made_by: str | None = None  # the version of the service that made it
    oldest_server: int = 0  # the lowest schema version whose servers can work with it


class Look:
    """An open connection that only looks; nothing is left behind in a pool between us and PostgreSQL."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @classmethod
    async def begin(cls, dsn: str) -> "Look":
        """Connect.

        Raises:
            DatabaseUnusable: that does not work; the message says why, and what to do.
        """
        try:
            address = parse_address(dsn)
        except AddressError as error:
            raise DatabaseUnusable(f"the address of the database {error}") from error
        with explained(dsn):
            connection: Any = await connect(
                address,
                _PURPOSE,
                await find_way(address, timeout=_CONNECT_SECS),
                timeout=_CONNECT_SECS,
                command_timeout=_STATEMENT_SECS,
            )
        return cls(connection)

    async def end(self) -> None:
        """Close the connection."""
        await self._connection.close(timeout=5)

    async def server(self) -> Server:
        """The server, the role and the clock."""
        await self._rows("check_server")  # the first one is slower: it is planned, and nobody compares clocks by it
        before = time.time()
        [row] = await self._rows("check_server")
        after = time.time()
        found = dict(row)
        ahead = found.pop("clock").timestamp() - (before + after) / 2
        return Server(**found, clock_ahead=ahead, round_trip=after - before)

    async def connections(self) -> Connections:
        """The limits of connections, and who takes them."""
        [row] = await self._rows("check_connections")
        return Connections(**row)

    async def schema(self) -> Schema:
        """The schema and its version."""
        [row] = await self._rows("check_schema", SCHEMA)
        if not row["may_use"] or not row["may_read_journal"]:
            return Schema(**row)
        journal = await self._rows("check_versions")
        return Schema(**row, **dict(journal[0])) if journal else Schema(**row)

    async def covered_until(self) -> datetime | None:
        """The moment until which every partitioned table has partitions, without a gap from now on.

        None: one of them has none for now, or there is no such table.
        """
        bounds: dict[str, list[tuple[datetime, datetime]]] = {}
        for row in await self._rows("check_partitions", SCHEMA):
            if found := _BOUNDS.search(row["bounds"]):
                bounds.setdefault(row["parent"], []).append((_moment(found[1]), _moment(found[2])))
        now = datetime.now(UTC)
        ends = [_end_of(now, spans) for spans in bounds.values()]
        return min(ends, default=now) if min(ends, default=now) > now else None

    async def _rows(self, name: str, *arguments: object) -> list[Any]:
        # In a transaction of its own, for the sake of poolers that hand out a connection for as long as one lasts.
        async with self._connection.transaction(readonly=True):
            await self._connection.execute(f"SET LOCAL search_path = {SCHEMA}")
            rows: list[Any] = await self._connection.fetch(statements()[name].text, *arguments)
        return rows


def unfit(server: Server, dsn: str) -> str | None:
    """Why this server can be no database of the service, whatever is in it, and what to do; None: it can."""
    if server.version_number // 10_000 < _LEAST_SERVER:
        return f"PostgreSQL {_LEAST_SERVER} or later is needed, and {described(dsn)} is {server.version}: upgrade it"
    if server.encoding != "UTF8":
        return (
            f"the encoding of the database {server.database} is {server.encoding}, and must be UTF8: make another one "
            f"with createdb -E UTF8 -T template0, and name it in DATABASE_URL"
        )
    if server.is_standby or server.is_read_only:
        why = "a standby" if server.is_standby else "read-only (default_transaction_read_only)"
        return (
            f"the database {described(dsn)} is {why}, and nothing can be written: name the primary in DATABASE_URL, or "
            "all hosts with target_session_attrs=read-write"
        )
    return None


async def look_at_server(dsn: str) -> Server:
    """Connect and see whether this server will do.

    Raises:
        DatabaseUnusable: it cannot be reached, or cannot be a database of this service.
    """
    look = await Look.begin(dsn)
    with explained(dsn):
        try:
            server = await look.server()
        finally:
            await look.end()
    if reason := unfit(server, dsn):
        raise DatabaseUnusable(reason)
    return server


def _moment(bound: str) -> datetime:
    """When ids from here on are made: a UUIDv7 begins with the milliseconds since 1970."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=UUID(bound).int >> 80)


def _end_of(now: datetime, spans: list[tuple[datetime, datetime]]) -> datetime:
    """The end of the spans that follow each other from now on; now, when it lies in none of them."""
    end = now
    for first, last in sorted(spans):
        if first <= end < last:
            end = last
    return end
