"""Signals without a pause."""

import asyncio
import itertools
import signal

from atomo_gql.cli.signals import send


async def signalled_to_its_end(process: asyncio.subprocess.Process, *numbers: signal.Signals) -> int:
    """Send these signals in turn, until the process has ended; its status."""
    end = asyncio.create_task(process.wait())
    turns = itertools.cycle(numbers)
    async with asyncio.timeout(60):
        while not end.done():
            send(process, next(turns))
            await asyncio.wait({end}, timeout=0.001)
    return end.result()
