"""Running a server in this process, on a migrated database: its socket, uvicorn, and its end."""

import asyncio
import contextlib
import errno
import gc
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

import click
import uvicorn

from atomo_gql.api.heads import BoundedHeads
from atomo_gql.app import Application
from atomo_gql.cli.start import make_application, start
from atomo_gql.settings import Settings
from atomo_gql.store import warm

GRACE_SECS = 10
"""Seconds that requests under way have to end in, after the signal to stop."""

BACKLOG = 2_048
"""Connections that may wait to be accepted."""


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
        if self.force_exit:  # then uvicorn leaves requests and the application as they are
            tasks = list(self.server_state.tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def running(settings: Settings, dsn: str, listening: socket.socket | None = None) -> AsyncIterator[Running]:
    """A server on a migrated database, for the length of the block, or until `stop` ends its task.

    It listens where the settings say, unless it is given a socket.
    """
    application = make_application(settings, dsn)
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
        backlog=BACKLOG,
        timeout_graceful_shutdown=GRACE_SECS,
        timeout_keep_alive=75,
        lifespan="off",  # it would print a traceback of a start that fails
    )
    server = _Server(config)
    server.before_shutdown = application.let_nobody_wait
    # uvicorn would raise a signal again once it has ended, before the database is stopped; the caller sees to signals.
    server.capture_signals = contextlib.nullcontext  # type: ignore[assignment]
    await start(application)
    try:
        accept(listening, settings)
        async with _serving(server, listening) as task:
            warming = asyncio.create_task(warm.up(application.database))  # beside: signals are heeded from here on
            try:
                yield Running(url, application, server, task, warming)
            finally:
                warming.cancel()
                await asyncio.gather(warming, return_exceptions=True)
    finally:
        await application.stop()


@contextlib.asynccontextmanager
async def _serving(server: _Server, listening: socket.socket) -> AsyncIterator["asyncio.Task[None]"]:
    """The task of a server that has started, which ends with the block."""
    task = asyncio.create_task(server.serve(sockets=[listening]), name="uvicorn")
    started = asyncio.create_task(server.has_started.wait())
    try:
        await asyncio.wait({started, task}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
            raise click.ClickException("the server did not start; the lines above say why")
        yield task
    finally:
        # A signal may come while it starts; only a server that has started ends in order.
        await asyncio.wait({started, task}, return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        server.should_exit = True
        await task


def url_of(settings: Settings, listening: socket.socket) -> str:
    """Where the server is found."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{listening.getsockname()[1]}"


def listen(settings: Settings) -> socket.socket:
    """A socket that is bound to HOST and PORT, or the reason why there can be none. `accept` lets connections in."""
    host, port = settings.host, settings.port
    try:
        # Named as TCP, or asyncio would not turn Nagle's algorithm off, and every answer would wait 40 ms for its body.
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as error:  # no IPv6 here
        raise _cannot_listen(settings, error) from None
    if sys.platform == "win32":  # where SO_REUSEADDR would let two servers share one port
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    else:  # else the port could not be had for a minute after an earlier server
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, UnicodeError, TypeError) as error:
        listening.close()
        raise _cannot_listen(settings, error) from None
    listening.setblocking(False)
    return listening


def accept(listening: socket.socket, settings: Settings) -> None:
    """Let connections in; or say that another process, which was bound to the port as well, was faster."""
    try:
        listening.listen(BACKLOG)
    except OSError as error:
        raise _cannot_listen(settings, error) from None


def listen_nearby(settings: Settings) -> socket.socket:
    """A socket that lets connections in at the configured port, or at the next one that nobody has."""
    for port in range(settings.port, min(settings.port + 100, 65_536)):
        nearby = replace(settings, port=port)
        with contextlib.ExitStack() as stack:
            try:
                listening = stack.enter_context(listen(nearby))
                accept(listening, nearby)
            except PortTaken:
                continue
            stack.pop_all()
            return listening
    return listen(replace(settings, port=0))


class PortTaken(click.ClickException):
    """Another process listens there."""


def _cannot_listen(settings: Settings, error: OSError | UnicodeError | TypeError) -> click.ClickException:
    where = f"HOST {settings.host} PORT {settings.port} cannot be listened on"
    if not isinstance(error, OSError):  # it cannot even be asked for
        return click.ClickException(f"{where}: this is no name of a host")
    reason = f"{where}: {error.strerror or error}"
    if error.errno == errno.EADDRINUSE:
        return PortTaken(f"{reason}; end what listens there, or set PORT to another one")
    if error.errno in (errno.EACCES, errno.EPERM):
        return click.ClickException(f"{reason}; set PORT to 1024 or more, or give this user the right")
    return click.ClickException(f"{reason}; set HOST to an address of this machine, such as 127.0.0.1 or 0.0.0.0")


def calm_the_collector() -> None:
    """Nearly nothing here is a cycle, and a full collection with thousands of sockets open holds all of them up."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
