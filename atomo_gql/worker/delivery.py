"""Sending a report until the server has answered it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from atomo_gql.worker.backoff import Backoff
from atomo_gql.worker.errors import LeaseLost, Unavailable
from atomo_gql.worker.job import Job

logger = logging.getLogger("atomo_gql.worker")
_Answer = TypeVar("_Answer")


async def deliver(job: Job, what: str, send: Callable[[], Awaitable[_Answer]]) -> _Answer:
    """Call `send` until the server answers, with back-off between; it rides out any outage.

    what: names the report in the log. Raises LeaseLost and Refused as `send` does.
    """
    backoff = Backoff()
    unanswered = False
    while True:
        try:
            return await send()
        except Unavailable as error:
            pause = backoff.pause(error.retry_after)
            level = logging.DEBUG if unanswered else logging.WARNING
            logger.log(level, "%s: %s not taken yet (%s), sending it again", job.label, what, error)
            unanswered = True
        except LeaseLost as error:
            if unanswered:
                raise LeaseLost(f"{error}; an earlier answer was lost, so {what} may have arrived") from error
            raise
        await asyncio.sleep(pause)
