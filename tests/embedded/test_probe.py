"""The handshake that tells a server that takes connections from one that merely listens."""

import asyncio
import socket
import struct

import pytest

from atomo_gql.embedded.probe import Answer, probe


def error(state: str) -> bytes:
    body = b"SFATAL\0C" + state.encode() + b"\0Mnot now\0\0"
    return b"E" + struct.pack("!i", len(body) + 4) + body


@pytest.mark.parametrize(
    ("speech", "answer"),
    [
        (b"R" + struct.pack("!ii", 8, 10), Answer.READY),
        (error("57P03"), Answer.NOT_NOW),
        (error("53300"), Answer.NOT_NOW),
        (b"ERROR what do you want?\n", Answer.NOT_POSTGRES),
        (b"HTTP/1.1 400 Bad Request\r\n", Answer.NOT_POSTGRES),
        (b"", Answer.NOT_POSTGRES),
    ],
)
async def test_only_a_request_to_authenticate_means_ready(speech: bytes, answer: Answer) -> None:
    heard = bytearray()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (size,) = struct.unpack("!i", await reader.readexactly(4))
        heard.extend(await reader.readexactly(size - 4))
        writer.write(speech)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        assert await probe(server.sockets[0].getsockname()[1]) is answer
    assert heard == struct.pack("!i", 196608) + b"user\0postgres\0database\0atomo\0\0"


async def test_a_port_that_stays_silent_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert await probe(silent.getsockname()[1], timeout=0.05) is Answer.NOT_POSTGRES


async def test_a_closed_port_is_told_from_a_foreign_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    assert await probe(port) is Answer.CLOSED
