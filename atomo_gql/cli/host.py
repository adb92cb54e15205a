"""Running a server in this process: settings, database, migrations, uvicorn."""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import uvicorn

from atomo_gql.api.heads import BoundedHeads
from atomo_gql.app import Application, UnfitWay
from atomo_gql.domain.errors import Unavailable
from atomo_gql.embedded import EmbeddedPostgres, EmbeddedPostgresError
from atomo_gql.service.boot import BrokenFile, register_files
from atomo_gql.settings import Settings, SettingsError, load
from atomo_gql.store import warm
from atomo_gql.store.migrations import SchemaError, migrate

log = logging.getLogger("atomo_gql.server")

GRACE_SECS = 10
"""Seconds that requests under way have to end in, after the signal to stop."""


def settings_or_exit() -> Settings:
    """The settings, or a list of what is wrong with them."""
    try:
        return load()
    except SettingsError as error:
        raise click.ClickException(
            f"these settings are wrong:\n  {str(error).replace(chr(10), chr(10) + '  ')}"
        ) from None


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
        raise click.ClickException(str(error)) from None
    try:
        yield dsn
    finally:
        await postgres.stop()


@contextlib.contextmanager
def reached() -> Iterator[None]:
    """Stop with the reason when the block does not reach the database."""
    try:
        yield
    except Unavailable as error:
        cause = error.__cause__
        raise click.ClickException(f"the database cannot be reached: {cause or error}") from None


async def migrated(dsn: str) -> None:
    """Bring the database up to date, or stop with the reason."""
    try:
        with reached():
            for line in await migrate(dsn):
                log.info(line)
    except SchemaError as error:
        raise click.ClickException(str(error)) from None


async def prepared(settings: Settings, dsn: str) -> None:
    """Bring the database up to date and register what files define, or stop with the reason."""
    application = Application(settings, dsn)
    for note in application.database.address.notes:
        log.warning("DATABASE_URL: %s", note)
    folders = settings.workflows_dir or Path("workflows"), settings.actions_dir or Path("actions")
    try:
        await application.check_way()  # before a migration: ATOMO_LISTEN_URL may lead elsewhere
        await migrated(settings.listen_url or dsn)
        await application.database.open()
        if told := await register_files(application.services, *folders):
            log.info(told)
    except (BrokenFile, UnfitWay) as error:
        raise click.ClickException(str(error)) from None
    except Unavailable as error:
        raise click.ClickException(f"the database cannot be reached: {error.__cause__ or error}") from None
    finally:
        await application.database.close()


@dataclass
class Running:
    """A server that answers."""

    url: str
    application: Application
    server: uvicorn.Server
    task: "asyncio.Task[None]"
    warming: "asyncio.Task[None]"

    def stop(self) -> None:
        """Finish what is under way, and end; asked a second time, end at once."""
        self.server.force_exit = self.server.should_exit
        self.server.should_exit = True


class _Server(uvicorn.Server):
    """Answers those who wait before it closes the door: a long poll would hold it open."""

    before_shutdown: Callable[[], None] | None = None

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.has_started = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Says when it listens."""
        await super().startup(sockets)
        if self.started:
            self.has_started.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """At the first signal."""
        if self.before_shutdown:
            self.before_shutdown()
        await super().shutdown(sockets)


def on_signals(callback: Callable[[], None]) -> None:
    """Have this called at SIGINT, SIGTERM and, unless `nohup` has it ignored, SIGHUP."""
    with contextlib.suppress(NotImplementedError):  # Windows
        numbers = [signal.SIGINT, signal.SIGTERM]
        if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        for number in numbers:
            asyncio.get_running_loop().add_signal_handler(number, callback)


@contextlib.asynccontextmanager
async def running(settings: Settings, dsn: str, listening: socket.socket | None = None) -> AsyncIterator[Running]:
    """A server on a migrated database, for the length of the block, or until `stop` ends its task.

    It listens where the settings say, unless it is given a socket.
    """
    application = Application(settings, dsn)
    listening = listening or listen(settings)
    url = url_of(settings, listening)
    config = uvicorn.Config(
        application.asgi,
        http=BoundedHeads,
        ws="websockets-sansio",
        ws_max_size=settings.max_body,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=None,
        backlog=2048,
        timeout_graceful_shutdown=GRACE_SECS,
        timeout_keep_alive=75,
        lifespan="on",
    )
    server = _Server(config)
    server.before_shutdown = application.services.leases.room.close
    # uvicorn would raise a signal again once it has ended, before the database is stopped; the caller sees to signals.
    server.capture_signals = contextlib.nullcontext  # type: ignore[assignment]
    task = asyncio.create_task(server.serve(sockets=[listening]), name="uvicorn")
    started = asyncio.create_task(server.has_started.wait())
    await asyncio.wait({started, task}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        started.cancel()
        await task
        raise click.ClickException("the server did not start; the lines above say why")
    warming = asyncio.create_task(warm.up(application.database))  # beside: signals are heeded from here on
    try:
        yield Running(url, application, server, task, warming)
    finally:
        warming.cancel()
        await asyncio.gather(warming, return_exceptions=True)
        server.should_exit = True
        await task


def url_of(settings: Settings, listening: socket.socket) -> str:
    """Where the server is found."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{listening.getsockname()[1]}"


def listen(settings: Settings) -> socket.socket:
    """A socket at HOST and PORT, or the reason why there can be none."""
    host, port = settings.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, or asyncio would not turn Nagle's algorithm off, and every answer would wait 40 ms for its body.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise click.ClickException(
            f"HOST {host} PORT {port} cannot be listened on: {error.strerror or error}"
        ) from None
    listening.setblocking(False)
    return listening


def calm_the_collector() -> None:
    """Nearly nothing here is a cycle, and a full collection with thousands of sockets open holds all of them up."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
