"""atomo_gql behind the driver of a benchmark that runs many queues in turn, so that one run compares them.

    python -m atomo_gql.cli.bench.peer setup|enqueue|work '{"…": …}'

BENCH_DSN names an empty database. `setup` makes the schema and starts a server on it, which stays until the next
`setup`; `enqueue` and `work` speak to that server over HTTP, as everybody does. Each prints JSON objects, a line each:

    setup                                             {"ev": "ok"}
    enqueue {"mode": "one"|"batch"|"lat", "n": jobs, "c": at a time, "batch": per request, "start": first number,
             "every": seconds}                        {"ev": "enqueued", "n", "t0", "t1", "lat"}
    work    {"profile": "c1"|"c10"|"best"|"lat", "concurrency": jobs}
             {"ev": "ready"}, then {"ev": "p", "n", "first", "last"} each 50 ms, and at the end of standard input
             {"ev": "end", "n", "first", "last", "lat", "cost"}

Times are of the monotonic clock. `cost` is what a job took: requests, and µs of CPU in the worker and in the server.
"""

import asyncio
import json
import os
import sys
from importlib import import_module
from typing import Any


async def _main(command: str, asked: dict[str, Any]) -> None:
    if command not in ("setup", "enqueue", "work"):
        raise SystemExit(f"unknown command {command}")
    # Each imports what it needs itself: a drain begins with the first worker, while the others are still starting.
    await import_module(f"atomo_gql.cli.bench.peer.{command}").run(os.environ["BENCH_DSN"], asked)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}))
