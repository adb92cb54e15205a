"""What every command that needs the database does first, and how it ends when it cannot: one sentence, no traceback."""

import contextlib
import errno
import logging
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

import click

from atomo_gql import __version__
from atomo_gql.app import Application, UnfitWay, retention
from atomo_gql.cli import signals
from atomo_gql.cli.logs import set_up_logs
from atomo_gql.domain.errors import AtomoError, Unavailable
from atomo_gql.embedded import EmbeddedPostgres, EmbeddedPostgresError
from atomo_gql.service.boot import BrokenFile, register_files
from atomo_gql.settings import Settings, SettingsError, load, unknown_variables
from atomo_gql.store.checks import look_at_server
from atomo_gql.store.migrations import migrate
from atomo_gql.store.refusals import DatabaseUnusable, described, explained
from atomo_gql.store.steps import SchemaError, newest_version

log = logging.getLogger("atomo_gql.server")

_FILES_BESIDE = 64  # that a server process has open beside connections to the database and of clients

_Result = TypeVar("_Result")


class StartFailed(click.ClickException):
    """Why the command ends, told as the log is: a sentence, or a line of JSON."""

    def __init__(self, message: str, log_format: str = "console") -> None:
        """`log_format`: `console` or `json`."""
        super().__init__(message)
        self._log_format = log_format

    def show(self, file: IO[Any] | None = None) -> None:
        """Write it on standard error."""
        if self._log_format == "json":
            log.error(self.message.replace(":\n  ", ": ").replace("\n  ", "; "))
        else:
            super().show(file)


def settings_or_exit(environment: Mapping[str, str] | None = None, *, needs_database: bool = False) -> Settings:
    """The settings, or a list of what is wrong with them. `environment`: this process's, unless another is given.

    Raises:
        StartFailed: one or more of them are wrong, or name no database where one is needed.
    """
    try:
        return load(environment, needs_database=needs_database)
    except SettingsError as error:
        if error.log_format == "json":
            set_up_logs(Settings(log_format="json"))
        wrong = str(error).replace("\n", "\n  ")
        raise StartFailed(f"these settings are wrong:\n  {wrong}", error.log_format) from None


def run_or_exit(settings: Settings, work: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
    """Run asynchronous work to its end.

    Raises:
        StartFailed: it cannot go on; the message says why, in one sentence.
    """
    try:
        return signals.run(work())
    except click.UsageError:
        raise
    except click.ClickException as error:
        raise StartFailed(error.format_message(), settings.log_format) from None
    except (click.Abort, click.exceptions.Exit):
        raise
    except Exception as error:
        log.debug("this ended the program", exc_info=True)
        raise StartFailed(_unforeseen(error), settings.log_format) from None


def _unforeseen(error: Exception) -> str:
    if isinstance(error, OSError):
        what = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
        if error.errno == errno.EMFILE:
            return f"{what}: raise the limit of open files (ulimit -n)"
        if error.errno == errno.ENOSPC:
            return f"{what}: free some space on that disk"
        return f"the system refuses something: {what}"
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return f"this should not happen ({what}); ATOMO_LOG_LEVEL=debug shows where it did: please report that"


def tell_beginning(settings: Settings) -> None:
    """Write the first lines of the log: what this is, which database it uses, and names that mean nothing to it."""
    log.info("atomo-gql %s, schema %d, database: %s", __version__, newest_version(), database_name(settings))
    warn_of_unknown_variables()


def warn_of_unknown_variables() -> None:
    """Write a line for each variable that looks like a setting and is none."""
    for line in unknown_variables():
        log.warning(line)


def allow_open_files(settings: Settings) -> None:
    """Raise this process's own limit of open files as far as it may, up to what a server can need.

    Raises:
        StartFailed: a server would work badly with as few as there are.
    """
    limits = open_files(settings)
    if limits is None:
        return
    import resource

    allowed, least, _ = limits
    if allowed < least:
        raise StartFailed(
            f"a server needs {least:,} open files, and this process may have {allowed:,}: raise ulimit -n",
            settings.log_format,
        )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and allowed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def open_files(settings: Settings) -> tuple[int, int, int] | None:
    """How many files a server process may have open, needs at least, and can need; None where nothing limits them."""
    if sys.platform == "win32":
        return None
    import resource

    least = settings.pool_size + _FILES_BESIDE
    wanted = settings.max_connections + least
    soft, hard = (
        wanted if limit == resource.RLIM_INFINITY else limit for limit in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    return max(soft, min(hard, wanted)), least, wanted


def database_name(settings: Settings) -> str:
    """Which database the settings name, without a password."""
    if settings.database_url:
        return described(settings.database_url)
    return f"embedded PostgreSQL in {settings.data_dir}"


@contextlib.asynccontextmanager
async def database(settings: Settings) -> AsyncIterator[str]:
    """The address of the database: the one named, or an embedded one for the length of the block."""
    if settings.database_url:
        yield settings.database_url
        return
    more = {"max_connections": str(max(100, 20 + settings.connections))} if settings.workers > 1 else {}
    postgres = EmbeddedPostgres(settings.data_dir, settings=more, log=log.info)
    try:
        dsn = await postgres.start()
    except EmbeddedPostgresError as error:
        raise click.ClickException(" ".join(str(error).split())) from None  # PostgreSQL's own words have many lines
    try:
        yield dsn
    finally:
        await postgres.stop()


@contextlib.contextmanager
def reached(dsn: str) -> Iterator[None]:
    """Stop with the reason when the block cannot use the database."""
    try:
        with explained(dsn):
            yield
    except (DatabaseUnusable, SchemaError, UnfitWay) as error:
        raise click.ClickException(str(error)) from None


async def migrated(dsn: str, partition_days: int | None = None) -> list[str]:
    """Bring the database up to date, or stop with the reason; what was done, a line each.

    `partition_days`: how many days new partitions span; None: as many as before.
    """
    with reached(dsn):
        await look_at_server(dsn)
        return await migrate(dsn, partition_days=partition_days)


async def prepared(settings: Settings, dsn: str) -> None:
    """Bring the database up to date and register what files define, or stop with the reason."""
    application = make_application(settings, dsn)
    for note in application.database.address.notes:
        log.warning("DATABASE_URL: %s", note)
    with reached(dsn):
        await application.check_way()  # before a migration: ATOMO_LISTEN_URL may lead elsewhere
    for line in await migrated(settings.listen_url or dsn, retention(settings).partition_days):
        log.info(line)
    with reached(dsn):
        try:
            await application.database.open()
            if told := await register_files(application.services, *folders(settings)):
                log.info(told)
        except BrokenFile as error:
            raise click.ClickException(str(error)) from None
        except Unavailable:
            raise
        except AtomoError as error:
            raise click.ClickException(f"the files that define workflows and actions: {error}") from None
        finally:
            await application.database.close()


def folders(settings: Settings) -> tuple[Path, Path]:
    """Where files define workflows, and bindings of actions; there need be no such folders."""
    return settings.workflows_dir or Path("workflows"), settings.actions_dir or Path("actions")


def make_application(settings: Settings, dsn: str) -> Application:
    """The parts of a server, or the reason why they cannot be put together."""
    try:
        return Application(settings, dsn)
    except ValueError as error:
        if not settings.broadcast_url:
            raise
        raise click.ClickException(f"ATOMO_BROADCAST_URL cannot be used: {error}") from None


async def start(application: Application) -> None:
    """Set the parts to work, or stop with the reason."""
    try:
        with reached(application.database.dsn):
            await application.start()
    except BaseException:
        await application.database.close()
        raise
