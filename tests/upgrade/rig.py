"""Servers of two versions on one database."""

import asyncio
import os
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from atomo_gql.embedded import EmbeddedPostgres
from tests.chaos.rig import Rig

_DRAIN_SECS = 30  # a server has ten seconds for requests under way
_COMMON_SETTINGS = {"max_connections": "200"}
_FAST_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
_CHANGING = re.compile(r"\S*\d\S*")
_TROUBLE = ("will be tried again", "[error", "[critical")


class TwoVersions(Rig):
    """A server whose name begins with "old" is one of the previous version; the others are of this one.

    All use the database that this process keeps running.
    """

    def __init__(self, folder: Path, python_of_previous: Path) -> None:
        super().__init__(folder)
        self._old = python_of_previous
        self.draining: set[str] = set()  # names of servers that were told to end

    @property
    def dsn(self) -> str:
        """The address of the database."""
        return self._dsn

    async def start_database(self, *, durable: bool) -> None:
        """An empty one. One that is not durable asks less of a busy machine's disk."""
        settings = _COMMON_SETTINGS | ({} if durable else _FAST_SETTINGS)
        self._postgres = EmbeddedPostgres(self.folder / "data", settings=settings)
        self._dsn = await self._postgres.start()
        self._environment["DATABASE_URL"] = self._dsn

    async def serve(self, name: str, **settings: str) -> None:
        """`atomo-gql serve` with these environment variables, until it is ready."""
        self.draining.discard(name)
        before = dict(self._environment)
        self._environment.update(settings)
        try:
            await self.start_server(name)
        finally:
            self._environment = before

    async def drain(self, *names: str) -> None:
        """SIGTERM to these servers, as a rolling upgrade does; each must end in good order.

        Raises:
            AssertionError: one of them did not end, or not with 0.
        """
        self.draining.update(names)
        for name in names:
            self._processes[name].terminate()
        for name in names:
            code = await asyncio.wait_for(self._processes[name].wait(), _DRAIN_SECS)
            assert code == 0, f"{name} ended with {code}\n{self.logs()}"

    async def run(self, version: str, *arguments: str) -> str:
        """What a command of a version's CLI ("old" or "new") prints; it must end with 0."""
        process = await asyncio.create_subprocess_exec(
            *self._program(version),
            *arguments,
            cwd=self.folder,
            env=self._variables(version),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        assert process.returncode == 0, f"{version} {arguments}: {out.decode()}"
        return out.decode()

    def troubles(self) -> list[str]:
        """What the servers' logs tell of things that failed, with how often, and without moments and ids."""
        # Version c8930df lets a subscription by SSE hold up its end for ten seconds, and then logs its cancelling.
        known = ("graceful shutdown exceeded", "Exception in ASGI application")
        found: Counter[str] = Counter()
        for file in sorted(self.folder.glob("*.log")):
            lines = file.read_text().splitlines()
            for number, line in enumerate(lines):
                if "Traceback" in line:  # what it ends with: the first line behind it that is not indented
                    line = next((later for later in lines[number + 1 :] if later[:1].strip()), line)
                elif not any(word in line for word in _TROUBLE):
                    continue
                if file.stem.startswith("old") and any(word in line for word in known):
                    continue
                found[f"{file.stem}: {_CHANGING.sub('…', line)[:300]}"] += 1
        return [f"{count} × {line}" for line, count in found.items()]

    async def _start(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = await asyncio.create_subprocess_exec(
                *self._program(name),
                *arguments,
                cwd=self.folder,
                env=self._variables(name),
                stdout=log,
                stderr=log,
            )

    def _program(self, name: str) -> list[Any]:
        return [self._old if name.startswith("old") else sys.executable, "-m", "atomo_gql"]

    def _variables(self, name: str) -> dict[str, str]:
        """The wheel of the previous version must not find this version's files."""
        if name.startswith("old"):
            return {key: value for key, value in self._environment.items() if key != "PYTHONPATH"}
        return {"PYTHONPATH": os.environ.get("PYTHONPATH", ""), **self._environment}
