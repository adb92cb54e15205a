"""What is asked of the database again and again: how long each takes, and how many locks."""

import asyncio
import contextlib
import itertools
import math
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from atomo_gql.domain.errors import Unavailable
from atomo_gql.domain.events import EventFilter, Place
from atomo_gql.domain.jobs import JobFilter, JobStatus
from atomo_gql.store import actions, enqueue, events, housekeeping, jobs, lease, queues, report, tokens
from atomo_gql.store.database import Database, fetch_in
from atomo_gql.store.enqueue import EnqueueRow
from atomo_gql.store.lease import LeaseRow
from atomo_gql.store.report import ReportRow

_LOCKS = "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()"
_QUEUE = "looks"
_MOST_BYTES = 1_000_000
_WARM_UP = 2


class LockCounter(Database):
    """A database whose every statement is run in a transaction, at the end of which its locks are counted."""

    def __init__(self, dsn: str) -> None:
        """With one connection in each pool, so that what is planned once is used again."""
        super().__init__(dsn, dispatch_size=1, query_size=1)
        self.most = 0

    @contextlib.asynccontextmanager
    async def connection(self, pool: str = "query") -> AsyncIterator[Any]:
        """A connection in a transaction."""
        async with super().connection(pool) as connection, connection.transaction():
            yield connection
            self.most = max(self.most, await connection.fetchval(_LOCKS))

    async def dispatch(self, statement: str, *arguments: object) -> list[Any]:
        """The rows of a hot statement, in a transaction."""
        async with self.connection("dispatch") as connection:
            return await fetch_in(connection, statement, *arguments)


class Looks:
    """Queries and small writes on one database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._numbers = itertools.count()
        self._worker = uuid.UUID(int=0)
        self._job = uuid.UUID(int=0)
        self._middle: Place = Place()
        self._head: Place = Place()
        self._month_ago: Any = None
        self.all: dict[str, Callable[[], Awaitable[object]]] = {
            "jobs, newest": lambda: self._page(),
            "jobs, oldest": lambda: self._page(descending=False),
            "jobs of a queue": lambda: self._page(queue="work"),
            "jobs of a kind": lambda: self._page(kind="ok"),
            "jobs of a tenant": lambda: self._page("acme"),
            "jobs by key": lambda: self._page(idempotency_key="no such key"),
            "jobs, succeeded": lambda: self._page(statuses=(JobStatus.SUCCEEDED,)),
            "jobs, succeeded of a kind": lambda: self._page(statuses=(JobStatus.SUCCEEDED,), kind="ok"),
            "jobs, dead": lambda: self._page(statuses=(JobStatus.DEAD,)),
            "jobs, dead of a kind": lambda: self._page(statuses=(JobStatus.DEAD,), kind="dead"),
            "jobs, queued": lambda: self._page(statuses=(JobStatus.QUEUED,)),
            "jobs ended last month": lambda: self._page(finished_from=self._month_ago),
            "jobs made last month": lambda: self._page(created_from=self._month_ago),
            "a job": lambda: jobs.get(self.database, [self._job], None),
            "a job's events": lambda: events.streams(self.database, [self._job], 0, 100, _MOST_BYTES),
            "tail, from the middle": lambda: self._tail(self._middle),
            "tail, at the end": lambda: self._tail(self._head),
            "tail, of a queue": lambda: self._tail(self._middle, queue="work"),
            "recorded events": self._recorded,
            "the dispatcher's lag": lambda: actions.lag(self.database, is_all=False),
            "… of all events": lambda: actions.lag(self.database, is_all=True),
            "queues": lambda: queues.stats(self.database, None, [_QUEUE, "work"], 1_000),
            "enqueue": self._enqueue,
            "enqueue, with a key": lambda: self._enqueue(key=f"look {next(self._numbers)}"),
            "lease": self._lease,
            "complete": self._complete,
            "fail": self._fail,
            "sweep": lambda: housekeeping.reclaim(self.database, 500, 100),
        }

    async def prepare(self) -> None:
        """A worker's token, and places in the log to read from."""
        token = await tokens.mint(self.database, tenant="", name="looks", queues=(_QUEUE,),
                                  token_hash=uuid.uuid4().bytes * 2, created_by="user:looks")  # fmt: skip
        self._worker = token.id
        now = await housekeeping.database_now(self.database)
        self._month_ago = now - timedelta(days=30)
        async with self.database.connection() as connection:
            middle = await connection.fetchrow(
                "SELECT xid::text::bigint AS xid, position FROM events ORDER BY xid DESC, position DESC "
                "OFFSET least(1000, (SELECT count(*) FROM events) / 2) LIMIT 1"
            )
            self._job = await connection.fetchval("SELECT id FROM job_records ORDER BY id DESC OFFSET 10 LIMIT 1")
        self._middle = Place(middle["xid"], middle["position"])
        self._head = await events.head(self.database)

    async def _page(self, tenant: str | None = None, *, descending: bool = True, **wanted: Any) -> None:
        await jobs.page(self.database, tenant, JobFilter(**wanted), descending=descending, most=20)

    async def _tail(self, after: Place, **wanted: Any) -> None:
        await events.tail(self.database, after, None, EventFilter(**wanted), 100, _MOST_BYTES)

    async def _recorded(self) -> None:
        async with self.database.transaction() as connection:
            await actions.recorded(connection, self._middle, 100, _MOST_BYTES)

    async def _enqueue(self, key: str | None = None) -> None:
        row = EnqueueRow("", _QUEUE, "look", b"{}", key, 5, 0, None, "user:looks", None)
        await enqueue.enqueue(self.database, [row])

    async def _lease(self) -> list[ReportRow]:
        [leased] = await lease.lease(self.database, [LeaseRow(self._worker, 1, 600, (_QUEUE,))])
        assert leased, "there was a job of each enqueue before"
        return [ReportRow(job.id, job.lease_id, self._worker, body=b"1", error="x", retryable=False) for job in leased]

    async def _complete(self) -> None:
        await self._enqueue()
        assert await report.complete(self.database, await self._lease()) != [None]

    async def _fail(self) -> None:
        await self._enqueue()
        assert await report.fail(self.database, await self._lease()) != [None]


async def locks(dsn: str) -> dict[str, str]:
    """How many locks each look holds at the end of its transaction, or why it failed."""
    counter = LockCounter(dsn)
    await counter.open()
    found: dict[str, str] = {}
    try:
        looks = Looks(counter)
        await looks.prepare()
        for name, look in looks.all.items():
            counter.most = 0
            try:
                await look()
                found[name] = str(counter.most)
            except Unavailable as error:
                found[name] = str(error.__cause__ or error)[:20]
    finally:
        await counter.close()
    return found


async def seconds(dsns: Sequence[str], samples: int) -> list[Mapping[str, float]]:
    """The median seconds of each look on each of these databases; not a number where it fails.

    They are measured in turn, so that all meet the same machine.
    """
    async with contextlib.AsyncExitStack() as stack:
        sides = []
        for dsn in dsns:
            database = Database(dsn, dispatch_size=1, query_size=1)
            await database.open()
            stack.push_async_callback(database.close)
            looks = Looks(database)
            await looks.prepare()
            sides.append(looks)
        medians: list[dict[str, float]] = [{} for _ in dsns]
        for name in sides[0].all:
            taken: list[list[float]] = [[] for _ in dsns]
            for number in range(-_WARM_UP, samples):
                for side, looks in enumerate(sides):
                    began = time.perf_counter()
                    with contextlib.suppress(Unavailable):
                        await looks.all[name]()
                        if number >= 0:
                            taken[side].append(time.perf_counter() - began)
            for side, times in enumerate(taken):
                medians[side][name] = statistics.median(times) if times else math.nan
        return list(medians)


async def vacuum(dsn: str) -> None:
    """What autovacuum would have done by and by."""
    database = Database(dsn)
    await database.open()
    try:
        async with database.connection() as connection:
            await asyncio.wait_for(connection.execute("VACUUM ANALYZE", timeout=600), 600)
    finally:
        await database.close()
