"""The rules of a server."""

import asyncio
import time
import uuid
from typing import Any

import aiohttp

from atomo_gql.conformance.peer import Job, Peer, other_lease
from atomo_gql.conformance.rules import RuleBook, Skipped, must, shown

SERVER: RuleBook[Peer] = RuleBook("S")
_RECLAIM_SECONDS = 90  # for a sweep to come: the longest interval that is tried for


@SERVER.rule("Without a token, with a wrong one, or with a JWT instead, nothing is leased or reported: 401")
async def _credentials(peer: Peer) -> None:
    body = {"queues": [peer.queue]}
    for token in ("", "wkr_" + "A" * 43, "x"):
        for path in ("/jobs/lease", f"/jobs/{uuid.uuid4()}/complete", "/jobs/reports"):
            status, _ = await peer.call(path, body, X_Worker_Token=token)
            must(status == 401, f"{path} with the token {token!r} answered {status}, not 401")


@SERVER.rule("A leased job has what was enqueued, its first attempt, and a lease")
async def _fields(peer: Peer) -> None:
    payload = {"n": 1, "text": "é😀", "list": [None, True, 1.5], "deep": {"a": {"b": []}}}
    job_id = await peer.enqueue(payload=payload, maxAttempts=3)
    job = await peer.lease_one()
    expected: dict[str, Any] = {"id": job_id, "queue": peer.queue, "kind": "conformance", "payload": payload}
    expected |= {"attempts": 1, "maxAttempts": 3}
    wrong = {name: job.get(name) for name, value in expected.items() if job.get(name) != value}
    must(not wrong, f"the lease has {shown(wrong)}")
    must(isinstance(job.get("leaseId"), str) and job["leaseId"], "the lease has no leaseId")
    await peer.report("complete", job, expect=204)


@SERVER.rule("No job is leased twice at a time, however many ask at once")
async def _disjoint(peer: Peer) -> None:
    made = [await peer.enqueue() for _ in range(20)]
    answers = await asyncio.gather(*(peer.lease(capacity=5, waitSecs=1) for _ in range(8)))
    jobs = [job for answer in answers for job in answer]
    ids = [job["id"] for job in jobs]
    must(len(ids) == len(set(ids)), f"{len(ids) - len(set(ids))} jobs were leased twice")
    must(set(ids) == set(made), f"20 jobs were queued, and {len(set(ids) & set(made))} of them leased")
    for job in jobs:
        await peer.report("complete", job, expect=204)


@SERVER.rule("Higher priority goes first, then whoever has been eligible longest")
async def _order(peer: Peer) -> None:
    made = [await peer.enqueue(priority=priority) for priority in (0, 5, 0, -3, 5)]
    jobs = await peer.lease(capacity=10)
    got = [made.index(job["id"]) for job in jobs if job["id"] in made]
    must(got == [1, 4, 0, 2, 3], f"jobs enqueued as 0 … 4 came in the order {got}, not [1, 4, 0, 2, 3]")
    for job in jobs:
        await peer.report("complete", job, expect=204)


@SERVER.rule("A lease never answers more than its capacity, which is 1 when not said, and clamped to 1–100")
async def _capacity(peer: Peer) -> None:
    for _ in range(4):
        await peer.enqueue()
    taken = []
    for fields, most in (({}, 1), ({"capacity": 0}, 1), ({"capacity": -7}, 1), ({"capacity": 10**9}, 100)):
        jobs = await peer.lease(**fields)
        must(0 < len(jobs) <= most, f"with {fields or 'no capacity'} it answered {len(jobs)} jobs")
        taken += jobs
    for job in taken:
        await peer.report("complete", job, expect=204)


@SERVER.rule("A long poll waits, answers empty when its time is up, and at once when a job comes")
async def _long_poll(peer: Peer) -> None:
    began = time.monotonic()
    must(await peer.lease(waitSecs=1) == [], "an empty queue gave a job")
    must(0.8 < (took := time.monotonic() - began) < 15, f"waitSecs 1 was answered after {took:.1f} s")
    waiting = asyncio.create_task(peer.lease(waitSecs=20))
    await asyncio.sleep(0.5)
    job_id = await peer.enqueue()
    began = time.monotonic()
    jobs = await waiting
    must(jobs and jobs[0]["id"] == job_id, f"a job came, and the long poll answered {shown(jobs)}")
    must((took := time.monotonic() - began) < 10, f"a job came, and the long poll answered {took:.1f} s later")
    await peer.report("complete", jobs[0], expect=204)


@SERVER.rule("Whoever hangs up on a long poll takes no job")
async def _hang_up(peer: Peer) -> None:
    body = {"queues": [peer.queue], "waitSecs": 30, "visibilitySecs": 60}
    for _ in range(3):
        timeout = aiohttp.ClientTimeout(total=0.5)
        headers = {"X-Worker-Token": peer.token}
        try:
            async with peer.http.post(f"{peer.url}/jobs/lease", json=body, headers=headers, timeout=timeout):
                pass
        except TimeoutError:
            pass
    await asyncio.sleep(0.5)
    await peer.enqueue(maxAttempts=1)
    job = await peer.lease_one()
    must(job["attempts"] == 1, f"the job comes with attempt {job['attempts']}, not 1")
    await peer.report("complete", job, expect=204)


@SERVER.rule("A report under a lease that is not the current one is 409, and changes nothing")
async def _stale(peer: Peer) -> None:
    job_id = await peer.enqueue()
    job = await peer.lease_one()
    for verb in ("heartbeat", "progress", "complete", "fail", "release"):
        await peer.report(verb, other_lease(job), expect=409)
    await peer.report("complete", {**job, "id": str(uuid.uuid4())}, expect=409)
    found = await peer.job(job_id)
    must(found["status"] == "leased", f"the job is {found['status']} after reports that were refused")
    await peer.report("complete", job, expect=204)


@SERVER.rule("Complete ends the job with its result; a second report on it is 409")
async def _complete(peer: Peer) -> None:
    job_id = await peer.enqueue()
    job = await peer.lease_one()
    await peer.report("progress", job, expect=204, percent=0.5, message="half", data={"n": 1})
    await peer.report("complete", job, expect=204, result={"n": [1, None]})
    found = await peer.job(job_id)
    must(found["status"] == "succeeded", f"the job is {found['status']}")
    must(found["result"] == {"n": [1, None]}, f"its result is {shown(found['result'])}")
    for verb in ("complete", "fail", "release", "heartbeat", "progress"):
        await peer.report(verb, job, expect=409)


@SERVER.rule("A failure waits 5·2^(attempts−1) s, at most an hour, and is dead when not retryable or out of attempts")
async def _fail(peer: Peer) -> None:
    job_id = await peer.enqueue()
    answer = await peer.report("fail", await peer.lease_one(), expect=200, error="boom")
    must(answer == {"outcome": "retry", "delaySecs": 5}, f"the first failure answered {shown(answer)}")
    must(await peer.lease() == [], "a job that waits for its retry was leased")
    found = await peer.job(job_id)
    must((found["status"], found["error"]) == ("queued", "boom"), f"the job is {found['status']}, {found['error']!r}")
    began = time.monotonic()
    [job] = await peer.lease(waitSecs=30) or [{}]
    must((job.get("id"), job.get("attempts")) == (job_id, 2), f"thirty seconds later the lease answered {shown(job)}")
    must(4 < (took := time.monotonic() - began) < 20, f"it was leased again after {took:.1f} s")
    await peer.report("complete", job, expect=204)
    for fields, said in (({"maxAttempts": 1}, {}), ({}, {"retryable": False})):
        job_id = await peer.enqueue(**fields)
        answer = await peer.report("fail", await peer.lease_one(), expect=200, error="end", **said)
        must(answer.get("outcome") == "dead", f"with {fields or said} a failure answered {shown(answer)}")
        must((await peer.job(job_id))["status"] == "dead", "and the job is not dead")


@SERVER.rule("Release queues the job at once, and costs no attempt")
async def _release(peer: Peer) -> None:
    await peer.enqueue(maxAttempts=1)
    for _ in range(3):
        job = await peer.lease_one()
        must(job["attempts"] == 1, f"after a release the job comes with attempt {job['attempts']}")
        await peer.report("release", job, expect=204)
    await peer.report("complete", await peer.lease_one(), expect=204)


@SERVER.rule("Heartbeat and progress move the deadline")
async def _heartbeat(peer: Peer) -> None:
    await peer.enqueue(maxAttempts=1)
    job = await peer.lease_one(visibilitySecs=4)
    for turn in range(4):
        await asyncio.sleep(1.5)
        await peer.report("progress" if turn % 2 else "heartbeat", job, expect=204, visibilitySecs=4)
    await peer.report("complete", job, expect=204)


@SERVER.rule("A lease that ran out is taken back: the attempt counts, and its late reports are 409")
async def _expiry(peer: Peer) -> None:
    await peer.enqueue(maxAttempts=2)
    late = await peer.lease_one(visibilitySecs=1)
    until = time.monotonic() + _RECLAIM_SECONDS
    jobs: list[Job] = []
    while not jobs and time.monotonic() < until:
        jobs = await peer.lease(waitSecs=5)
    must(jobs, f"it was not leased again within {_RECLAIM_SECONDS} s")
    must(jobs[0]["id"] == late["id"], "another job was in the queue")
    must(jobs[0]["attempts"] == 2, f"the next attempt is {jobs[0]['attempts']}, not 2")
    must(jobs[0]["leaseId"] != late["leaseId"], "the second lease has the id of the first")
    for verb in ("heartbeat", "complete", "fail"):
        await peer.report(verb, late, expect=409)
    await peer.report("complete", jobs[0], expect=204)


@SERVER.rule("What is malformed is a 400, 413 or 415 that says why, and changes nothing")
async def _malformed(peer: Peer) -> None:
    job_id = await peer.enqueue()
    job = await peer.lease_one()
    path, lease_id = f"/jobs/{job_id}/complete", job["leaseId"]
    bodies = [b"", b"x", b"[]", b"null", b"{}", b'{"leaseId": 7}', b'{"leaseId": "' + lease_id.encode() + b'"']
    bodies += [b'{"leaseId": "%s", "result": "a\\u0000b"}' % lease_id.encode()]
    bodies += [b'{"leaseId": "%s", "result": %s}' % (lease_id.encode(), b"[" * 10_000 + b"]" * 10_000)]
    for raw in bodies:
        status, answer = await peer.call(path, raw=raw)
        must(status == 400, f"complete with {shown(raw[:60])} answered {status} {shown(answer)}")
    leases: list[Any] = [{}, {"queues": []}, {"queues": "q"}, {"queues": [""]}]
    for body in [*leases, {"queues": [peer.queue], "visibilitySecs": 1.5}]:
        status, answer = await peer.call("/jobs/lease", body)
        must(status == 400, f"lease with {shown(body)} answered {status} {shown(answer)}")
    status, _ = await peer.call(path, {"leaseId": lease_id}, Content_Type="text/plain")
    must(status == 415, f"a body of text/plain answered {status}, not 415")
    must((await peer.job(job_id))["status"] == "leased", "a malformed report changed the job")
    await peer.report("complete", job, expect=204)


@SERVER.rule("A queue outside the token is 403")
async def _scope(peer: Peer) -> None:
    status, _ = await peer.call("/jobs/lease", {"queues": [f"not-{peer.queue}"]})
    if status == 200:
        raise Skipped("this token reaches every queue")
    must(status == 403, f"a queue outside the token answered {status}, not 403")
    status, _ = await peer.call("/jobs/lease", {"queues": [peer.queue, f"not-{peer.queue}"]})
    must(status == 403, f"a list with a queue outside the token answered {status}, not 403")


@SERVER.rule("The same requestId again gets the same leases, and never others")
async def _request_id(peer: Peer) -> None:
    for _ in range(4):
        await peer.enqueue()
    request = str(uuid.uuid4())
    first = await peer.lease(capacity=2, requestId=request)
    doubles = await asyncio.gather(*(peer.lease(capacity=2, requestId=request) for _ in range(3)))
    wanted = sorted((job["id"], job["leaseId"]) for job in first)
    must(len(wanted) == 2, f"four jobs were queued, and a lease of two answered {len(wanted)}")
    for again in doubles:
        got = sorted((job["id"], job["leaseId"]) for job in again)
        must(got == wanted, f"the same request got {shown(got)}, not {shown(wanted)}")
    for job in first:
        await peer.report("complete", job, expect=204)
    must(await peer.lease(capacity=2, requestId=request) == [], "repeated after its jobs had ended, it got others")
    await peer.clean()
    request = str(uuid.uuid4())
    must(await peer.lease(requestId=request) == [], "an empty queue gave a job")
    await peer.enqueue()
    must(await peer.lease(requestId=request) == [], "repeated after an empty answer, it got a job")
    await peer.clean()


@SERVER.rule("Of many reports in one request each has its own outcome")
async def _reports(peer: Peer) -> None:
    ids = [await peer.enqueue() for _ in range(4)]
    jobs = {job["id"]: job for job in await peer.lease(capacity=4)}
    done, failed, kept, back = (jobs[job_id] for job_id in ids)
    said = [
        {"type": "complete", "id": done["id"], "leaseId": done["leaseId"], "result": 1},
        {"type": "complete", "id": failed["id"], "leaseId": str(uuid.uuid4())},
        {"type": "fail", "id": failed["id"], "leaseId": failed["leaseId"], "retryable": False},
        {"type": "heartbeat", "id": kept["id"], "leaseId": kept["leaseId"]},
        {"type": "complete", "id": kept["id"]},
        {"type": "release", "id": back["id"], "leaseId": back["leaseId"]},
    ]
    status, answer = await peer.call("/jobs/reports", {"reports": said})
    must(status == 200, f"POST /jobs/reports answered {status} {shown(answer)}")
    outcomes = answer.get("outcomes", [])
    got = [outcome.get("status") for outcome in outcomes]
    must(got == [204, 409, 200, 204, 400, 204], f"the outcomes are {got}, not [204, 409, 200, 204, 400, 204]")
    must(outcomes[2].get("outcome") == "dead", f"the failure's outcome is {shown(outcomes[2])}")
    states = [(await peer.job(job_id))["status"] for job_id in ids]
    must(states == ["succeeded", "dead", "leased", "queued"], f"and the jobs are {states}")
    await peer.report("complete", kept, expect=204)
    await peer.clean()


@SERVER.rule("Reports ride on a lease, which then does not wait")
async def _riding(peer: Peer) -> None:
    first, second = await peer.enqueue(), await peer.enqueue()
    [job] = await peer.lease()
    must(job["id"] == first, "the first job was not the first")
    report = {"type": "complete", "id": first, "leaseId": job["leaseId"]}
    for expected in (second, None):
        began = time.monotonic()
        body = {"queues": [peer.queue], "waitSecs": 20, "reports": [report]}
        status, answer = await peer.call("/jobs/lease", body)
        must(status == 200, f"it answered {status} {shown(answer)}")
        must(time.monotonic() - began < 10, "a lease with reports waited")
        must([o.get("status") for o in answer.get("outcomes", [])] == [204], f"its outcomes: {shown(answer)}")
        got = [leased["id"] for leased in answer["jobs"]]
        must(got == ([expected] if expected else []), f"it leased {shown(got)}")
        if expected:
            report = {"type": "complete", "id": expected, "leaseId": answer["jobs"][0]["leaseId"]}


@SERVER.rule("retryAfterSecs takes the place of the back-off")
async def _retry_after(peer: Peer) -> None:
    await peer.enqueue()
    answer = await peer.report("fail", await peer.lease_one(), expect=200, error="429", retryAfterSecs=1)
    must(answer == {"outcome": "retry", "delaySecs": 1}, f"the failure answered {shown(answer)}")
    await peer.report("complete", await peer.lease_one(), expect=204)


@SERVER.rule("No heartbeat extends a lease beyond the job's timeoutSecs")
async def _timeout(peer: Peer) -> None:
    await peer.enqueue(timeoutSecs=3)
    job = await peer.lease_one()
    must(job.get("timeoutSecs") == 3, f"the lease has timeoutSecs {job.get('timeoutSecs')!r}")
    await peer.report("heartbeat", job, expect=204, visibilitySecs=60)
    await asyncio.sleep(3.3)
    for verb in ("heartbeat", "progress"):
        await peer.report(verb, job, expect=409, visibilitySecs=60)
