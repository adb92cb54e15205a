"""What `setup` leaves for the other commands, and how all of them speak."""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PORT = int(os.environ.get("BENCH_ATOMO_PORT", "54400"))
URL = f"http://127.0.0.1:{PORT}"


def kept(dsn: str) -> Path:
    """Where it is: JSON with the server's `pid`, a `jwt`, and a worker's `token`."""
    return Path(tempfile.gettempdir()) / f"atomo-peer-{urlsplit(dsn).path.strip('/')}.json"


def say(**fields: Any) -> None:
    """A line for the harness."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()
