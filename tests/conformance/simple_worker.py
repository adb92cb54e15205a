"""A worker written from docs/worker-protocol.md alone, with the simple calls; and broken ones: BUG names one."""

import asyncio
import json
import os
import random
import signal
import sys
import uuid
from typing import Any

import aiohttp

BUG = os.environ.get("BUG", "")
URL, TOKEN = os.environ["ATOMO_URL"], os.environ["ATOMO_WORKER_TOKEN"]
QUEUES = os.environ["ATOMO_QUEUES"].split(",")
CONCURRENCY = int(os.environ["ATOMO_CONCURRENCY"])
VISIBILITY = int(os.environ["ATOMO_VISIBILITY_SECS"])
DRAIN = float(os.environ["ATOMO_DRAIN_SECS"])
WAIT = 20


class Fatal(Exception):
    """Not worth another attempt."""


class Refused(Exception):
    """Answered 400 or 413: the same body again would be, too."""


class Over(Exception):
    """Answered 409."""


class Worker:
    """Leases one lot after another, and runs each job in a task."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self.http = http
        self.stopping = asyncio.Event()
        self.tasks: dict[asyncio.Task[None], Any] = {}

    async def call(self, path: str, body: Any, *, seconds: float = 30) -> Any:
        """Until it is answered."""
        bound = 0.1
        while True:
            pause = random.uniform(0, bound)
            bound = min(2 * bound, 15)
            try:
                url = f"{URL}{path}" + (f"?token={TOKEN}" if BUG == "token in the URL" else "")
                async with self.http.post(url, json=body, timeout=aiohttp.ClientTimeout(total=seconds)) as answer:
                    content = await answer.read()
                    if answer.status < 300:
                        return json.loads(content) if content else None
                    if answer.status == 409:
                        raise Over
                    if answer.status in (401, 403):
                        sys.exit(1)
                    if answer.status < 500 and answer.status not in (404, 405, 429):
                        if BUG == "stops at 413":
                            sys.exit(1)
                        raise Refused(f"{answer.status} {content!r}")
                    pause += float(answer.headers.get("Retry-After", 0))
            except (aiohttp.ClientError, TimeoutError):
                pass
            if BUG == "tries once" and not path.endswith("/lease"):
                return None
            await asyncio.sleep(0 if BUG == "hot loop" else pause)
            if BUG == "new request id" and "requestId" in body:
                body = {**body, "requestId": str(uuid.uuid4())}

    async def run(self) -> None:
        """Until SIGTERM."""
        leasing = asyncio.create_task(self.lease())
        await self.stopping.wait()
        await asyncio.sleep(0.25)
        leasing.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=DRAIN)
        if BUG == "leaves its jobs":
            return
        for task, job in list(self.tasks.items()):
            task.cancel()
            await self.report("release", job)

    async def lease(self) -> None:
        """One request at a time, for the room that is free."""
        while not self.stopping.is_set():
            if len(self.tasks) >= CONCURRENCY and BUG != "no limit":
                await asyncio.wait(self.tasks, return_when=asyncio.FIRST_COMPLETED)
                continue
            body = {
                "queues": QUEUES,
                "capacity": 100 if BUG == "no limit" else CONCURRENCY - len(self.tasks),
                "visibilitySecs": VISIBILITY,
                "waitSecs": WAIT,
                "requestId": str(uuid.uuid4()),
            }
            answer = await self.call("/jobs/lease", body, seconds=WAIT + 10)
            for job in answer["jobs"]:
                task = asyncio.create_task(self.work(job))
                self.tasks[task] = job
                task.add_done_callback(lambda task: self.tasks.pop(task, None))
            if not answer["jobs"]:
                await asyncio.sleep(0.5)

    async def work(self, job: Any) -> None:
        """A job, its heartbeats beside it."""
        handler = asyncio.create_task(self.handle(job))
        heartbeats = asyncio.create_task(self.heartbeat(job, handler))
        try:
            result = await asyncio.wait_for(handler, job["timeoutSecs"])
        except asyncio.CancelledError:
            heartbeats.cancel()
            if BUG == "deaf to 409":
                await self.report("complete", job)
            return
        except Exception as error:
            is_final = isinstance(error, Fatal) or BUG == "never retryable"
            await self.report("fail", job, error=f"{type(error).__name__}: {error}", retryable=not is_final)
        else:
            said = {} if BUG == "drops results" else {"result": result}
            try:
                arrived = await self.report("complete", job, **said)
            except Refused as error:
                arrived = await self.report("fail", job, error=f"the result was refused: {error}", retryable=False)
            if not arrived and BUG == "fails after 409":
                await self.report("fail", job, error="the lease was lost")
        heartbeats.cancel()

    async def handle(self, job: Any) -> Any:
        """By its kind."""
        payload = job["payload"]
        match job["kind"].removeprefix("conformance."):
            case "echo":
                return payload
            case "sleep":
                await asyncio.sleep(payload["seconds"])
                return payload
            case "fail":
                raise RuntimeError(payload["message"])
            case "fatal":
                raise Fatal(payload["message"])
            case kind:
                raise (RuntimeError if BUG == "retries the unknown" else Fatal)(f"no handler for {kind}")

    async def heartbeat(self, job: Any, handler: "asyncio.Task[Any]") -> None:
        """Each third of the visibility."""
        while BUG != "no heartbeat":
            await asyncio.sleep(VISIBILITY / 3)
            try:
                await self.call(
                    f"/jobs/{job['id']}/heartbeat", {"leaseId": job["leaseId"], "visibilitySecs": VISIBILITY}
                )
            except Over:
                handler.cancel()
                return

    async def report(self, verb: str, job: Any, **fields: Any) -> bool:
        """Whether it was taken."""
        try:
            await self.call(f"/jobs/{job['id']}/{verb}", {"leaseId": job["leaseId"], **fields})
        except Over:
            return False
        return True


async def main() -> None:
    """Run until SIGTERM."""
    async with aiohttp.ClientSession(headers={"X-Worker-Token": TOKEN}) as http:
        worker = Worker(http)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stopping.set)
        await worker.run()


asyncio.run(main())
