"""Redis as the wire between replicas: a subscription that is watched, and made again when it is lost.

broadcaster's own Redis backend needs Redis at the start, and hears nothing more, without a word, when Redis is away for
longer than its client tries. Hints may be lost (docs/adr/0004): so this one starts without Redis, says once that it is
away and once that it is back, and tells the hub that it may have missed something in between.
"""

import asyncio
import contextlib
import logging
import random
from typing import Any

from broadcaster import BroadcastBackend, Event
from redis import asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

log = logging.getLogger("atomo_gql.realtime")

_START_SECS = 2.0  # the start waits so long to be heard at once where Redis is there
_ANSWER_SECS = 5.0  # Redis is away when it does not answer within these
_PING_SECS = 5.0  # between two pings of a subscription that hears nothing
_FIRST_PAUSE_SECS, _LAST_PAUSE_SECS = 0.1, 2.0  # before it is tried again


class RedisBackend(BroadcastBackend):
    """broadcaster's seam, on one channel of Redis."""

    def __init__(self, url: str, channel: str, gap: str) -> None:
        """`gap` is the message that stands for: some may have been missed.

        Raises:
            ValueError: the URL cannot be used.
        """
        self._client = redis.Redis.from_url(
            url, socket_connect_timeout=_ANSWER_SECS, socket_timeout=_ANSWER_SECS, retry=Retry(NoBackoff(), 0)
        )
        self._channel = channel
        self._gap = gap
        self._heard: asyncio.Queue[Event] = asyncio.Queue()
        self._hearing = asyncio.Event()
        self._has_tried = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Begin; returns once the channel is heard, or Redis turns out to be away."""
        self._task = asyncio.create_task(self._run(), name="redis hears")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_SECS):
                await self._has_tried.wait()

    async def disconnect(self) -> None:
        """End."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._client.aclose()

    async def subscribe(self, channel: str) -> None:
        """One fixed channel, heard from the start."""

    async def unsubscribe(self, channel: str) -> None:
        """One fixed channel, heard to the end."""

    async def publish(self, channel: str, message: Any) -> None:
        """Send a message; it is lost while Redis is away, which has been said."""
        if self._hearing.is_set():
            await self._client.publish(channel, message)

    async def next_published(self) -> Event:
        """The next message."""
        return await self._heard.get()

    async def _run(self) -> None:
        pause, is_away = _FIRST_PAUSE_SECS, False
        while True:
            try:
                async with self._client.pubsub() as subscription:
                    await self._begin(subscription)
                    if is_away:
                        log.info("Redis is back: hints between replicas go through it again")
                        self._heard.put_nowait(Event(self._channel, self._gap))
                    pause, is_away = _FIRST_PAUSE_SECS, False
                    self._hearing.set()
                    self._has_tried.set()
                    await self._hear(subscription)
            except Exception as error:  # whatever it is: the next try may do
                if not is_away:
                    log.warning(
                        "Redis (ATOMO_BROADCAST_URL) is away; hints between replicas are lost until it is back: %s",
                        str(error) or type(error).__name__,
                    )
                is_away = True
                self._has_tried.set()
            finally:
                self._hearing.clear()
            await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311  # jitter, not a secret
            pause = min(pause * 2, _LAST_PAUSE_SECS)

    async def _begin(self, subscription: Any) -> None:
        async with asyncio.timeout(_ANSWER_SECS):
            await subscription.subscribe(self._channel)
            while (await subscription.get_message(timeout=_ANSWER_SECS) or {}).get("type") != "subscribe":
                pass

    async def _hear(self, subscription: Any) -> None:
        """Pass on messages; raises when the connection is lost, or Redis does not answer a ping."""
        while True:
            message = await subscription.get_message(timeout=_PING_SECS)
            if message is None:
                await subscription.ping()
                message = await subscription.get_message(timeout=_ANSWER_SECS)
                if message is None:
                    raise TimeoutError("it does not answer")
            if message["type"] == "message":
                self._heard.put_nowait(Event(self._channel, message["data"].decode(errors="replace")))


async def ping(url: str, channel: str, message: str) -> float:
    """Publish a message and hear it; the seconds that takes.

    Raises:
        Exception: whatever Redis, its client or the network says; `TimeoutError` after some seconds.
    """
    loop = asyncio.get_running_loop()
    async with (
        asyncio.timeout(_ANSWER_SECS),
        redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0)) as client,
        client.pubsub() as subscription,
    ):
        await subscription.subscribe(channel)
        begin = loop.time()
        await client.publish(channel, message)
        while (await subscription.get_message(timeout=_ANSWER_SECS) or {}).get("data") != message.encode():
            pass
        return loop.time() - begin
