"""Five years of days as version 13 made them, brought to few partitions beside working servers."""

import asyncio
import contextlib
import math
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from atomo_gql.domain.errors import Unavailable
from atomo_gql.store.migrations import migrate
from tests.conftest import bearer

from . import looks
from .machine import Machine, a_machine
from .table import show

DAYS = 1_825
_JOBS = 20  # a day
_BASELINE = Path(__file__).parents[1] / "store" / "versions" / "0013.sql"
_JOURNAL = """
SELECT atomo.make_partitions(4);
CREATE TABLE atomo.migrations (version integer PRIMARY KEY, name text NOT NULL,
    began_at timestamptz NOT NULL DEFAULT clock_timestamp(), finished_at timestamptz);
INSERT INTO atomo.migrations VALUES (13, 'schema', now(), now());"""
# Each day in a transaction of its own, as it was.
_DAYS = """
DO $$
DECLARE
    v_day timestamptz;
    v_name text;
    v_parent text;
BEGIN
    FOR n IN REVERSE {first}..{last} LOOP
        v_day := date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' - make_interval(days => n);
        FOREACH v_parent IN ARRAY ARRAY['events', 'job_records'] LOOP
            v_name := v_parent || '_' || to_char(v_day AT TIME ZONE 'UTC', 'YYYYMMDD');
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', v_name, v_parent);
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', v_parent, v_name,
                           first_id_at(v_day), first_id_at(v_day + interval '1 day'));
        END LOOP;
        CREATE TEMPORARY TABLE made AS
            SELECT i, v_day + i * interval '1 minute' AS at, i % 10 = 0 AS is_dead,
                nth_id((extract(epoch FROM v_day + i * interval '1 minute') * 1000000)::bigint,
                    gen_random_uuid(), 0) AS id,
                CASE WHEN i % 5 = 0 THEN 'key ' || n || '/' || i END AS key,
                CASE WHEN i % 4 = 0 THEN 'acme' ELSE '' END AS tenant
            FROM generate_series(1, {jobs}) AS i;
        EXECUTE format('INSERT INTO %I (id, created_at, priority, max_attempts, tenant, queue, kind, idempotency_key)
            SELECT id, at, 0, 5, tenant, ''work'', CASE WHEN is_dead THEN ''dead'' ELSE ''ok'' END, key FROM made',
            'job_records_' || to_char(v_day AT TIME ZONE 'UTC', 'YYYYMMDD'));
        INSERT INTO idempotency_keys (tenant, queue, key, job_id)
            SELECT tenant, 'work', key, id FROM made WHERE key IS NOT NULL;
        INSERT INTO dead (id, finished_at, version, attempts, deliveries, tenant, queue, error)
            SELECT id, at, 3, 1, 1, tenant, 'work', 'error ' || i FROM made WHERE is_dead;
        INSERT INTO lanes (tenant, queue) SELECT DISTINCT tenant, 'work' FROM made ON CONFLICT DO NOTHING;
        EXECUTE format('INSERT INTO %I (stream_id, version, at, stream, type, tenant, actor, data)
            SELECT id, v, at, ''Job'', CASE v WHEN 1 THEN ''enqueued'' WHEN 2 THEN ''leased''
                ELSE CASE WHEN is_dead THEN ''dead'' ELSE ''succeeded'' END END::event_type, tenant,
                CASE v WHEN 1 THEN ''user:x'' ELSE ''worker:'' || id END,
                CASE v WHEN 1 THEN jsonb_build_object(''queue'', ''work'', ''kind'',
                         CASE WHEN is_dead THEN ''dead'' ELSE ''ok'' END, ''payload'', jsonb_build_object(''n'', i),
                         ''priority'', 0, ''maxAttempts'', 5, ''runAt'', NULL, ''idempotencyKey'', key)
                     WHEN 2 THEN jsonb_build_object(''leaseId'', id, ''attempt'', 1, ''visibilitySecs'', 30)
                     ELSE jsonb_build_object(''leaseId'', id, ''attempt'', 1) || CASE WHEN is_dead
                        THEN jsonb_build_object(''error'', ''error '' || i, ''reason'', ''not_retryable'')
                        ELSE jsonb_build_object(''result'', NULL) END END
            FROM made, generate_series(1, 3) AS v', 'events_' || to_char(v_day AT TIME ZONE 'UTC', 'YYYYMMDD'));
        DROP TABLE made;
        COMMIT;
    END LOOP;
END $$"""


async def five_years(days: int = DAYS, samples: int = 40) -> None:
    """Make the days, migrate, serve with three processes and merge beside them; print what each took."""
    async with a_machine(None, ATOMO_WORKERS="3") as machine:
        began = time.monotonic()
        await _make_days(machine, days)
        took = [("made by version 13", f"{time.monotonic() - began:.1f} s", f"{days} days")]
        began = time.monotonic()
        await migrate(machine.dsn)
        took.append(("migrate, of all days", f"{time.monotonic() - began:.1f} s", f"{await _pairs(machine)} pairs"))
        await looks.vacuum(machine.dsn)
        print(*took, sep="\n", flush=True)
        before: Mapping[str, float] = {}
        locks_before: Mapping[str, str] = {}
        with contextlib.suppress(Unavailable):  # there are more locks to take than PostgreSQL has room for
            [before] = await looks.seconds([machine.dsn], 1)
            locks_before = await looks.locks(machine.dsn)
        began = time.monotonic()
        await machine.start_server()
        took.append(("three servers are ready", f"{time.monotonic() - began:.1f} s", ""))
        answers: Counter[int | str] = Counter()
        longest: list[float] = []
        async with _client(machine, answers, longest):
            for number in range(1, 6):
                began = time.monotonic()
                try:
                    said = (await machine.command("housekeeping")).strip().splitlines()
                except AssertionError as error:  # the command has failed; that is what the table says
                    said = [str(error)[-300:]]
                pairs = await _pairs(machine)
                took.append((f"housekeeping, round {number}", f"{time.monotonic() - began:.1f} s", f"{pairs} pairs"))
                print(*said, sep="\n")
                if pairs <= 16:
                    break
        took.append(("answers to clients meanwhile", ", ".join(f"{n} × {what}" for what, n in answers.items()),
                     f"the longest {max(longest):.2f} s"))  # fmt: skip
        print((await machine.command("rebuild", "--verify")).strip())
        await looks.vacuum(machine.dsn)
        [after], locks_after = await looks.seconds([machine.dsn], samples), await looks.locks(machine.dsn)
        show(["step", "took", ""], took)
        show(
            ["look", "ms before", "ms after", "locks before", "locks after"],
            [
                (
                    n,
                    f"{before.get(n, math.nan) * 1e3:.2f}",
                    f"{after[n] * 1e3:.2f}",
                    locks_before.get(n, "too many"),
                    locks_after[n],
                )
                for n in after
            ],
        )


async def _make_days(machine: Machine, days: int) -> None:
    async with machine.sql() as sql:
        await sql.execute("CREATE SCHEMA atomo")
        await sql.execute(_BASELINE.read_text())
        await sql.execute(_JOURNAL)
        for last in range(days, 1, -100):
            await sql.execute(_DAYS.format(first=last, last=max(2, last - 99), jobs=_JOBS), timeout=600)


async def _pairs(machine: Machine) -> int:
    async with machine.sql() as sql:
        count: int = await sql.fetchval("SELECT count(*) FROM partitions")
        return count


@contextlib.asynccontextmanager
async def _client(machine: Machine, answers: Counter[int | str], longest: list[float]):  # type: ignore[no-untyped-def]
    """Somebody who enqueues, and looks at the newest jobs, all the time."""

    async def ask() -> None:
        async with aiohttp.ClientSession(headers=bearer()) as http:
            while True:
                for method, path, body in (
                    ("POST", "/jobs", {"queue": "work", "kind": "ok"}),
                    ("POST", "/graphql", {"query": "{ jobs(first: 20) { nodes { id } } }"}),
                ):
                    began = time.monotonic()
                    try:
                        async with http.request(method, machine.url + path, json=body) as answer:
                            await answer.read()
                            answers[answer.status] += 1
                    except (aiohttp.ClientError, OSError) as error:
                        answers[type(error).__name__] += 1
                    longest.append(time.monotonic() - began)
                await asyncio.sleep(0.05)  # twenty a second are enough

    task = asyncio.create_task(ask())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
