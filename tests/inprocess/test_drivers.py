"""Each example of docs/transactional-enqueue.md runs as it stands: with its order goes its job, and without it none."""

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import psycopg
import pytest
import sqlalchemy.exc
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from tests.node.conftest import HERE, NEEDS_NODE, packages  # noqa: F401  # the last is a fixture

ROOT = Path(__file__).parents[2]
# Two orders of one total are found out at the commit, when the job is long enqueued.
_ORDERS = """
CREATE TABLE public.orders (id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
                            total integer NOT NULL UNIQUE DEFERRABLE INITIALLY DEFERRED)"""


def _example(name: str) -> str:
    text = (ROOT / "docs" / "transactional-enqueue.md").read_text()
    [code] = re.findall(rf"<!-- tested: {re.escape(name)} -->\n```\w+\n(.*?)```", text, re.DOTALL)
    return str(code)


def _place_order(name: str) -> Any:
    scope: dict[str, Any] = {}
    exec(_example(name), scope)
    return scope["place_order"]


@pytest.fixture
async def orders(sql: Any) -> str:
    """What is expected in the end: an order, and its job."""
    await sql.execute(_ORDERS)
    return "SELECT (SELECT array_agg(total) FROM public.orders) = '{7}' AND count(*) = 1 AND bool_and(\
        j.queue = 'billing' AND j.kind = 'invoice.send' AND j.idempotency_key = 'order-1' \
        AND e.data -> 'payload' = '{\"order\": 1}') FROM jobs AS j JOIN events AS e ON e.stream_id = j.id"


async def test_asyncpg(dsn: str, sql: Any, orders: str) -> None:
    place_order = _place_order("asyncpg")
    async with asyncpg.create_pool(dsn, min_size=1) as pool:
        await place_order(pool, 7)
        with pytest.raises(asyncpg.UniqueViolationError):
            await place_order(pool, 7)
    assert await sql.fetchval(orders)


async def test_psycopg(dsn: str, sql: Any, orders: str) -> None:
    def run() -> None:
        place_order = _place_order("psycopg")
        with psycopg.connect(dsn) as connection:
            place_order(connection, 7)
            with pytest.raises(psycopg.errors.UniqueViolation):
                place_order(connection, 7)

    await asyncio.to_thread(run)
    assert await sql.fetchval(orders)


async def test_sqlalchemy(dsn: str, sql: Any, orders: str) -> None:
    def run() -> None:
        place_order = _place_order("sqlalchemy")
        engine = create_engine(dsn.replace("postgresql://", "postgresql+psycopg://"))
        with Session(engine) as session:
            place_order(session, 7)
            with pytest.raises(sqlalchemy.exc.IntegrityError):
                place_order(session, 7)
        engine.dispose()

    await asyncio.to_thread(run)
    assert await sql.fetchval(orders)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_sqlalchemy_with_asyncio(dsn: str, sql: Any, orders: str, driver: str) -> None:
    place_order = _place_order("sqlalchemy async")
    engine = create_async_engine(dsn.partition("?")[0].replace("postgresql://", f"postgresql+{driver}://"))
    async with AsyncSession(engine) as session:
        await place_order(session, 7)
        with pytest.raises(sqlalchemy.exc.IntegrityError):
            await place_order(session, 7)
    await engine.dispose()
    assert await sql.fetchval(orders)


async def _run(*command: str, **environment: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **environment},
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()


async def test_django(dsn: str, sql: Any, orders: str, tmp_path: Path) -> None:
    parts = urlsplit(dsn)
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path[1:],
        "USER": parts.username or "",
        "PASSWORD": parts.password or "",
        "HOST": parts.hostname or "",
        "PORT": parts.port or "",
    }
    script = tmp_path / "app.py"
    script.write_text(
        f"import django\nfrom django.conf import settings\nsettings.configure(DATABASES={{'default': {database!r}}})\n"
        f"django.setup()\n{_example('django')}\n"
        "place_order(7)\n"
        "try:\n    place_order(7)\nexcept django.db.IntegrityError:\n    pass\nelse:\n    raise SystemExit(1)\n"
    )
    await _run(sys.executable, str(script))
    assert await sql.fetchval(orders)


@pytest.mark.node
@NEEDS_NODE
async def test_node(dsn: str, sql: Any, orders: str, packages: None) -> None:  # noqa: F811
    script = HERE / "node_modules" / f"orders-{os.getpid()}.mjs"  # beside what it imports
    script.write_text(
        f'import pg from "pg";\n{_example("node")}\nconst client = new pg.Client(process.env.DSN);\n'
        "await client.connect();\nawait placeOrder(client, 7);\n"
        "await placeOrder(client, 7).then(\n  () => process.exit(1),\n"
        '  (error) => { if (error.code !== "23505") throw error; },\n);\n'
        "await client.end();\n"
    )
    try:
        await _run("node", str(script), DSN=dsn)
    finally:
        script.unlink()
    assert await sql.fetchval(orders)
