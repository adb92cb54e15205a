"""`atomo-gql housekeeping`: what servers do every ten minutes, done now."""

import asyncio
from datetime import timedelta

import click

from atomo_gql.app import Application
from atomo_gql.cli.host import database, migrated, settings_or_exit
from atomo_gql.cli.logs import set_up_logs
from atomo_gql.domain.errors import AtomoError
from atomo_gql.settings import Settings
from atomo_gql.store import housekeeping as store


@click.command()
def housekeeping() -> None:
    """Do what servers do every ten minutes: make partitions, apply the retention, have few old partitions.

    It may run at any time beside live servers, for example after the retention was shortened. It takes the database's
    clock for right, where servers first watch it for ten minutes.
    """
    settings = settings_or_exit()
    set_up_logs(settings)
    asyncio.run(_keep_house(settings))


async def _keep_house(settings: Settings) -> None:
    async with database(settings) as dsn:
        await migrated(dsn)
        application = Application(settings, dsn)
        house = application.services.housekeeping
        try:
            await application.database.open()
            made = await house.make_partitions()
            runs, events = await house.retain_runs()
            replaced, forgotten = await house.retain()
            await application.services.queues.forget()
            partitions = await store.partitions(application.database)
        except AtomoError as error:
            raise click.ClickException(error.detail) from None
        finally:
            await application.database.close()
    click.echo(f"deleted {forgotten:,} jobs, {runs:,} runs of workflows and {events:,} recorded events")
    until = max(p.ends_at for p in partitions) - timedelta(days=1)
    click.echo(
        f"made {made} partitions and replaced {replaced}; there are {len(partitions)} now, up to {until:%Y-%m-%d}"
    )
