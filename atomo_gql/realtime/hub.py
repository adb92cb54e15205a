"""The hub: takes in what happens to jobs, here and on other replicas, and hands it to whoever watches.

Publishers never wait. What they say is put out at once when the wire is idle, and gathers while it is not: of each
job only the newest word, of each queue one wake-up. A watcher has room for one word per job, so one that is slow skips
to the newest. Everything here is a hint that may be lost; `on_gap` and a look at the store now and then make up for it.
"""

import asyncio
import contextlib
import logging
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

import orjson

from atomo_gql.domain.jobs import JobStatus, Lane
from atomo_gql.domain.updates import JobUpdate
from atomo_gql.realtime.interest import ANNOUNCE_SECS, SETTLE_SECS, Want, Wants
from atomo_gql.realtime.transport import GAP, Transport

log = logging.getLogger("atomo_gql.realtime")

_LEAVE_SECS = 2.0  # for the wire to be closed in good order
_PAUSE_SECS = 0.01  # between two messages to the wire: coalesces bursts, and is below what anybody notices


class Mailbox:
    """What a watcher has not read yet: of each job the newest word, or None for «look it up»."""

    def __init__(self) -> None:
        self._news: dict[UUID, JobUpdate | None] = {}
        self._arrived = asyncio.Event()

    def put(self, job_id: UUID, update: JobUpdate | None) -> None:
        """Leave a word, in place of an older one about that job. A look-up that is due stays due."""
        if not (job_id in self._news and self._news[job_id] is None):
            self._news[job_id] = update
        self._arrived.set()

    def forget(self, job_id: UUID) -> None:
        """Throw away what was said of that job."""
        self._news.pop(job_id, None)

    async def take(self) -> list[tuple[UUID, JobUpdate | None]]:
        """Wait for news, and take them all, oldest job first."""
        while not self._news:
            self._arrived.clear()
            await self._arrived.wait()
        news, self._news = list(self._news.items()), {}
        return news


class Hub:
    """One per process."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._origin = secrets.token_hex(6)
        self._own_head = f'["{self._origin}"'
        self._watchers: defaultdict[UUID, set[Mailbox]] = defaultdict(set)
        self._count = 0
        self._on_wake: list[Callable[[Iterable[Lane]], None]] = []
        self._on_gap: list[Callable[[], None]] = []
        self._on_news: list[Callable[[], None]] = []
        self._wakes: dict[Lane, None] = {}
        self._updates: dict[UUID, JobUpdate | None] = {}  # None: look it up
        self._something = asyncio.Event()
        self.wants = Wants()
        self.wants.provide(Want.CHANGES, lambda: self._count > 0)
        self._announced = Want.NOTHING
        self._announce_now = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to hear and to send."""
        self.wants.unknown()
        hearing = asyncio.Event()
        self._tasks = [
            asyncio.create_task(self._hear(hearing), name="hub hears"),
            asyncio.create_task(self._send(), name="hub sends"),
            asyncio.create_task(self._announce(), name="hub announces"),
        ]
        waiting = asyncio.create_task(hearing.wait())
        await asyncio.wait({waiting, self._tasks[0]}, return_when=asyncio.FIRST_COMPLETED)
        if self._tasks[0].done():
            waiting.cancel()
            self._tasks[0].result()

    async def stop(self) -> None:
        """End; what has not been sent is lost, as a hint may be."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            # A wire that is away may not let itself be taken leave of.
            await asyncio.wait(self._tasks, timeout=_LEAVE_SECS)

    def on_wake(self, callback: Callable[[Iterable[Lane]], None]) -> None:
        """Have this called when jobs may have become eligible in these lanes."""
        self._on_wake.append(callback)

    def on_gap(self, callback: Callable[[], None]) -> None:
        """Have this called when hints from other replicas may have been missed."""
        self._on_gap.append(callback)

    def on_news(self, callback: Callable[[], None]) -> None:
        """Have this called when the state of any job may have changed, here or on another replica."""
        self._on_news.append(callback)

    @property
    def watchers(self) -> int:
        """How many pairs of a watcher and a job there are."""
        return self._count

    def watch(self, job_id: UUID, mailbox: Mailbox) -> None:
        """From now on, leave word of that job there."""
        self._watchers[job_id].add(mailbox)
        self._count += 1
        self.wanting(Want.CHANGES)

    def unwatch(self, job_id: UUID, mailbox: Mailbox) -> None:
        """No more."""
        self._watchers[job_id].remove(mailbox)
        self._count -= 1
        if not self._watchers[job_id]:
            del self._watchers[job_id]
        mailbox.forget(job_id)

    def wanting(self, want: Want) -> None:
        """This replica has such a want now: the others are told, if they do not know."""
        if want not in self._announced:
            self._announce_now.set()

    def wake(self, lanes: Iterable[Lane]) -> None:
        """Say that jobs may have become eligible there; after the commit."""
        lanes = list(lanes)
        for callback in self._on_wake:
            callback(lanes)
        self._tell_news()
        self._wakes.update(dict.fromkeys(lanes))
        self._something.set()

    def publish(self, update: JobUpdate) -> None:
        """Pass on a worker's progress; after the commit."""
        self._deliver(update.job_id, update)
        if self._updates.get(update.job_id, update) is not None:
            self._updates[update.job_id] = update
        self._something.set()

    def changed(self, job_ids: Iterable[UUID]) -> None:
        """Say that the state of these jobs changed; after the commit. Their watchers look them up."""
        is_wanted = Want.CHANGES in self.wants.of_others()
        if self._watchers or is_wanted:  # else nobody cares which they were
            job_ids = list(job_ids)
            self.look_again(job_ids)
        if is_wanted:
            self._updates.update(dict.fromkeys(job_ids))
        self._tell_news()
        self._something.set()

    def watched(self) -> list[UUID]:
        """The jobs that somebody here watches."""
        return list(self._watchers)

    def look_again(self, job_ids: Iterable[UUID]) -> None:
        """Have the watchers of these jobs look them up."""
        for job_id in job_ids:
            self._deliver(job_id, None)

    def _tell_news(self) -> None:
        for callback in self._on_news:
            callback()

    def _deliver(self, job_id: UUID, update: JobUpdate | None) -> None:
        for mailbox in self._watchers.get(job_id, ()):
            mailbox.put(job_id, update)

    async def _send(self) -> None:
        while True:
            await self._something.wait()
            self._something.clear()
            wakes, self._wakes = self._wakes, {}
            updates, self._updates = self._updates, {}
            wanted = self.wants.of_others()
            parts = self._parts(
                wakes if Want.WAKES in wanted else (),
                updates if Want.CHANGES in wanted else {},
                is_news=Want.NEWS in wanted,
            )
            for message in self._packed(parts):
                await self._publish(message)
            await asyncio.sleep(_PAUSE_SECS)

    async def _publish(self, message: str) -> None:
        try:
            await self._transport.send(message)
        except Exception as error:
            log.warning("a hint to other replicas was lost: %s", error)

    async def _announce(self) -> None:
        """Tell the others what is wanted here: at once when that is more, and again and again."""
        await self._publish(self._message([b'["?"]']))
        while True:
            self._announce_now.clear()
            own = self.wants.own()
            new, self._announced = own & ~self._announced, own
            if own or new:
                await self._publish(self._message([orjson.dumps(["w", int(own)])]))
            if new:  # what happened before the others knew
                asyncio.get_running_loop().call_later(SETTLE_SECS, self._catch_up, new)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANNOUNCE_SECS):
                    await self._announce_now.wait()

    def _catch_up(self, missed: Want) -> None:
        if Want.CHANGES in missed:
            self.look_again(self.watched())
        if Want.WAKES in missed:
            for callback in self._on_gap:
                callback()
        self._tell_news()

    def _parts(self, wakes: Iterable[Lane], updates: dict[UUID, JobUpdate | None], *, is_news: bool) -> list[bytes]:
        most = self._transport.most_bytes or 1_000_000
        parts: list[bytes] = [orjson.dumps(["q", *lane]) for lane in wakes]
        for job_id, update in updates.items():
            encoded = _encode(update) if update else b""
            # What is too large for the wire is looked up by those who want it.
            parts.append(encoded if encoded and len(encoded) <= most - 100 else orjson.dumps(["l", str(job_id)]))
        return parts or ([b'["n"]'] if is_news else [])

    def _message(self, parts: list[bytes]) -> str:
        [message] = self._packed(parts)
        return message

    def _packed(self, parts: list[bytes]) -> Iterable[str]:
        """In as few messages as the wire's limit allows."""
        most = self._transport.most_bytes or 1_000_000
        head = b'["' + self._origin.encode() + b'"'
        packed, size = [head], len(head)
        for part in parts:
            if size + len(part) + 2 > most:
                yield (b",".join(packed) + b"]").decode()
                packed, size = [head], len(head)
            packed.append(part)
            size += len(part) + 1
        if len(packed) > 1:
            yield (b",".join(packed) + b"]").decode()

    async def _hear(self, hearing: asyncio.Event) -> None:
        while True:
            try:
                async with self._transport.hear() as messages:
                    hearing.set()
                    async for message in messages:
                        self.take_in(message)
            except Exception as error:
                if not hearing.is_set():
                    raise
                log.warning("the wire between replicas broke, trying again: %s", error)
                await asyncio.sleep(1)
                self._gap()

    def take_in(self, message: str) -> None:
        """Act on a message from the wire, or from the database's channel where that is not the wire."""
        if message == GAP:
            self._gap()
            return
        if message.startswith(self._own_head):
            return
        try:
            origin, *parts = orjson.loads(message)
            is_ours = isinstance(origin, str)
        except (ValueError, TypeError):
            is_ours = False
        if not is_ours:  # a stranger's NOTIFY
            return
        lanes: list[Lane] = []
        is_news = False
        for part in parts:
            # Each by itself: what another version wrote, and this one cannot read, is no reason to miss the rest.
            with contextlib.suppress(ValueError, KeyError, TypeError, IndexError, AttributeError):
                is_news |= self._take_in_part(origin, part, lanes)
        if is_news:
            self._tell_news()
        if lanes:
            for callback in self._on_wake:
                callback(lanes)

    def _take_in_part(self, origin: str, part: Any, lanes: list[Lane]) -> bool:
        """Act on a part of a message, or add to the lanes to be woken; whether it says that something happened."""
        kind = part[0]
        if kind == "w":
            self.wants.heard(origin, int(part[1]))
        elif kind == "?":
            self._announce_now.set()
        elif kind == "q":
            tenant, queue = part[1], part[2]
            if isinstance(tenant, str) and isinstance(queue, str):
                lanes.append((tenant, queue))
        elif kind == "l":
            self._deliver(UUID(part[1]), None)
        elif kind == "u" and UUID(part[1]) in self._watchers:
            self._deliver(UUID(part[1]), _decoded_or_none(part))
        return kind in ("q", "l", "n")

    def _gap(self) -> None:
        self.wants.unknown()
        self._announce_now.set()
        self.look_again(self.watched())
        self._tell_news()
        for callback in self._on_gap:
            callback()


def _encode(u: JobUpdate) -> bytes:
    return orjson.dumps(["u", str(u.job_id), u.status, u.attempts, u.percent, u.message, u.data])


def _decoded_or_none(part: list[Any]) -> JobUpdate | None:
    """None, which stands for «look it up», for one that another version wrote."""
    try:
        return _decode(part)
    except (ValueError, TypeError):
        return None


def _decode(part: list[Any]) -> JobUpdate:
    _, job_id, status, attempts, percent, message, data = part
    return JobUpdate(
        job_id=UUID(job_id),
        status=JobStatus(status),
        attempts=attempts,
        percent=percent,
        message=message,
        data=data,
    )
