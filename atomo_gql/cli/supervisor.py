"""Several server processes on one port: started, watched, started again, and ended together."""

import asyncio
import contextlib
import json
import logging
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import click
from prometheus_client.multiprocess import mark_process_dead

from atomo_gql.cli.signals import send
from atomo_gql.cli.supervised import FORCE_SECS
from atomo_gql.embedded.spawn import ending

log = logging.getLogger("atomo_gql.server")

_STEADY_SECS = 5  # a process that served for so long started well
_FIRST_PAUSE_SECS, _LAST_PAUSE_SECS = 0.1, 30.0  # before one is started again: doubled with each bad start
_TRIES = 3  # bad starts in a row of every process, after which there is no hope


@dataclass
class _Server:
    """One of the processes, and those that follow it under its number."""

    number: int  # from 1
    process: asyncio.subprocess.Process | None = None
    is_ready: bool = False
    bad_starts: int = 0  # in a row

    def send_signal(self, number: int) -> None:
        if self.process is not None:
            send(self.process, number)


class Supervisor:
    """Keeps fresh Python processes running (see supervised.py), which share a listening socket.

    Each holds one end of a socket pair, through which it says when it is ready, and which tells it by its closing that
    this process is gone, by SIGKILL too. Each is in a session of its own: Ctrl-C reaches it through this process alone.
    """

    def __init__(self, count: int, listening: socket.socket, settings: Mapping[str, str], counts: str) -> None:
        """`settings`: the text of each variable, for all of them; `counts` is a folder for the metrics of all."""
        self._servers = [_Server(number) for number in range(1, count + 1)]
        self._listening = listening
        self._settings = json.dumps(dict(settings)).encode()
        self._counts = counts
        self._stopping = asyncio.Event()
        self._is_hopeless = False
        self._on_ready: Callable[[], None] | None = None

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Have them run until `stop`; `on_ready` is called once, when all of them serve.

        Raises:
            ClickException: each has ended at its start again and again.
        """
        self._on_ready = on_ready
        async with asyncio.TaskGroup() as group:
            for server in self._servers:
                group.create_task(self._keep(server), name=f"server {server.number}")
        if self._is_hopeless:
            raise click.ClickException("the server processes do not stay up; the lines above say why")

    def stop(self) -> None:
        """Have them finish what is under way, and end; asked a second time, or after `FORCE_SECS`, at once."""
        if self._stopping.is_set():
            self._signal(signal.SIGKILL)
            return
        self._stopping.set()
        self._listening.close()  # the last one of them closes the door
        self._signal(signal.SIGTERM)
        asyncio.get_running_loop().call_later(FORCE_SECS, self._signal, signal.SIGKILL)

    def _signal(self, number: int) -> None:
        for server in self._servers:
            server.send_signal(number)

    async def _keep(self, server: _Server) -> None:
        while not self._stopping.is_set():
            try:
                ended = await self._live(server)
            except OSError as error:  # no process, or no descriptor, to be had just now
                ended = f"it cannot be started: {error.strerror or error}"
            if self._stopping.is_set():
                return
            if all(other.bad_starts >= _TRIES and not other.is_ready for other in self._servers):
                log.error("server %d: %s", server.number, ended)
                self._is_hopeless = True
                self.stop()
                return
            pause = min(_FIRST_PAUSE_SECS * 2**server.bad_starts, _LAST_PAUSE_SECS)
            log.error("server %d: %s; starting it again in %.1f s", server.number, ended, pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _live(self, server: _Server) -> str:
        """One process, from its start to its end; how it ended."""
        loop = asyncio.get_running_loop()
        server.bad_starts += 1  # until it proves good
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with ours:
            with theirs:
                process = await self._start(server, theirs)
            watch = loop.create_task(self._watch(server, ours))
            try:
                if self._stopping.is_set():
                    server.send_signal(signal.SIGTERM)
                code = await process.wait()
            finally:
                watch.cancel()
                server.send_signal(signal.SIGKILL)  # should this be cancelled
                server.process, server.is_ready = None, False
                await asyncio.gather(watch, return_exceptions=True)
        mark_process_dead(server.number, self._counts)  # type: ignore[no-untyped-call]
        return f"process {process.pid} has ended ({ending(code)})"

    async def _start(self, server: _Server, link: socket.socket) -> asyncio.subprocess.Process:
        inherited = (self._listening.fileno(), link.fileno())
        server.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "atomo_gql.cli.supervised"),
            *(str(server.number), *map(str, inherited), self._counts),
            stdin=asyncio.subprocess.PIPE,
            pass_fds=inherited,
            start_new_session=True,
        )
        # Not in its environment: secrets that came from files stay out of what the system shows of a process.
        if (stdin := server.process.stdin) is not None:
            with contextlib.suppress(OSError):  # it has just ended
                stdin.write(self._settings)
                await stdin.drain()
            stdin.close()
        return server.process

    async def _watch(self, server: _Server, link: socket.socket) -> None:
        """Note when it is ready, and when it has been for a while."""
        if not await asyncio.get_running_loop().sock_recv(link, 1):
            return
        server.is_ready = True
        if self._on_ready and all(other.is_ready for other in self._servers):
            self._on_ready()
            self._on_ready = None
        await asyncio.sleep(_STEADY_SECS)
        server.bad_starts = 0
