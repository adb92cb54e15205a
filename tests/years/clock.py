"""A clock that can be moved, for PostgreSQL and servers alike: libfaketime, preloaded into every process.

The harness itself keeps the real clock. Only the wall clock is moved; the monotonic one goes on, as on a real machine.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

_PLACES = (
    "/usr/lib/*/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
    "/usr/local/lib/faketime/libfaketime.so.1",
)


def library() -> Path | None:
    """libfaketime, or None where it is not installed."""
    found = (path for pattern in _PLACES for path in sorted(Path("/").glob(pattern[1:])))
    return next(found, None)


class Clock:
    """One machine's wall clock: the real one, and so much more or less."""

    def __init__(self, file: Path, offset: timedelta) -> None:
        """`file` is where the processes read the offset from."""
        self._file = file
        self.offset = timedelta()
        self.set(offset)

    @property
    def now(self) -> datetime:
        """What time the processes believe it is."""
        return datetime.now(UTC) + self.offset

    def set(self, offset: timedelta) -> None:
        """Have the processes' clocks differ from the real one by so much, from their next look on."""
        self.offset = offset
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{offset.total_seconds():+.0f}\n")
        fresh.chmod(0o644)
        fresh.replace(self._file)  # nobody reads half of it

    def move(self, by: timedelta) -> None:
        """Jump."""
        self.set(self.offset + by)

    def environment(self) -> dict[str, str]:
        """What a process must be started with."""
        preload = library()
        if preload is None:
            raise SystemExit("libfaketime is missing: apt-get install libfaketime")
        return {
            "LD_PRELOAD": str(preload),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
