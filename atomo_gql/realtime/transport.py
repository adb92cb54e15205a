"""The wire between replicas: broadcaster, with backends of our own for PostgreSQL and Redis.

broadcaster's own PostgreSQL backend shares one connection between LISTEN and publish without a lock, and does not
notice when it is lost. This one publishes through the pool, listens on a watched connection, and says when it may have
missed something. Hints only: whoever hears one reads the truth from the store.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol

from broadcaster import Broadcast, BroadcastBackend, Event

CHANNEL = "atomo"
GAP = ""  # the message that stands for: some may have been missed


class Ear(Protocol):
    """Hears a channel of the database (store.listener.Listener)."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


class DatabaseBackend(BroadcastBackend):
    """broadcaster's seam, on NOTIFY and LISTEN."""

    def __init__(
        self,
        make_ear: Callable[[str, Callable[[str], None], Callable[[], None]], Ear],
        notify: Callable[[str, Sequence[str]], Awaitable[None]],
    ) -> None:
        self._heard: asyncio.Queue[Event] = asyncio.Queue()
        self._notify = notify
        self._ear = make_ear(CHANNEL, self._hear, lambda: self._hear(GAP))

    def _hear(self, message: str) -> None:
        self._heard.put_nowait(Event(CHANNEL, message))

    async def connect(self) -> None:
        await self._ear.start()

    async def disconnect(self) -> None:
        await self._ear.stop()

    async def subscribe(self, channel: str) -> None:
        """One fixed channel, heard from the start."""

    async def unsubscribe(self, channel: str) -> None:
        """One fixed channel, heard to the end."""

    async def publish(self, channel: str, message: Any) -> None:
        await self._notify(channel, [message])

    async def next_published(self) -> Event:
        return await self._heard.get()


class Transport:
    """Sends messages to every replica, this one included, and hears theirs."""

    def __init__(self, broadcast: Broadcast, *, most_bytes: int | None) -> None:
        """`most_bytes`: what one message may have; None: no limit."""
        self._broadcast = broadcast
        self.most_bytes = most_bytes

    async def send(self, message: str) -> None:
        """Publish one message; raises whatever the transport raises."""
        await self._broadcast.publish(CHANNEL, message)

    @contextlib.asynccontextmanager
    async def hear(self) -> AsyncIterator[AsyncIterator[str]]:
        """The messages from now on; "" stands for: some may have been missed."""
        async with self._broadcast, self._broadcast.subscribe(CHANNEL) as subscriber:

            async def messages() -> AsyncIterator[str]:
                while True:
                    event = await subscriber.get()
                    yield event.message

            yield messages()


def database_transport(
    make_ear: Callable[[str, Callable[[str], None], Callable[[], None]], Ear],
    notify: Callable[[str, Sequence[str]], Awaitable[None]],
) -> Transport:
    """Through the database: NOTIFY holds less than 8,000 bytes."""
    return Transport(Broadcast(backend=DatabaseBackend(make_ear, notify)), most_bytes=7_800)


def url_transport(url: str) -> Transport:
    """Through redis://…, or memory:// for one process alone.

    Raises:
        ValueError: the URL cannot be used.
    """
    if url.startswith("memory:"):
        return Transport(Broadcast(url), most_bytes=None)
    from atomo_gql.realtime.redis import RedisBackend  # only where it is used: the client takes its time to import

    return Transport(Broadcast(backend=RedisBackend(url, CHANNEL, GAP)), most_bytes=None)


async def round_trip(url: str) -> float:
    """Send a message through redis://… that says nothing, and hear it; the seconds that takes.

    Raises:
        Exception: whatever Redis, its client or the network says; `TimeoutError` after some seconds.
    """
    if url.startswith("memory:"):
        return 0.0
    from atomo_gql.realtime.redis import ping

    return await ping(url, CHANNEL, f'["{secrets.token_hex(6)}"]')
