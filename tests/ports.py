"""Ports that are chosen first and listened on later."""

import random
import socket

_chance = random.SystemRandom()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses now.

    It is not one of those that the system takes for outgoing connections, so it is still free when it is listened on,
    or listened on again.
    """
    while True:
        port = _chance.randrange(10_000, 20_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
