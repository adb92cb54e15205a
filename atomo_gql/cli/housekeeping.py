"""`atomo-gql housekeeping`: what servers do every ten minutes, done now."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

import click

from atomo_gql.app import Application
from atomo_gql.cli.logs import set_up_logs
from atomo_gql.cli.start import database, run_or_exit, settings_or_exit
from atomo_gql.domain.errors import AtomoError, Unavailable
from atomo_gql.settings import Settings
from atomo_gql.store import housekeeping as store
from atomo_gql.store.migrations import migrate
from atomo_gql.store.steps import SchemaError

_TRIES = 20
T = TypeVar("T")


@click.command()
def housekeeping() -> None:
    """Do what servers do every ten minutes: make partitions, apply the retention, have few old partitions.

    It may run at any time beside live servers, for example after the retention was shortened. It takes the database's
    clock for right, where servers first watch it for ten minutes.
    """
    settings = settings_or_exit(needs_database=True)
    set_up_logs(settings)
    run_or_exit(settings, lambda: _keep_house(settings))


async def _keep_house(settings: Settings) -> None:
    async with database(settings) as dsn:
        application = Application(settings, dsn)
        services = application.services
        house = services.housekeeping
        try:
            with contextlib.suppress(Unavailable):  # no room for its locks, as below; what follows tells if it is more
                await migrate(settings.listen_url or dsn)
            await application.database.open()
            made = await _insist(house.make_partitions)
            # Before all else: while there are very many partitions, other queries may find no room for their locks.
            replaced, forgotten = await _insist(house.retain)
            runs, events = await _insist(house.retain_runs)
            await services.queues.forget()
            await house.shorten_leases()
            await services.schedules.look_again()
            partitions = await store.partitions(application.database)
        except SchemaError as error:
            raise click.ClickException(str(error)) from None
        except AtomoError as error:
            raise click.ClickException(f"{error.detail} ({error.__cause__ or 'no cause is known'})") from None
        finally:
            await application.database.close()
    click.echo(f"deleted {forgotten:,} jobs, {runs:,} runs of workflows and {events:,} recorded events")
    until = max(p.ends_at for p in partitions) - timedelta(days=1)
    click.echo(
        f"made {made} partitions and replaced {replaced}; there are {len(partitions)} now, up to {until:%Y-%m-%d}"
    )


async def _insist(step: Callable[[], Awaitable[T]]) -> T:
    """Do it again when the database has no room, or no moment, for it just now: each step may break off anywhere."""
    for left in reversed(range(_TRIES)):
        try:
            return await step()
        except Unavailable:
            if not left:
                raise
            await asyncio.sleep(random.uniform(1, 3))  # noqa: S311  # jitter, not a secret
    raise AssertionError("the last try answers or raises")
