"""What a start would find, one finding after the other. Nothing here changes anything."""

import contextlib
import os
import shutil
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from urllib.parse import quote

import click

from atomo_gql.app import UnfitWay
from atomo_gql.cli.host import PortTaken, listen
from atomo_gql.cli.start import database_name, folders, make_application, open_files
from atomo_gql.domain.errors import AtomoError, Unavailable
from atomo_gql.embedded import EmbeddedPostgresError, cluster
from atomo_gql.embedded.leftovers import read_pid_file
from atomo_gql.embedded.place import locate
from atomo_gql.embedded.probe import Answer, probe
from atomo_gql.realtime.transport import round_trip
from atomo_gql.service.boot import BrokenFile, read_files
from atomo_gql.settings import Settings, read, unknown_variables
from atomo_gql.store.checks import Look, Schema, Server, unfit
from atomo_gql.store.refusals import DatabaseUnusable, explained
from atomo_gql.store.steps import SchemaError, misfit, newest_version

_CLOCK_SECS = 5.0  # tokens' times are read by this machine's clock, jobs' by the database's
_SHM = Path("/dev/shm")  # noqa: S108  # looked at, not written to
_SHM_BYTES = 16 << 20  # PostgreSQL has little in /dev/shm until queries run in parallel
_DISK_BYTES = 256 << 20  # a new cluster has 40 MiB, and its log grows
_AHEAD = timedelta(days=1)  # for which there must be partitions at least; housekeeping makes more


class State(Enum):
    """What a finding means for a start."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, and one sentence about it; what to do, where it is not ok."""

    name: str
    state: State
    says: str


def _finding(name: str, says: str, *, warning: str | None = None, failed: str | None = None) -> Finding:
    if failed:
        return Finding(name, State.FAILED, failed)
    return Finding(name, State.WARNING, warning) if warning else Finding(name, State.OK, says)


async def findings() -> AsyncGenerator[Finding]:
    """All of them, in the order in which a start would meet them."""
    settings, wrong = read(needs_database=True)
    for line in wrong:
        yield _finding("settings", "", failed=line)
    for line in unknown_variables():
        yield _finding("settings", "", warning=f"{line}: correct its name, or unset it")
    if not wrong:
        yield _finding("settings", f"{len(settings.texts)} set, all of them right")
    looks = (_files, _data_folder, _port, _open_files, _shared_memory)
    for finding in (look(settings) for look in looks):
        if finding:
            yield finding
    yield await _redis(settings)
    if settings.database_url or not any("DATABASE_URL" in line for line in wrong):
        async for finding in _database(settings):
            yield finding


def _files(settings: Settings) -> Finding | None:
    """What defines workflows and bindings of actions; None where no file does."""
    try:
        application = make_application(settings, settings.database_url or "postgresql://")  # which is not connected to
        summary = read_files(application.services, *folders(settings)).summary
    except (BrokenFile, AtomoError, click.ClickException) as error:
        reason = error.message if isinstance(error, click.ClickException) else str(error)
        return _finding("files", "", failed=f"{reason}; correct it, or take it away")
    return _finding("files", summary) if summary else None


def _data_folder(settings: Settings) -> Finding | None:
    """Where the embedded PostgreSQL and a made-up secret are kept."""
    needs_secret = not settings.jwt_secret and not settings.jwks_url
    if settings.database_url and not needs_secret:
        return _finding("data folder", "not needed")
    folder = settings.data_dir
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(there).free
    except OSError as error:
        reason = f"{folder} cannot be looked at: {error.strerror}; set ATOMO_DATA_DIR to another folder"
        return _finding("data folder", "", failed=reason)
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        what = "is no folder" if not there.is_dir() else "cannot be written"
        return _finding("data folder", "", failed=f"{there} {what}: set ATOMO_DATA_DIR to a folder that can be written")
    low = free < _DISK_BYTES and not settings.database_url
    return _finding(
        "data folder",
        f"{folder}, {_size(free)} free" + ("" if there == folder else "; it would be made"),
        warning=f"only {_size(free)} are free in {there}: free some space, or set ATOMO_DATA_DIR" if low else None,
    )


def _port(settings: Settings) -> Finding:
    try:
        listen(settings).close()
    except PortTaken as error:
        return _finding("port", "", warning=f"{error.message} (where no server of this service runs now)")
    except click.ClickException as error:
        return _finding("port", "", failed=error.message)
    return _finding("port", f"{settings.host}:{settings.port} is free")


def _open_files(settings: Settings) -> Finding | None:
    limits = open_files(settings)
    if limits is None:
        return None
    allowed, least, wanted = limits
    failed = warning = None
    if allowed < least:
        failed = f"{allowed:,} are allowed, and a server needs {least:,}: raise ulimit -n"
    elif allowed < wanted:
        warning = f"{allowed:,} are allowed, and ATOMO_MAX_CONNECTIONS can need {wanted:,}: raise ulimit -n"
    return _finding("open files", f"{allowed:,} allowed to a process", warning=warning, failed=failed)


def _shared_memory(settings: Settings) -> Finding | None:
    if sys.platform != "linux":
        return None
    if settings.database_url:
        return _finding("shared memory", "not needed")
    try:
        free = shutil.disk_usage(_SHM).free
    except OSError as error:
        return _finding("shared memory", "", failed=f"{_SHM}: {error.strerror}; mount it, or set DATABASE_URL")
    small = free < _SHM_BYTES
    return _finding(
        "shared memory",
        f"{_SHM}, {_size(free)} free",
        warning=f"{_SHM} has only {_size(free)} free, and PostgreSQL may fail: enlarge it (docker run --shm-size=64m)"
        if small
        else None,
    )


async def _redis(settings: Settings) -> Finding:
    if not settings.broadcast_url:
        return _finding("Redis", "not used")
    try:
        seconds = await round_trip(settings.broadcast_url)
    except Exception as error:  # whatever its client says
        reason = " ".join(str(error).split()) or type(error).__name__
        return _finding(
            "Redis",
            "",
            warning=f"a server starts without it, and hints are lost until it is back: {reason}; "
            "correct ATOMO_BROADCAST_URL, or start Redis",
        )
    return _finding("Redis", f"passes messages on in {seconds * 1_000:.1f} ms")


async def _database(settings: Settings) -> AsyncGenerator[Finding]:
    dsn = settings.database_url
    try:
        dsn = dsn or await _running_embedded(settings)
        if dsn is None:
            yield _embedded_that_would_start(settings)
            return
        look = await Look.begin(dsn)
    except (DatabaseUnusable, EmbeddedPostgresError, OSError) as error:
        yield _finding("database", "", failed=str(error))
        return
    try:
        with explained(dsn):
            async for finding in _in_database(settings, look, dsn):
                yield finding
    except (DatabaseUnusable, SchemaError) as error:
        yield _finding("database", "", failed=str(error))
    finally:
        with contextlib.suppress(OSError, TimeoutError):
            await look.end()


async def _running_embedded(settings: Settings) -> str | None:
    """The address of the embedded PostgreSQL that some process runs on the data folder."""
    files = locate(settings.data_dir.absolute())
    found = read_pid_file(files.cluster)
    if found is None or await probe(found.port) is not Answer.READY:
        return None
    secret = quote(cluster.read_password(files.password), safe="")
    return f"postgresql://{cluster.USER}:{secret}@127.0.0.1:{found.port}/{cluster.DATABASE}"


def _embedded_that_would_start(settings: Settings) -> Finding:
    is_there = (locate(settings.data_dir.absolute()).cluster / "PG_VERSION").exists()
    what = "is not running; a start would start it" if is_there else "is not there; a start would make it"
    return _finding("database", f"{database_name(settings)} {what}, and only then is more to be seen")


async def _in_database(settings: Settings, look: Look, dsn: str) -> AsyncGenerator[Finding]:
    server = await look.server()
    name = f"{database_name(settings)}, PostgreSQL {server.version.split()[0]}"
    why, is_utf8 = unfit(server, dsn), server.encoding == "UTF8"
    answers = f"{name}, answers in {server.round_trip * 1_000:.1f} ms"
    yield _finding("database", answers, failed=why if is_utf8 else None)
    yield _finding("encoding", server.encoding, failed=None if is_utf8 else why)
    is_usual = server.isolation == "read committed"
    yield _finding(
        "isolation",
        server.isolation,
        warning=f"it is {server.isolation}: the service has its own, but transactions that enqueue by SQL may have to "
        f"be repeated; ALTER DATABASE … SET default_transaction_isolation = 'read committed'"
        if not is_usual
        else None,
    )
    yield await _way(settings, dsn)
    yield _clock(server)
    connections = await look.connections()
    wanted = settings.connections
    yield _finding(
        "connections",
        f"{wanted:,} wanted of {connections.allowed:,} allowed, of which others use {connections.others:,}",
        failed=f"{wanted:,} wanted, and PostgreSQL allows {connections.allowed:,}: lower ATOMO_POOL_SIZE or "
        "ATOMO_WORKERS, or raise max_connections"
        if wanted > connections.allowed
        else None,
        warning=f"{wanted:,} wanted, and others leave {connections.allowed - connections.others:,} of "
        f"{connections.allowed:,}: lower ATOMO_POOL_SIZE or ATOMO_WORKERS, or raise max_connections"
        if wanted > connections.allowed - connections.others
        else None,
    )
    schema = await look.schema()
    yield _rights(server, schema)
    if schema.has_journal and not (schema.may_use and schema.may_read_journal):
        return  # the rights are to be mended first
    yield _schema(schema)
    if schema.has_journal:
        yield _partitions(await look.covered_until())


async def _way(settings: Settings, dsn: str) -> Finding:
    """How connections come to the database, and whether notifications can be heard on that way."""
    try:
        application = make_application(settings, dsn)
        await application.check_way()
        return _finding("way", (await application.database.way()).value)
    except (UnfitWay, Unavailable) as error:
        return _finding("way", "", failed=str(error))
    except click.ClickException as error:
        return _finding("way", "", failed=error.format_message())


def _clock(server: Server) -> Finding:
    ahead = server.clock_ahead
    is_off = abs(ahead) > _CLOCK_SECS + server.round_trip
    off = f"{abs(ahead):,.1f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
    return _finding(
        "clock",
        f"the database's is {abs(ahead) * 1_000:,.0f} ms {'ahead of' if ahead > 0 else 'behind'} this machine's",
        warning=f"the database's is {off}: set both by NTP, or tokens are refused, or accepted too long"
        if is_off
        else None,
    )


def _rights(server: Server, schema: Schema) -> Finding:
    role = server.role
    if not schema.is_there:
        return _finding(
            "rights",
            f"{role} may make the schema",
            failed=None
            if server.may_create_schema
            else f"{role} may not make the schema: GRANT CREATE ON DATABASE {server.database} TO {role}, or CREATE "
            f"SCHEMA atomo AUTHORIZATION {role}",
        )
    failed = None
    if not schema.may_use or not schema.may_create:
        failed = f"{role} may not use the schema atomo: GRANT USAGE, CREATE ON SCHEMA atomo TO {role}"
    elif schema.foreign_tables:
        failed = (
            f"{schema.foreign_tables} tables belong to {schema.foreign_owner}, whose rights {role} lacks: GRANT "
            f"{schema.foreign_owner} TO {role}"
        )
    return _finding("rights", f"{role} owns the schema's tables", failed=failed)


def _schema(schema: Schema) -> Finding:
    newest = newest_version()
    if schema.tables and not schema.has_journal and not schema.is_of_before:
        return _finding(
            "schema",
            "",
            failed="a schema atomo is there that this service did not make: use another database, or move it away",
        )
    if not schema.tables:
        return _finding("schema", f"is not there, and would be made as version {newest}")
    if schema.is_of_before or schema.version < newest:
        before = "an earlier version" if schema.is_of_before else f"version {schema.version}"
        return _finding("schema", f"would be brought from {before} to version {newest}")
    return _finding(
        "schema",
        f"version {schema.version}, with which this atomo-gql (of {newest}) works",
        failed=misfit(schema.version, schema.oldest_server, schema.made_by),
    )


def _partitions(until: datetime | None) -> Finding:
    now = datetime.now(UTC)
    if until is None or until < now + _AHEAD:
        ahead = f"only {(until - now).total_seconds() / 3_600:.0f} hours ahead" if until else "missing for today"
        return _finding(
            "partitions",
            "",
            warning=f"they are {ahead}: a start makes them; where servers run, their logs say why housekeeping fails",
        )
    return _finding("partitions", f"there until {until:%Y-%m-%d} (UTC)")


def _size(size: int) -> str:
    return f"{size / (1 << 30):,.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):,.0f} MiB"
