"""A client of the protocol that says exactly what it is told to, and looks closely at the answers."""

import json
import uuid
from types import TracebackType
from typing import Any

import aiohttp

from atomo_gql.conformance.rules import Broken, Skipped, must, shown

Job = dict[str, Any]


class Peer:
    """A worker's token on one queue, and perhaps an application's to enqueue with.

    token, jwt: as they go into the headers. queue: where jobs are made; nobody else may work there meanwhile.
    """

    def __init__(self, url: str, token: str, jwt: str | None, queue: str) -> None:
        self.url = url.rstrip("/")
        self.token = token
        self.queue = queue
        self._jwt = jwt

    async def __aenter__(self) -> "Peer":
        timeout = aiohttp.ClientTimeout(total=90)
        self.http = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.close()

    async def call(self, path: str, body: Any = None, *, raw: bytes | None = None, **headers: str) -> tuple[int, Any]:
        """A POST of the worker plane: the status, and the JSON of the answer (None: it has no body)."""
        said = {"X-Worker-Token": self.token, "Content-Type": "application/json"}
        said |= {name.replace("_", "-"): value for name, value in headers.items()}
        data = raw if raw is not None else json.dumps(body).encode()
        async with self.http.post(self.url + path, data=data, headers={n: v for n, v in said.items() if v}) as answer:
            content = await answer.read()
            if answer.status >= 400:
                _check_problem(answer, content)
            if not content:
                return answer.status, None
            try:
                return answer.status, json.loads(content)
            except ValueError:
                raise Broken(f"POST {path} answered {answer.status} with what is no JSON: {shown(content)}") from None

    async def enqueue(self, **fields: Any) -> str:
        """A job of the kind "conformance"; its id."""
        if self._jwt is None:
            raise Skipped("no JWT to enqueue with: give --jwt or set ATOMO_TOKEN")
        body = {"queue": self.queue, "kind": "conformance", **fields}
        headers = {"Authorization": f"Bearer {self._jwt}"}
        async with self.http.post(f"{self.url}/jobs", json=body, headers=headers) as answer:
            content = await answer.text()
            must(answer.status == 201, f"POST /jobs answered {answer.status} {shown(content)}")
            return str(json.loads(content)["id"])

    async def job(self, job_id: str) -> Job:
        """As it stands."""
        headers = {"Authorization": f"Bearer {self._jwt}"}
        async with self.http.get(f"{self.url}/jobs/{job_id}", headers=headers) as answer:
            must(answer.status == 200, f"GET /jobs/{job_id} answered {answer.status}")
            found: Job = await answer.json()
            return found

    async def lease(self, **fields: Any) -> list[Job]:
        """Jobs."""
        status, answer = await self.call("/jobs/lease", {"queues": [self.queue], "visibilitySecs": 60, **fields})
        must(status == 200, f"POST /jobs/lease answered {status} {shown(answer)}")
        jobs = answer.get("jobs") if isinstance(answer, dict) else None
        must(isinstance(jobs, list), f"POST /jobs/lease answered without a list of jobs: {shown(answer)}")
        return list(jobs or [])

    async def lease_one(self, **fields: Any) -> Job:
        """The job that was just enqueued."""
        jobs = await self.lease(waitSecs=5, **fields)
        must(len(jobs) == 1, f"one job was queued, and the lease answered {len(jobs)}")
        return jobs[0]

    async def report(self, verb: str, job: Job, *, expect: int, **fields: Any) -> Any:
        """A report under the job's lease, which must be answered so."""
        status, answer = await self.call(f"/jobs/{job['id']}/{verb}", {"leaseId": job["leaseId"], **fields})
        must(status == expect, f"{verb} answered {status}, not {expect}: {shown(answer)}")
        return answer

    async def clean(self) -> None:
        """Take whatever is left, and end it."""
        while jobs := await self.lease(capacity=100):
            for job in jobs:
                await self.call(f"/jobs/{job['id']}/complete", {"leaseId": job["leaseId"]})


def other_lease(job: Job) -> Job:
    """The job under a lease that nobody has."""
    return {**job, "leaseId": str(uuid.uuid4())}


def _check_problem(answer: aiohttp.ClientResponse, content: bytes) -> None:
    where = f"the {answer.status} of {answer.url.path}"
    must(answer.status < 500, f"{where}: no input may cause a 5xx: {shown(content)}")
    must(answer.content_type == "application/problem+json", f"{where} is {answer.content_type}, not a problem document")
    problem = json.loads(content)
    for field in ("status", "title", "detail", "code"):
        must(field in problem, f"{where} has no {field}: {shown(problem)}")
