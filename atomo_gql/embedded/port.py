"""The port of the server: chosen once, remembered in a file, chosen anew when someone else has it."""

import secrets
import socket
import sys
from pathlib import Path

from atomo_gql.embedded.errors import EmbeddedPostgresError
from atomo_gql.embedded.files import write_private

# Below every system's range of ephemeral ports (32768 on Linux, 49152 elsewhere): while the server is down, one of the
# service's own attempts to reconnect could else be given this very port as its own end, and the server could not come
# back.
_LOWEST, _HIGHEST = 20000, 32000


def is_free(port: int) -> bool:
    """True when PostgreSQL could listen on 127.0.0.1:`port` now."""
    with socket.socket() as listener:
        if sys.platform != "win32":  # as PostgreSQL itself does; on Windows the option means to share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen(1)
        except OSError:
            return False
    return True


def remembered(file: Path) -> int | None:
    """The port in `file`, or None when there is no file or it holds no port."""
    try:
        port = int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return port if 1024 <= port <= 65535 else None


def choose(file: Path) -> int:
    """A free port: the remembered one when it still is, else a new one, which is written to `file`.

    Raises EmbeddedPostgresError when the file cannot be written or no port is free.
    """
    port = remembered(file)
    if port is not None and is_free(port):
        return port
    for _ in range(200):
        port = _LOWEST + secrets.randbelow(_HIGHEST - _LOWEST)
        if is_free(port):
            write_private(file, f"{port}\n")
            return port
    raise EmbeddedPostgresError(
        f"No free port was found on 127.0.0.1 between {_LOWEST} and {_HIGHEST}. Is the loopback network up? "
        "Or set DATABASE_URL to a PostgreSQL of your own."
    )
