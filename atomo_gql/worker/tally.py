"""What a worker has done, for the line it says at its end."""

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """Counts of attempts, by how they ended."""

    succeeded: int = 0
    failed: int = 0  # and will be retried
    dead: int = 0
    handed_back: int = 0
    lost: int = 0
    began: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        seconds = time.monotonic() - self.began
        counts = [
            f"{count} {name}"
            for count, name in (
                (self.succeeded, "succeeded"),
                (self.failed, "failed"),
                (self.dead, "dead"),
                (self.handed_back, "handed back"),
                (self.lost, "lost"),
            )
            if count or name == "succeeded"
        ]
        ended = self.succeeded + self.failed + self.dead
        return f"{', '.join(counts)} in {seconds:.1f} s ({ended / max(seconds, 0.001):.1f} a second)"
