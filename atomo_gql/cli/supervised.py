"""One of the processes of `atomo-gql serve --workers N`, as the supervisor starts it."""

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
from typing import Any

import click
from prometheus_client import values

FORCE_SECS = 20
"""Seconds in which a process ends in good order (requests under way, then connections), or by force."""

_REST_SECS = 0.001  # after each connection: more does not spread a burst any better


@click.command(hidden=True)
@click.argument("number", type=int)
@click.argument("listening", type=int)
@click.argument("link", type=int)
@click.argument("counts")
def main(number: int, listening: int, link: int, counts: str) -> None:
    """Serve on a socket that listens already, until a signal comes or the supervisor is gone.

    `listening` and `link` are inherited file descriptors; `counts` is the folder of everybody's metrics.
    """
    supervisor = socket.socket(fileno=link)
    threading.Thread(target=_end_with, args=(supervisor, counts), daemon=True).start()
    # Before the first metric is made. By number: whoever follows a dead process goes on with its counts.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = counts
    values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]
    _run(number, _inherited(listening), supervisor, counts)


def _run(number: int, listening: socket.socket, supervisor: socket.socket, counts: str) -> None:
    from atomo_gql.cli.host import calm_the_collector, running
    from atomo_gql.cli.logs import set_up_logs
    from atomo_gql.cli.signals import on_signals
    from atomo_gql.cli.start import run_or_exit, settings_or_exit
    from atomo_gql.service import metrics

    if not (told := sys.stdin.read()):  # the supervisor has just gone
        raise SystemExit(1)
    settings = settings_or_exit(json.loads(told))
    set_up_logs(settings, server=number)
    metrics.tell_sums(counts)

    async def serve() -> None:
        async with running(settings, settings.database_url or "", listening) as server:

            def end() -> None:
                # However often it is told (by a service manager that tells all, too): the supervisor alone forces.
                server.server.should_exit = True

            on_signals(end)
            calm_the_collector()
            with contextlib.suppress(OSError):  # the supervisor has just gone
                supervisor.send(b"\1")
            await server.task

    run_or_exit(settings, serve)


class _Shared(socket.socket):
    """Rests after each connection, for the others to take the next: else one takes all of a burst, and keeps them."""

    _rests_until = 0.0  # on the monotonic clock

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection, or `BlockingIOError`, which to asyncio means that none is there."""
        now = time.monotonic()
        if now < self._rests_until:
            raise BlockingIOError
        accepted = super().accept()
        self._rests_until = now + _REST_SECS
        return accepted


def _inherited(descriptor: int) -> socket.socket:
    found = socket.socket(fileno=descriptor)
    # Named as TCP, see host.listen; not every system tells.
    listening = _Shared(found.family, found.type, socket.IPPROTO_TCP, fileno=found.detach())
    listening.setblocking(False)
    return listening


def _end_with(supervisor: socket.socket, counts: str) -> None:
    """Wait for the end of the supervisor, however it ends; then end in good order, or by force.

    A thread, since the event loop may hang or not be there yet; before it is, SIGTERM simply ends the process.
    """
    with contextlib.suppress(OSError):
        supervisor.recv(1)  # nothing is ever sent: it returns when the other end is closed
    shutil.rmtree(counts, ignore_errors=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(FORCE_SECS)
    os._exit(1)


if __name__ == "__main__":
    main()
