"""Starting PostgreSQL's programs: as the right user, and so that they end when this process is killed.

On Linux and macOS a small Python runs first, becomes the other user, asks for the signal and then turns into the
program. It is no `preexec_fn`, which may deadlock in a process with threads; and it changes the user itself, because
that user often may not enter the folder of this Python.
"""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from atomo_gql.embedded.account import Account
from atomo_gql.embedded.errors import EmbeddedPostgresError, gist, remedy

DIES_WITH_PARENT = sys.platform == "linux"
"""True where the kernel can signal a child when its parent dies (PR_SET_PDEATHSIG)."""

# The signal is asked for after the change of user, which would clear it; the modules are imported before it, for the
# other user may not be able to read them.
_WRAPPER = """
import ctypes, os, signal, sys
libc = ctypes.CDLL(None)
parent, uid, gid, death = map(int, sys.argv[1:5])
try:
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    os.umask(0o077)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if death:
        libc.prctl(1, death, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit(125)
    os.execv(sys.argv[5], sys.argv[5:])
except OSError as error:
    sys.exit(f"cannot run {sys.argv[5]} as uid {uid if uid >= 0 else os.getuid()}: {error}")
"""


def command(argv: Sequence[str | Path], account: Account | None, death_signal: int) -> list[str]:
    """`argv` as this system must start it: as `account`, with `death_signal` on the death of this process."""
    plain = [str(part) for part in argv]
    if sys.platform == "win32":
        return plain
    uid, gid = (account.uid, account.gid) if account else (-1, -1)
    death = death_signal if DIES_WITH_PARENT else 0
    return [sys.executable, "-I", "-S", "-c", _WRAPPER, str(os.getpid()), str(uid), str(gid), str(death), *plain]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what steers PostgreSQL, and with the variables `more`.

    PostgreSQL's programs are steered by PG…, by the locale and by the time zone of the shell. Their messages are in
    English, because they are read here.
    """
    steering = ("PG", "LC_", "LANG")
    kept = {name: value for name, value in os.environ.items() if name != "TZ" and not name.startswith(steering)}
    return kept | {"LC_ALL": "C"} | dict(more or {})


def run(
    argv: Sequence[str | Path],
    account: Account | None,
    *,
    text: str = "",
    timeout: float = 600,
    folder: Path | None = None,
    more: Mapping[str, str] | None = None,
) -> str:
    """Run a program to its end and return its standard output. Blocks.

    `text` is its input, `timeout` is in seconds, `folder` is its working folder (the root if none is given), and
    `more` are variables of its environment.

    Raises EmbeddedPostgresError with the end of what it printed.
    """
    name = Path(argv[0]).name
    try:
        done = subprocess.run(  # noqa: S603
            command(argv, account, signal.SIGTERM),
            input=text,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
            cwd=folder or Path(argv[0]).anchor,
            env=environment(more),
        )
    except subprocess.TimeoutExpired as error:
        raise EmbeddedPostgresError(
            f"{name} did not end within {timeout:.0f} s: is the disk very slow or hung?"
        ) from error
    except OSError as error:
        raise EmbeddedPostgresError(f"{name} cannot be run ({argv[0]}): {error.strerror or error}.") from error
    if done.returncode != 0:
        printed = done.stderr.strip() or done.stdout.strip()
        raise EmbeddedPostgresError(
            f"{name} failed ({ending(done.returncode)}). {remedy(printed)} It said: {gist(printed)}"
        )
    return done.stdout


def ending(code: int) -> str:
    """An exit code in words: "exit code 1", "signal SIGKILL"."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


class Child:
    """A running program of ours, in a session of its own so that Ctrl-C in the terminal does not reach it.

    A thread of its own starts it and waits for it: the kernel's signal on the death of the parent goes by the *thread*
    that started the child, and this one lives exactly as long as the child. No asyncio child watcher is needed either.
    """

    def __init__(
        self,
        argv: Sequence[str | Path],
        account: Account | None,
        output: BinaryIO,
        death_signal: int,
        more: Mapping[str, str] | None = None,
    ) -> None:
        """Start it, with `more` variables in its environment; returns within milliseconds.

        Must be called in a running event loop. Raises OSError.
        """
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._popen: subprocess.Popen[bytes] | None = None
        self._failure: OSError | None = None
        started = threading.Event()

        def live() -> None:
            try:
                self._popen = subprocess.Popen(  # noqa: S603
                    command(argv, account, death_signal),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=Path(argv[0]).anchor,
                    env=environment(more),
                    start_new_session=True,
                )
            except OSError as error:
                self._failure = error
                return
            finally:
                started.set()
            self._post(self._settle, self._popen.wait())

        threading.Thread(target=live, name="embedded-postgres", daemon=True).start()
        started.wait()
        if self._failure is not None:
            raise self._failure

    @property
    def pid(self) -> int:
        """The process id: the program's own, since the wrapper turns into it."""
        return self._popen.pid if self._popen else 0

    @property
    def ended(self) -> bool:
        """True when it has exited."""
        return self._ended.done()

    async def wait(self) -> int:
        """Wait for its end; returns its exit code, negative for a signal."""
        return await asyncio.shield(self._ended)

    async def ended_within(self, seconds: float) -> bool:
        """Wait for its end, at most `seconds`; returns whether it has ended."""
        await asyncio.wait({self._ended}, timeout=seconds)
        return self.ended

    def signal(self, number: int) -> None:
        """Send it a signal; nothing happens when it has ended."""
        if self._popen is not None:
            self._popen.send_signal(number)

    def _settle(self, code: int) -> None:
        if not self._ended.done():
            self._ended.set_result(code)

    def _post(self, call: Callable[[int], None], code: int) -> None:
        try:
            self._loop.call_soon_threadsafe(call, code)
        except RuntimeError:
            return  # the loop was closed before the program ended: nobody waits any more
