"""The embedded PostgreSQL as the service sees it: start, stop, and a database that comes back by itself in between."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from atomo_gql.embedded import cluster, spawn, upgrade
from atomo_gql.embedded import port as ports
from atomo_gql.embedded.errors import EmbeddedPostgresError
from atomo_gql.embedded.files import Files
from atomo_gql.embedded.leftovers import end_leftovers, read_pid_file, remove_damaged_pid_file
from atomo_gql.embedded.lock import FileLock
from atomo_gql.embedded.place import locate, make_data_folder
from atomo_gql.embedded.postmaster import (
    PROGRESS_EVERY,
    READY_TIMEOUT,
    Adopted,
    Prepared,
    ServerDiedError,
    adopt,
    launch,
    shut_down,
)
from atomo_gql.embedded.prepare import prepare
from atomo_gql.embedded.probe import Answer, probe
from atomo_gql.embedded.runtime import remove_other_copies
from atomo_gql.embedded.spawn import Child, ending

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")
_LOOK_EVERY = 0.25  # seconds between two looks of a process that waits for the owner's server, or for its death
_PATIENCE = 60.0  # seconds a first start repeats what may pass (an earlier server's memory or port still in use)
# What a client would otherwise take from PGSSLMODE, PGSSLNEGOTIATION and PGTARGETSESSIONATTRS.
_FIXED = "sslmode=disable&sslnegotiation=postgres&target_session_attrs=any"
_FIRST_BACKOFF, _LAST_BACKOFF, _STEADY = 0.1, 30.0, 5.0  # seconds


class EmbeddedPostgres:
    """A PostgreSQL on 127.0.0.1 that lives as long as the processes that use its data folder.

    Of several processes on one folder the one with the lock owns the server: it starts it, and starts it again when it
    dies, on the same port. The others use it. When the owner ends, however it ends, its server ends too, and one of the
    others takes over within a second or two: connections break, as in any restart, and the DSN stays.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        settings: Mapping[str, str] | None = None,
        log: Callable[[str], None] = _logger.info,
    ) -> None:
        """Touches nothing yet.

        `data_dir` is made at the start if need be. `settings` are server settings (name to value) over our defaults,
        except for address, port, sockets and log, which are ours. `log` is called in the event loop with one line of
        text at a time.
        """
        self._folder = data_dir
        self._settings = dict(settings or {})
        self._log = log
        self._lock: FileLock | None = None
        self._home_lock: FileLock | None = None
        self._task: asyncio.Task[None] | None = None
        self._up: asyncio.Future[str] | None = None
        self._server: Child | Adopted | None = None
        self._prepared: Prepared | None = None
        self._port: int | None = None
        self._dsn: str | None = None

    @property
    def dsn(self) -> str:
        """postgresql://postgres:<password>@127.0.0.1:<port>/atomo?…, with all that PG… variables would else decide.

        Raises EmbeddedPostgresError when not started.
        """
        if self._dsn is None:
            raise EmbeddedPostgresError("The embedded PostgreSQL is not started: await start() first.")
        return self._dsn

    @property
    def owner(self) -> bool:
        """True while this process is the one that runs the server, not one that uses another's."""
        return self._lock is not None and self._lock.held

    async def start(self) -> str:
        """Have a server that takes connections, started here or by another process, and return its DSN.

        Takes well under a second, about two the first time, minutes after a crash of the machine. Starting what is
        started does nothing. Raises EmbeddedPostgresError; then, and when cancelled, nothing is left running.
        """
        if self._task is not None:
            return self.dsn
        self._up = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._supervise(self._up), name="embedded-postgres")
        try:
            return await asyncio.shield(self._up)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the server if this process owns it (else leave it alone), and the watch over it first.

        A clean shutdown with a checkpoint; if that takes more than a minute, a hard one, which loses nothing committed.
        """
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        if self._server is not None and self._prepared is not None:
            await shut_down(self._server, self._prepared, self._log)
        for lock in (self._home_lock, self._lock):
            if lock is not None:
                lock.release()
        self._server = self._prepared = self._home_lock = self._lock = self._port = self._dsn = self._up = None

    async def _supervise(self, up: asyncio.Future[str]) -> None:
        backoff = _FIRST_BACKOFF
        loop = asyncio.get_running_loop()
        while True:
            begin = loop.time()
            try:
                await self._serve(up)
            except Exception as error:
                # Before the first success it is start() that tells; afterwards the database must come back, whatever it
                # was.
                if not up.done():
                    up.set_exception(error)
                    return
                self._log(f"PostgreSQL is down: {error}")
            backoff = _FIRST_BACKOFF if loop.time() - begin > _STEADY else min(backoff * 2, _LAST_BACKOFF)
            self._log(f"starting PostgreSQL again in {backoff:.1f} s")
            await asyncio.sleep(backoff)

    async def _serve(self, up: asyncio.Future[str]) -> None:
        """Use another process's server as long as there is one, then run one here; returns when that has ended."""
        if self._lock is None:
            data = await _in_thread(lambda: make_data_folder(self._folder))
            self._lock = FileLock(locate(data).lock)
            self._folder = data
        if not self._lock.acquire():
            await self._follow(self._lock, up)
            self._log("the process that ran PostgreSQL has ended: this one takes over")
        tell = self._log_from_thread()
        prepared = await _in_thread(lambda: prepare(self._folder, tell, may_make=not up.done()))
        self._prepared = prepared
        self._lock_home(prepared.files)
        server: Child | Adopted | None = None if spawn.DIES_WITH_PARENT else await adopt(prepared)
        if isinstance(server, Adopted):
            self._port = server.port
        else:
            server = await self._start_one(prepared, first=not up.done())
        self._server = server
        self._tell_ready(up, f"PostgreSQL is ready on 127.0.0.1:{self._port} (pid {server.pid})")
        code = await server.wait()
        self._server = None
        self._log(f"PostgreSQL has ended by itself ({ending(code)})")

    def _lock_home(self, files: Files) -> None:
        """Lock a cluster that is not in the data folder: a copy of the data folder names the same one."""
        if files.home == files.data or self._home_lock is not None:
            return
        lock = FileLock(files.home / "postgres.lock")
        if not lock.acquire():
            raise EmbeddedPostgresError(
                f"The database in {files.home} is in use by a process with another data folder, of which {files.data} "
                "seems to be a copy. Set ATOMO_DATA_DIR to another folder, or end that process."
            )
        self._home_lock = lock

    async def _start_one(self, prepared: Prepared, *, first: bool) -> Child:
        """Start a server, repeating what may pass. The port may change only at the first start."""
        tell = self._log_from_thread()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE
        while True:
            await end_leftovers(prepared.files.cluster, self._log)
            prepared = self._prepared = await _in_thread(partial(_made_startable, prepared, tell))
            if self._port is None:
                self._port = ports.choose(prepared.files.port)
            try:
                return await launch(prepared, self._port, self._settings, self._log)
            except ServerDiedError as error:
                if not first or not error.may_pass or loop.time() > deadline:
                    raise
                if error.port_taken:
                    self._port = None
                self._log(f"trying again to start PostgreSQL: {error}")
            await asyncio.sleep(0.5)

    async def _follow(self, lock: FileLock, up: asyncio.Future[str]) -> None:
        """Wait for another process's server, then for the end of that process; returns with the lock taken.

        Raises EmbeddedPostgresError when that server does not come up in time.
        """
        loop = asyncio.get_running_loop()
        begin = loop.time()
        tell = begin + PROGRESS_EVERY
        while not lock.acquire():
            found = read_pid_file(locate(self._folder).cluster)
            if found and found.ready and found.port != self._port and await probe(found.port) is Answer.READY:
                self._port = found.port
                self._tell_ready(
                    up, f"using the PostgreSQL of another process on 127.0.0.1:{found.port} (pid {found.pid})"
                )
            elif not up.done() and loop.time() > begin + READY_TIMEOUT:
                raise EmbeddedPostgresError(
                    f"Another process holds {self._folder / 'postgres.lock'}, but for {READY_TIMEOUT:.0f} s no "
                    "PostgreSQL of it was to be reached on 127.0.0.1. If it runs in another container, give each its "
                    "own ATOMO_DATA_DIR, or one DATABASE_URL to both; if it hangs, end it."
                )
            elif not up.done() and loop.time() > tell:
                tell = loop.time() + PROGRESS_EVERY
                self._log(f"waiting for the PostgreSQL of another process ({loop.time() - begin:.0f} s so far)")
            await asyncio.sleep(_LOOK_EVERY)

    def _tell_ready(self, up: asyncio.Future[str], line: str) -> None:
        secret = quote(cluster.read_password(locate(self._folder).password), safe="")
        dsn = f"postgresql://{cluster.USER}:{secret}@127.0.0.1:{self._port}/{cluster.DATABASE}?{_FIXED}"
        if self._dsn not in (None, dsn):
            self._log(
                "the port or password of PostgreSQL has changed: connections made with the old DSN must be made anew"
            )
        self._dsn = dsn
        self._log(line)
        if not up.done():
            up.set_result(dsn)

    def _log_from_thread(self) -> Callable[[str], None]:
        """The log, for code in another thread."""
        loop = asyncio.get_running_loop()

        def tell(line: str) -> None:
            loop.call_soon_threadsafe(self._log, line)

        return tell


def _made_startable(prepared: Prepared, log: Callable[[str], None]) -> Prepared:
    """Mend what would keep a server from starting on a cluster that nobody runs on. Blocks."""
    files = prepared.files
    remove_damaged_pid_file(files.cluster, log)
    fitted = upgrade.fitting(prepared, log)
    remove_other_copies(files.runtime, fitted.binaries)
    cluster.password(files, fitted.binaries, fitted.account, log)
    return fitted


async def _in_thread(work: Callable[[], _T]) -> _T:
    """Run blocking work in a thread. When cancelled, wait for its end all the same: the lock must be held that long."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
