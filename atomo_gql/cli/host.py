"""Running a server in this process: settings, database, migrations, uvicorn."""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import click
import structlog
import uvicorn

from atomo_gql.app import Application
from atomo_gql.domain.errors import Unavailable
from atomo_gql.embedded import EmbeddedPostgres, EmbeddedPostgresError
from atomo_gql.settings import Settings, SettingsError, load
from atomo_gql.store.migrations import SchemaError, migrate

log = logging.getLogger("atomo_gql.server")

_GRACE_SECS = 10


def settings_or_exit() -> Settings:
    """The settings, or a list of what is wrong with them."""
    try:
        return load()
    except SettingsError as error:
        raise click.ClickException(
            f"these settings are wrong:\n  {str(error).replace(chr(10), chr(10) + '  ')}"
        ) from None


def set_up_logs(settings: Settings) -> None:
    """Structured lines on standard error: for people, or as JSON."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    final: list[Any]
    if settings.log_format == "json":
        final = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        # The plain traceback shows no local variables: tokens and payloads are among them.
        plain: Any = structlog.dev.plain_traceback
        final = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[settings.log_level.upper()]))
    logging.getLogger("atomo_gql").setLevel(settings.log_level.upper())
    # uvicorn says so of every upgrade that is refused with an answer, which is in order.
    refused = "ASGI callable returned without completing handshake."
    logging.getLogger("uvicorn.error").addFilter(lambda record: record.getMessage() != refused)
    # asyncio says so of every write to a client that has gone, after the fifth.
    logging.getLogger("asyncio").addFilter(lambda record: record.getMessage() != "socket.send() raised exception.")


@contextlib.asynccontextmanager
async def database(settings: Settings) -> AsyncIterator[str]:
    """The address of the database: the one named, or an embedded one for the length of the block."""
    if settings.database_url:
        yield settings.database_url
        return
    postgres = EmbeddedPostgres(settings.data_dir, log=log.info)
    try:
        dsn = await postgres.start()
    except EmbeddedPostgresError as error:
        raise click.ClickException(str(error)) from None
    try:
        yield dsn
    finally:
        await postgres.stop()


async def migrated(dsn: str) -> None:
    """Bring the database up to date, or stop with the reason."""
    try:
        for line in await migrate(dsn):
            log.info(line)
    except SchemaError as error:
        raise click.ClickException(str(error)) from None
    except Unavailable as error:
        cause = error.__cause__
        raise click.ClickException(f"the database cannot be reached: {cause or error}") from None


@dataclass
class Running:
    """A server that answers."""

    url: str
    application: Application
    server: uvicorn.Server
    task: "asyncio.Task[None]"

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
    """Have this called at SIGINT and SIGTERM."""
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows
            asyncio.get_running_loop().add_signal_handler(number, callback)


@contextlib.asynccontextmanager
async def running(settings: Settings, dsn: str) -> AsyncIterator[Running]:
    """A server on a migrated database, for the length of the block, or until `stop` ends its task."""
    application = Application(settings, dsn)
    listening = _listen(settings.host, settings.port)
    port = listening.getsockname()[1]
    config = uvicorn.Config(
        application.asgi,
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=settings.max_body,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=None,
        backlog=2048,
        timeout_graceful_shutdown=_GRACE_SECS,
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
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        yield Running(f"http://{host}:{port}", application, server, task)
    finally:
        server.should_exit = True
        await task


def _listen(host: str, port: int) -> socket.socket:
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
