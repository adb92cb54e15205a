"""Asking a port whether a PostgreSQL there takes connections: in recovery, too, the port is open."""

import asyncio
import struct
from enum import Enum, auto

_PROTOCOL_3 = 196608


class Answer(Enum):
    """What a port said."""

    READY = auto()
    """It asked for the password (or let us in): it takes connections."""
    NOT_NOW = auto()
    """A PostgreSQL that starts, recovers, stops or is full (57P03, 53300)."""
    NOT_POSTGRES = auto()
    """It spoke, but not this protocol, or fell silent."""
    CLOSED = auto()
    """Nothing listens there."""


async def probe(port: int, *, user: str = "postgres", database: str = "atomo", timeout: float = 5) -> Answer:
    """Open a connection to 127.0.0.1:`port`, begin the handshake and hang up at its first answer. Never raises.

    To hang up there leaves no line in PostgreSQL's log; a Terminate message would.

    `timeout` is in seconds, for the whole exchange.
    """
    try:
        async with asyncio.timeout(timeout):
            return await _converse(port, user, database)
    except ConnectionRefusedError:
        return Answer.CLOSED
    except (OSError, EOFError, TimeoutError):
        return Answer.NOT_POSTGRES


async def _converse(port: int, user: str, database: str) -> Answer:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(_startup_message(user, database))
        await writer.drain()
        kind = await reader.readexactly(1)
        if kind == b"R":
            return Answer.READY
        # A foreign server that answers in text has the letter 'E' too: a real error names its SQLSTATE.
        if kind == b"E":
            body = await reader.read(1000)
            return Answer.NOT_NOW if b"\0C" in body else Answer.NOT_POSTGRES
        return Answer.NOT_POSTGRES
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


def _startup_message(user: str, database: str) -> bytes:
    pairs = ("user", user, "database", database)
    body = struct.pack("!i", _PROTOCOL_3) + b"".join(word.encode() + b"\0" for word in pairs) + b"\0"
    return struct.pack("!i", len(body) + 4) + body
