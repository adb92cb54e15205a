"""The client for code without an event loop."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from atomo_gql.client.aio import AsyncClient

Result = TypeVar("Result")


class Client:
    """AsyncClient's methods, blocking; a context manager, to be used from any number of threads.

    An event loop in a thread of its own does the work, so the two never differ.
    """

    def __init__(
        self, url: str | None = None, token: str | None = None, *, tenant: str | None = None, timeout: float = 30.0
    ) -> None:
        self._client = AsyncClient(url, token, tenant=tenant, timeout=timeout)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="atomo-client", daemon=True)

    def __enter__(self) -> "Client":
        self._thread.start()
        self._run(self._client.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._client.__aexit__(kind, error, trace))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def enqueue(self, queue: str, kind: str, *payload: Any, **fields: Any) -> str:
        """As AsyncClient.enqueue."""
        return self._run(self._client.enqueue(queue, kind, *payload, **fields))

    def enqueue_many(self, jobs: Sequence[Mapping[str, Any]]) -> list[str]:
        """As AsyncClient.enqueue_many."""
        return self._run(self._client.enqueue_many(jobs))

    def get(self, job_id: str) -> dict[str, Any]:
        """As AsyncClient.get."""
        return self._run(self._client.get(job_id))

    def cancel(self, job_id: str, reason: str | None = None) -> None:
        """As AsyncClient.cancel."""
        self._run(self._client.cancel(job_id, reason))

    def retry(self, job_id: str) -> None:
        """As AsyncClient.retry."""
        self._run(self._client.retry(job_id))

    def watch(self, job_id: str) -> Iterator[dict[str, Any]]:
        """As AsyncClient.watch."""
        updates = self._client.watch(job_id)
        try:
            while (update := self._run(_next(updates))) is not None:
                yield update
        finally:
            self._run(updates.aclose())  # type: ignore[attr-defined]

    def wait(self, job_id: str, timeout: float | None = None) -> dict[str, Any]:
        """As AsyncClient.wait."""
        return self._run(self._client.wait(job_id, timeout))

    def result(self, job_id: str, timeout: float | None = None) -> Any:
        """As AsyncClient.result."""
        return self._run(self._client.result(job_id, timeout))

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        if not self._thread.is_alive():
            work.close()
            raise RuntimeError("use it as a context manager: with Client(…) as jobs")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _next(updates: Any) -> dict[str, Any] | None:
    return await anext(updates, None)
