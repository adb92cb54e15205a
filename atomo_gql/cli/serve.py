"""`atomo-gql serve`."""

import contextlib
import dataclasses
import sys
import tempfile

import click

from atomo_gql.cli.host import accept, calm_the_collector, listen, running, url_of
from atomo_gql.cli.logs import set_up_logs
from atomo_gql.cli.signals import on_signals
from atomo_gql.cli.start import allow_open_files, database, log, prepared, run_or_exit, settings_or_exit, tell_beginning
from atomo_gql.cli.supervisor import Supervisor
from atomo_gql.domain.errors import Unavailable
from atomo_gql.settings import MOST_WORKERS, Settings
from atomo_gql.store.database import connections_allowed


@click.command()
@click.option("--host", help="Address to listen on (HOST; 127.0.0.1).")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port to listen on; 0 finds a free one (PORT; 3000).")
@click.option("--workers", type=click.IntRange(1, MOST_WORKERS), help="Server processes (ATOMO_WORKERS; 1).")
def serve(host: str | None, port: int | None, workers: int | None) -> None:
    """Run the service until a signal ends it.

    Everything else is said by the environment: docs/settings.md lists it. Without DATABASE_URL an embedded PostgreSQL
    is started, and its schema brought up to date.
    """
    settings = settings_or_exit(needs_database=True)
    settings = dataclasses.replace(
        settings,
        host=host or settings.host,
        port=settings.port if port is None else port,
        workers=workers or settings.workers,
    )
    set_up_logs(settings)
    allow_open_files(settings)
    run_or_exit(settings, lambda: _serve(settings) if settings.workers == 1 else _serve_together(settings))


async def _serve(settings: Settings) -> None:
    tell_beginning(settings)
    with listen(settings) as listening:  # before the database: a port that is taken is seen at once
        async with database(settings) as dsn:
            await prepared(settings, dsn)
            async with running(settings, dsn, listening) as server:
                on_signals(server.stop)
                calm_the_collector()
                log.info("listening on %s", server.url)
                await server.task
    log.info("stopped")


async def _serve_together(settings: Settings) -> None:
    """This process keeps the database and the others; they serve."""
    if sys.platform == "win32":
        raise click.ClickException("ATOMO_WORKERS (--workers): more than one is not supported on Windows")
    if settings.broadcast_url and settings.broadcast_url.startswith("memory:"):
        raise click.ClickException("ATOMO_BROADCAST_URL memory:// is for one process alone, ATOMO_WORKERS says more")
    tell_beginning(settings)
    with listen(settings) as listening, _temporary_folder() as counts:
        async with database(settings) as dsn:
            await prepared(settings, dsn)
            await _count_connections(settings, dsn)
            accept(listening, settings)
            url = url_of(settings, listening)
            # As they were read here: files may have changed since, and a pipe can be read but once.
            told = {**settings.texts, "DATABASE_URL": dsn, "HOST": settings.host, "PORT": str(settings.port)}
            told.pop("ATOMO_EMBEDDED", None)
            supervisor = Supervisor(settings.workers, listening, told, counts)
            on_signals(supervisor.stop)
            await supervisor.run(lambda: log.info("listening on %s with %d processes", url, settings.workers))
    log.info("stopped")


def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="atomo-gql-")
    except OSError as error:
        raise click.ClickException(
            f"no folder for temporary files can be made ({error.strerror}): set TMPDIR to one that can be written"
        ) from None


async def _count_connections(settings: Settings, dsn: str) -> None:
    with contextlib.suppress(Unavailable):
        allowed = await connections_allowed(dsn)
        if settings.connections > allowed:
            log.warning(
                "%d processes may want %d connections (ATOMO_POOL_SIZE and one more each), and PostgreSQL allows %d: "
                "lower ATOMO_POOL_SIZE, or raise max_connections",
                settings.workers,
                settings.connections,
                allowed,
            )
