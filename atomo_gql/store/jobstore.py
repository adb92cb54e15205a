"""Enqueueing from inside an application in Python, as part of its own transaction.

The rules are checked here first, so that bad input leaves the caller's transaction as it is; the write is the SQL
function `atomo.enqueue_job`, as it is for every other language. docs/transactional-enqueue.md has examples.
"""

from datetime import datetime
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import asyncpg
import orjson

from atomo_gql.address import parse_address
from atomo_gql.domain.errors import BadUserInput, PayloadTooLarge
from atomo_gql.domain.jobs import Json, NewJob
from atomo_gql.domain.rules import check_actor, check_json, check_name, check_new_job, check_size, check_unique
from atomo_gql.store.connecting import Connection, Purpose, connect
from atomo_gql.store.database import translated
from atomo_gql.store.poolers import find_way
from atomo_gql.store.statements import statements

_PURPOSE = Purpose("JobStore", {"timezone": "UTC"})  # the function makes what it needs itself
_LEFT_OUT: Any = object()  # a payload may be None, which is null
_REFUSALS = {error.code: error for error in (BadUserInput, PayloadTooLarge)}
_WORDS: dict[type, str] = {str: "a text", int: "a whole number", datetime: "a datetime"}
_TYPES = {
    **dict.fromkeys(("queue", "kind", "idempotencyKey", "tenantId", "actor"), str),
    **dict.fromkeys(("maxAttempts", "priority", "timeoutSecs"), int),
    **dict.fromkeys(("runAt", "deadline"), datetime),
}
_NEEDED = {"queue", "kind", "maxAttempts", "priority"}


class JobStore:
    """Enqueues; an async context manager.

    dsn: the database's address, for a small pool of its own. pool: an asyncpg pool of the application, in its place,
    which stays open. Who always gives a `connection` needs neither. max_body: the largest payload in bytes; the
    database's own limit (`atomo.max_body`) holds as well.
    """

    def __init__(self, dsn: str | None = None, *, pool: Any = None, max_body: int = 1_048_576) -> None:
        if dsn is not None and pool is not None:
            raise ValueError("a JobStore takes an address or a pool, not both")
        self._dsn = dsn
        self._pool = pool
        self._max_body = max_body

    async def open(self) -> None:
        """Connect, where there is an address.

        Raises:
            Unavailable: the database cannot be reached.
            AddressError: the address cannot be used.
        """
        if self._dsn is not None and self._pool is None:
            address = parse_address(self._dsn)
            with translated():
                way = await find_way(address)

            async def make(*_: Any, loop: Any, connection_class: Any, **more: Any) -> Any:
                return await connect(address, _PURPOSE, way, timeout=10, **more)

            create_pool: Any = asyncpg.create_pool
            with translated():
                self._pool = await create_pool(
                    min_size=1, max_size=4, command_timeout=30, connection_class=Connection, connect=make
                )

    async def close(self) -> None:
        """Give up the pool that was made of the address."""
        if self._dsn is not None and self._pool is not None:
            pool, self._pool = self._pool, None
            await pool.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def enqueue(
        self,
        queue: str,
        kind: str,
        payload: Json = _LEFT_OUT,
        idempotency_key: str | None = None,
        max_attempts: int = 5,
        priority: int = 0,
        tenant_id: str | None = None,
        run_at: datetime | None = None,
        timeout_secs: int | None = None,
        deadline: datetime | None = None,
        actor: str | None = None,
        trace: str | None = None,
        connection: Any = None,
    ) -> UUID:
        """Make a job, or find the one that its idempotency key names; its id.

        payload: any JSON value; {} when left out. actor: who does it, `user:…` or `system:…`; default: the database's
        role. trace: the W3C traceparent under way. connection: the caller's own of asyncpg, of any search_path and with
        any codecs; the job is then part of its transaction, if it is in one.

        Raises:
            BadUserInput, PayloadTooLarge: an argument breaks a rule; `field` is its name on the wire.
            Unavailable: the database is out of reach. Whether there is a job is not known, outside of a transaction.
        """
        _check_types(
            queue=queue, kind=kind, idempotencyKey=idempotency_key, maxAttempts=max_attempts, priority=priority
        )
        _check_types(timeoutSecs=timeout_secs, runAt=run_at, deadline=deadline, tenantId=tenant_id, actor=actor)
        payload = {} if payload is _LEFT_OUT else payload
        job = check_new_job(
            NewJob(queue, kind, payload, idempotency_key, max_attempts, priority, run_at, timeout_secs, deadline)
        )
        encoded = _encode(payload, self._max_body)
        if tenant_id is not None:
            check_name("tenantId", tenant_id)
        if job.idempotency_key is not None:
            check_unique("idempotencyKey", job.idempotency_key, queue, tenant_id or "", names="queue and tenant")
        if actor is not None:
            check_actor(actor)
        arguments = (
            job.queue,
            job.kind,
            encoded.decode(),
            job.idempotency_key,
            _text(job.max_attempts),
            _text(job.priority),
            _text(job.run_at),
            tenant_id,
            _text(job.timeout_secs),
            _text(job.deadline),
            actor,
            trace if trace and trace.isprintable() and trace.isascii() else None,  # what is none is no reason to refuse
        )
        with translated():
            if connection is not None:
                return await _write(connection, arguments)
            if self._pool is None:
                raise RuntimeError("this JobStore is not open, and no connection was given")
            async with self._pool.acquire(timeout=10) as own:
                return await _write(own, arguments)


async def _write(connection: Any, arguments: tuple[str | None, ...]) -> UUID:
    try:
        return UUID(await connection.fetchval(statements()["job_enqueue_within"].text, *arguments))
    except asyncpg.InvalidParameterValueError as error:
        refusal = _REFUSALS.get(error.detail or "")
        if refusal is None:  # of somebody else: a trigger, say
            raise
        raise refusal(error.args[0], field=error.column_name) from None


def _encode(payload: Json, most: int) -> bytes:
    check_json("payload", payload)
    try:
        encoded = orjson.dumps(payload)
    except TypeError as error:
        raise BadUserInput(f"payload must be a JSON value: {error}", field="payload") from None
    return check_size("payload", encoded, most)


def _text(value: int | datetime | None) -> str | None:
    return None if value is None else value.isoformat() if isinstance(value, datetime) else str(int(value))


def _check_types(**arguments: object) -> None:
    for field, value in arguments.items():
        kind = _TYPES[field]
        if not isinstance(value, kind) and not (value is None and field not in _NEEDED):
            raise BadUserInput(f"{field} must be {_WORDS[kind]}, not {type(value).__name__}", field=field)
