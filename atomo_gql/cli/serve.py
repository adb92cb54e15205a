"""`atomo-gql serve`."""

import asyncio
import dataclasses
import gc

import click

from atomo_gql.cli.host import database, log, migrated, on_signals, running, set_up_logs, settings_or_exit
from atomo_gql.settings import Settings


@click.command()
@click.option("--host", help="Address to listen on (HOST; 127.0.0.1).")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port to listen on; 0 finds a free one (PORT; 3000).")
def serve(host: str | None, port: int | None) -> None:
    """Run the service until a signal ends it.

    Everything else is said by the environment: docs/settings.md lists it. Without DATABASE_URL an embedded PostgreSQL
    is started, and its schema brought up to date.
    """
    settings = settings_or_exit()
    settings = dataclasses.replace(settings, host=host or settings.host, port=settings.port if port is None else port)
    set_up_logs(settings)
    asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    async with database(settings) as dsn:
        await migrated(dsn)
        async with running(settings, dsn) as server:
            on_signals(server.stop)
            _calm_the_collector()
            log.info("listening on %s", server.url)
            await server.task
    log.info("stopped")


def _calm_the_collector() -> None:
    """Nearly nothing here is a cycle, and a full collection with thousands of sockets open holds all of them up."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
