"""What a server costs, seen from outside."""

import os
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(frozen=True, slots=True)
class Target:
    """A server that listens."""

    port: int
    pid: int

    def cpu_seconds(self) -> float:
        """What its process and the children of that have used so far; 0 where /proc does not say."""
        return sum(map(_cpu_seconds, (self.pid, *children(self.pid))))

    def resident_kib(self) -> int:
        """What these hold in memory; 0 where /proc does not say."""
        return sum(map(_resident_kib, (self.pid, *children(self.pid))))


def children(pid: int) -> list[int]:
    """Of a process; none where /proc does not say."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def _resident_kib(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024
