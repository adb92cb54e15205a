"""Many reports in one request, each with its own outcome; and reports that ride on a lease."""

import uuid
from typing import Any

import pytest

from tests.conftest import MakeServer, Server, WorkerClient


def report(type_: str, job: Any, **fields: Any) -> dict[str, Any]:
    """One entry of the list."""
    return {"type": type_, "id": job["id"], "leaseId": job["leaseId"], **fields}


async def _reports(worker: WorkerClient, *reports: Any) -> list[Any]:
    status, answer = await worker.call("/jobs/reports", {"reports": list(reports)})
    assert status == 200, answer
    outcomes: list[Any] = answer["outcomes"]
    return outcomes


async def test_each_report_has_its_own_outcome(server: Server) -> None:
    worker = await server.mint("q")
    ids = [await server.enqueue() for _ in range(6)]
    jobs = await worker.lease("q", capacity=6)

    outcomes = await _reports(
        worker,
        report("complete", jobs[0], result={"n": 1}),
        {**report("complete", jobs[1]), "leaseId": str(uuid.uuid4())},
        report("fail", jobs[2], error="boom"),
        report("release", jobs[3]),
        report("heartbeat", jobs[4], visibilitySecs=60),
        report("progress", jobs[5], percent=0.5, message="half"),
        report("fail", jobs[1], error="no", retryable=False),
    )

    assert [o["id"] for o in outcomes] == [jobs[n]["id"] for n in (0, 1, 2, 3, 4, 5, 1)]
    assert [o["status"] for o in outcomes] == [204, 409, 200, 204, 204, 204, 200]
    assert outcomes[1]["code"] == "LEASE_LOST"
    assert outcomes[2] == {"id": jobs[2]["id"], "status": 200, "outcome": "retry", "delaySecs": 5}
    assert outcomes[6] == {"id": jobs[1]["id"], "status": 200, "outcome": "dead"}
    found = [await server.job(job_id) for job_id in ids]
    assert [j["status"] for j in found] == ["succeeded", "dead", "queued", "queued", "leased", "leased"]
    assert [j["attempts"] for j in found] == [1, 1, 1, 0, 1, 1]
    assert found[0]["result"] == {"n": 1}
    assert found[5]["progress"] == {"percent": 0.5, "message": "half", "data": None}


async def test_several_heartbeats_of_one_lease_in_a_list_are_all_accepted(server: Server, sql: Any) -> None:
    worker = await server.mint("q")
    await server.enqueue()
    [job] = await worker.lease("q")

    beats = [report("heartbeat", job, visibilitySecs=60 * n) for n in range(1, 7)]
    assert [o["status"] for o in await _reports(worker, *beats)] == [204] * 6
    assert await sql.fetchval("SELECT expires_at > now() + interval '5 minutes' FROM leases")


async def test_a_report_that_is_malformed_spoils_no_other(make_server: MakeServer) -> None:
    server = await make_server(max_body=2_000)
    worker = await server.mint("q")
    for _ in range(2):
        await server.enqueue()
    good, other = await worker.lease("q", capacity=2)

    outcomes = await _reports(
        worker,
        7,
        {"type": "complete", "id": other["id"]},
        {**report("complete", other), "type": "finish"},
        report("complete", other, result="\0"),
        report("complete", other, result="x" * 3_000),
        report("progress", other, percent="half"),
        report("complete", good),
        {"type": "complete", "id": "nonsense", "leaseId": "nonsense"},
    )

    assert [o["status"] for o in outcomes] == [400, 400, 400, 400, 413, 400, 204, 409]
    assert [o.get("field") for o in outcomes][1:6] == ["leaseId", "type", "result", "result", "percent"]
    assert [(await server.job(j["id"]))["status"] for j in (good, other)] == ["succeeded", "leased"]


@pytest.mark.parametrize("first", ["complete", "fail", "release"])
@pytest.mark.parametrize("second", ["complete", "fail", "release"])
async def test_of_two_reports_that_end_a_lease_the_first_counts(server: Server, first: str, second: str) -> None:
    worker = await server.mint("q")
    job_id = await server.enqueue()
    [job] = await worker.lease("q")

    outcomes = await _reports(worker, report(first, job), report(second, job))

    ended = {"complete": "succeeded", "fail": "failed", "release": "released"}[first]
    assert [o["status"] for o in outcomes] == [200 if first == "fail" else 204, 409]
    assert outcomes[1]["ended"] == ended
    assert (await server.job(job_id))["status"] == ("succeeded" if first == "complete" else "queued")


async def test_a_malformed_report_is_told_by_its_id(server: Server) -> None:
    worker = await server.mint("q")
    await server.enqueue()
    [job] = await worker.lease("q")
    outcomes = await _reports(worker, report("bogus", job), report("fail", job, error=5), {"type": "complete", "id": 5})
    assert [o["id"] for o in outcomes] == [job["id"], job["id"], None]


async def test_a_lone_surrogate_spoils_its_own_report_alone(server: Server) -> None:
    worker = await server.mint("q")
    for _ in range(3):
        await server.enqueue()
    good, bad, other = await worker.lease("q", capacity=3)
    for path in ("/jobs/reports", "/jobs/lease"):
        reports = [report("complete", good), report("fail", bad, error="\ud800")]
        status, answer = await worker.call(path, {"queues": ["q"], "reports": reports})
        good = other
        assert (status, [o["status"] for o in answer["outcomes"]]) == (200, [204, 400])
        assert answer["outcomes"][1]["id"] == bad["id"]
        assert answer["outcomes"][1]["detail"] == "error must not contain a lone surrogate"


@pytest.mark.parametrize("reports", [[], [{}] * 1_001, None, {}, "x"])
async def test_a_list_that_is_none_is_refused_as_a_whole(server: Server, reports: Any) -> None:
    worker = await server.mint("q")
    status, answer = await worker.call("/jobs/reports", {"reports": reports})
    assert (status, answer["code"], answer["field"]) == (400, "BAD_USER_INPUT", "reports")


async def test_a_heartbeat_listed_after_its_end_still_comes_before_it(server: Server) -> None:
    worker = await server.mint("q")
    await server.enqueue()
    [job] = await worker.lease("q")
    outcomes = await _reports(worker, report("complete", job), report("heartbeat", job), report("complete", job))
    assert sorted(o["status"] for o in outcomes) == [204, 204, 409]
    assert outcomes[1]["status"] == 204


async def test_a_lost_lease_says_what_ended_it_to_whoever_had_it(server: Server, sql: Any) -> None:
    worker, other = await server.mint("q"), await server.mint("q")

    async def leased() -> Any:
        await server.enqueue()
        [job] = await worker.lease("q")
        return job

    endings = {}
    for verb, ended in (("complete", "succeeded"), ("fail", "failed"), ("release", "released")):
        job = await leased()
        await worker.report(verb, job)
        status, problem = await worker.report("complete", job)
        assert (status, problem["code"], problem["ended"]) == (409, "LEASE_LOST", ended)
        endings[ended] = job
        if verb == "release":
            await worker.lease("q")
    assert "ended" not in (await other.report("complete", endings["succeeded"]))[1]
    assert "ended" not in (await worker.report("complete", {**job, "leaseId": str(uuid.uuid4())}))[1]

    job = await leased()
    await sql.execute("UPDATE leases SET expires_at = now() - interval '1 s' WHERE id = $1", job["id"])
    await server.application.services.housekeeping.sweep()
    assert (await worker.report("complete", job))[1]["ended"] == "reclaimed"


async def test_reports_ride_on_a_lease(server: Server) -> None:
    worker = await server.mint("q")
    ids = [await server.enqueue() for _ in range(3)]
    first, second = await worker.lease("q", capacity=2)

    status, answer = await worker.call(
        "/jobs/lease",
        {"queues": ["q"], "capacity": 5, "reports": [report("complete", first), report("release", second)]},
    )

    assert status == 200
    assert [o["status"] for o in answer["outcomes"]] == [204, 204]
    assert [j["id"] for j in answer["jobs"]] == [ids[1], ids[2]]
    assert (await server.job(ids[0]))["status"] == "succeeded"


async def test_a_lease_with_reports_does_not_wait(server: Server) -> None:
    worker = await server.mint("q")
    await server.enqueue()
    [job] = await worker.lease("q")
    status, answer = await worker.call(
        "/jobs/lease", {"queues": ["q"], "waitSecs": 60, "reports": [report("complete", job)]}, timeout=45
    )
    assert (status, answer["jobs"], len(answer["outcomes"])) == (200, [], 1)


async def test_a_lease_that_is_refused_applies_none_of_its_reports(server: Server) -> None:
    worker = await server.mint("q")
    job_id = await server.enqueue()
    [job] = await worker.lease("q")
    wrong: list[dict[str, Any]] = [{"queues": ["r"]}, {"queues": []}, {"queues": ["q"], "requestId": ""}]
    for fields in wrong:
        status, _ = await worker.call("/jobs/lease", {"reports": [report("complete", job)], **fields})
        assert status in (400, 403)
    assert (await server.job(job_id))["status"] == "leased"


async def test_retry_after_takes_the_place_of_the_back_off(server: Server, sql: Any) -> None:
    worker = await server.mint("q")
    await server.enqueue()
    for said, delay in ((90, 90), (0.2, 1), (-5, 0), (10**9, 604_800)):
        [job] = await worker.lease("q")
        answer = await worker.report("fail", job, error="429", retryAfterSecs=said)
        assert answer == (200, {"outcome": "retry", "delaySecs": delay})
        wait = await sql.fetchval("SELECT extract(epoch FROM eligible_at - now())::float8 FROM ready")
        assert delay - 2 < wait <= delay * 1.1
        await sql.execute("UPDATE ready SET eligible_at = now()")
