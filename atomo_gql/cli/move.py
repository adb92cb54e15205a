"""`atomo-gql move`: an installation from the embedded PostgreSQL, or any other, to another server."""

import contextlib
from collections.abc import AsyncIterator

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from atomo_gql.cli.database import rebuilt
from atomo_gql.cli.logs import set_up_logs
from atomo_gql.cli.start import database, run_or_exit, settings_or_exit
from atomo_gql.domain.errors import AtomoError
from atomo_gql.settings import Settings
from atomo_gql.store.moving import Moved, MoveError
from atomo_gql.store.moving import move as copy_all
from atomo_gql.store.steps import SchemaError


@click.command()
@click.option("--to", "target", required=True, metavar="URL", help="The database to move to: postgresql://…")
@click.option("--from", "source", metavar="URL", help="The database to move from; by default the one of the settings.")
@click.option("--dry-run", is_flag=True, help="Check both databases and count; write nothing.")
def move(target: str, source: str | None, dry_run: bool) -> None:
    """Move everything to another PostgreSQL, and prove that it is there.

    Stop all servers first. The source stays as it is. At the end the command says what to set.
    """
    settings = settings_or_exit()
    set_up_logs(settings)
    run_or_exit(settings, lambda: _move(settings, source, target, dry_run))


@contextlib.asynccontextmanager
async def _source(settings: Settings, named: str | None) -> AsyncIterator[str]:
    if named:
        yield named
    else:
        async with database(settings) as dsn:
            yield dsn


async def _move(settings: Settings, source: str | None, target: str, dry_run: bool) -> None:
    columns = (TextColumn("copying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    async with _source(settings, source) as dsn:
        try:
            with Progress(*columns, transient=True) as shown:
                bar = shown.add_task("", total=None)
                moved = await copy_all(
                    dsn,
                    target,
                    dry_run=dry_run,
                    progress=lambda done, total: shown.update(bar, completed=done, total=total),
                )
        except (MoveError, SchemaError) as error:
            raise click.ClickException(str(error)) from None
        except AtomoError as error:
            raise click.ClickException(f"a database was lost: {error.__cause__ or error}") from None
    _tell(moved, dry_run)
    if not dry_run:
        await rebuilt(target, verify=True)
        click.echo("moved. Set DATABASE_URL to the address that you gave as --to, and start the servers.")
        click.echo("The source was left as it is: keep it until all is well, and start no server on it.")


def _tell(moved: Moved, dry_run: bool) -> None:
    for table, rows in sorted(moved.rows.items()):
        click.echo(f"{rows:>14,}  {table}")
    what = "would be copied" if dry_run else "copied, and counted again in the target"
    click.echo(
        f"{sum(moved.rows.values()):,} rows in {len(moved.rows)} tables ({moved.partitions} partitions) {what}: "
        f"PostgreSQL {moved.source_version} to {moved.target_version}"
    )
