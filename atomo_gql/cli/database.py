"""`atomo-gql migrate` and `atomo-gql rebuild`: what speaks to the database itself."""

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from atomo_gql.app import retention
from atomo_gql.cli.logs import set_up_logs
from atomo_gql.cli.start import (
    database,
    migrated,
    reached,
    run_or_exit,
    settings_or_exit,
    warn_of_unknown_variables,
)
from atomo_gql.domain.events import BrokenStream
from atomo_gql.settings import Settings
from atomo_gql.store import rebuild as store
from atomo_gql.store.database import Database

_SHOWN = 20  # differences printed


@click.command()
def migrate() -> None:
    """Bring the database's schema up to date (`serve` does so by itself)."""
    settings = settings_or_exit(needs_database=True)
    set_up_logs(settings)
    warn_of_unknown_variables()
    run_or_exit(settings, lambda: _migrate(settings))


async def _migrate(settings: Settings) -> None:
    async with database(settings) as dsn:
        done = await migrated(settings.listen_url or dsn, retention(settings).partition_days)
    for line in done or ["the schema is up to date"]:
        click.echo(line)


@click.command()
@click.option("--verify", is_flag=True, help="Change nothing: compare every row with its events.")
@click.option("--yes", is_flag=True, help="Do not ask before making the projection anew.")
def rebuild(verify: bool, yes: bool) -> None:
    """Make jobs and runs anew from their events, or prove that they are what the events say.

    --verify may run at any time beside a live service; it ends with status 1 when a row differs. Without it, all
    others wait while the projection is dropped and made anew.
    """
    settings = settings_or_exit(needs_database=True)
    set_up_logs(settings)
    warn_of_unknown_variables()
    if not verify and not yes:
        click.confirm(
            "This drops the projection and makes it anew from the events; all others wait. Go on?", abort=True
        )
    run_or_exit(settings, lambda: _rebuild(settings, verify))


async def _rebuild(settings: Settings, verify: bool) -> None:
    async with database(settings) as dsn:
        await migrated(settings.listen_url or dsn)
        await rebuilt(dsn, verify=verify)


async def rebuilt(dsn: str, *, verify: bool) -> None:
    """Compare every row of a database with its events, or make the rows anew; tell the result, or stop with it."""
    connected = Database(dsn)
    with reached(dsn):
        try:
            await connected.open()
            await (_verify(connected) if verify else _make_anew(connected))
        finally:
            await connected.close()


async def _make_anew(connected: Database) -> None:
    try:
        made = await store.rebuild(connected)
    except BrokenStream as error:
        raise click.ClickException(f"nothing was changed: {error}") from None
    click.echo(f"{made.jobs:,} jobs made anew from their events, and {made.runs:,} runs of workflows")


async def _verify(connected: Database) -> None:
    compared = events = runs = 0
    differences: list[store.Difference] = []
    columns = (TextColumn("comparing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as progress:
        bar = progress.add_task("", total=await store.estimate(connected) or None)
        async for proof in store.verify(connected):
            compared, events, runs = proof.compared, proof.events, proof.runs
            differences.extend(proof.differences)
            progress.update(bar, completed=compared + runs)
    for difference in differences[:_SHOWN]:
        click.echo(f"{difference.what} {difference.id}: {difference.detail}", err=True)
    if len(differences) > _SHOWN:
        click.echo(f"… and {len(differences) - _SHOWN:,} more", err=True)
    what = f"{compared:,} jobs compared, and {runs:,} runs of workflows, with {events:,} events"
    click.echo(f"{what}: {len(differences):,} differ")
    if differences:
        raise SystemExit(1)
