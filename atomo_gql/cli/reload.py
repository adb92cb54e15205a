"""Running a command anew whenever a source file changes: for development alone."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import click

from atomo_gql.cli.signals import ignore_signals

_LOOK_SECONDS = 0.5
_STOP_SECONDS = 40  # a worker drains before it ends


class Reloader:
    """Runs a command, and again after each change of a Python file under `folder`. SIGTERM and SIGINT are passed on."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self._command = command
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._is_told = False

    def run(self) -> int:
        """The status of the command when it was told to end, or has ended by itself."""
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._tell)
        try:
            return self._run()
        finally:
            ignore_signals()

    def _run(self) -> int:
        while not self._is_told:
            seen = self._stamps()
            # In a session of its own: a Ctrl-C reaches it through this process, and once.
            self._process = subprocess.Popen(self._command, start_new_session=True)  # noqa: S603  # our own command
            if self._is_told:  # between two processes
                self._process.terminate()
            while self._process.poll() is None and (self._is_told or self._stamps() == seen):
                time.sleep(_LOOK_SECONDS)
            code = self._process.poll()
            if code is None:
                self._stop(seen)
                continue
            status = code if code >= 0 else 128 - code  # as a shell says it
            if self._is_told or status == 0:
                return status
            click.echo(f"it ended with status {status}; waiting for a change", err=True)
            while self._stamps() == seen:
                if self._is_told:
                    return status
                time.sleep(_LOOK_SECONDS)
        return 0

    def _tell(self, number: int, _: FrameType | None) -> None:
        self._is_told = True
        if self._process is not None:
            self._process.send_signal(number)

    def _stop(self, seen: dict[Path, float]) -> None:
        changed = sorted({str(path.relative_to(self._folder)) for path, _ in self._stamps().items() ^ seen.items()})
        click.echo(f"{', '.join(changed[:3])} changed: starting anew", err=True)
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _stamps(self) -> dict[Path, float]:
        """When each source file was last changed."""
        stamps: dict[Path, float] = {}
        for folder, inner, files in os.walk(self._folder):
            inner[:] = [name for name in inner if not name.startswith(".") and not _is_foreign(Path(folder, name))]
            for path in (Path(folder, name) for name in files if name.endswith(".py")):
                with contextlib.suppress(OSError):  # it has just gone
                    stamps[path] = path.stat().st_mtime
        return stamps


def _is_foreign(folder: Path) -> bool:
    """Whether what is in it is not the program's own source: packages, or a virtual environment of any name."""
    return folder.name in ("node_modules", "__pycache__", "site-packages") or (folder / "pyvenv.cfg").exists()


def own_command(*arguments: str) -> list[str]:
    """This program again, with these arguments."""
    return [sys.executable, "-m", "atomo_gql", *arguments]
