"""Replicas without their loops."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.parts import Replica, replica_on

MakeReplica = Callable[..., Awaitable[Replica]]


@pytest.fixture
async def make_replica(dsn: str) -> AsyncIterator[MakeReplica]:
    """One more replica on the test's database."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(**settings: Any) -> Replica:
            return await stack.enter_async_context(replica_on(dsn, **settings))

        yield make


@pytest.fixture
async def replica(make_replica: MakeReplica) -> Replica:
    """A replica on the test's database."""
    return await make_replica()
