"""Who may call, and what they see."""

import time
from typing import Any

import jwt
import pytest

from tests.conftest import SECRET, MakeServer, Server, admin, bearer, token
from tests.contract.table import World, line

NOW = int(time.time())


NOT_VALID = {  # by name: those that tell the time differ between the processes that collect tests
    "empty": "",
    "no token": "Bearer",
    "another scheme": "Basic abc",
    "no JWT": "Bearer not.a.jwt",
    "expired": f"Bearer {token(lasts=-5)}",
    "another's signature": f"Bearer {token(secret='another secret that has more than 32 bytes')}",
    "no end": f"Bearer {jwt.encode({'sub': 'a'}, SECRET, algorithm='HS256')}",
    "no subject": f"Bearer {jwt.encode({'exp': NOW + 60}, SECRET, algorithm='HS256')}",
    "another algorithm": f"Bearer {jwt.encode({'sub': 'a', 'exp': NOW + 60}, SECRET, algorithm='HS512')}",
    "no signature": f"Bearer {jwt.encode({'sub': 'a', 'exp': NOW + 60}, '', algorithm='none')}",
    "an empty tenant": f"Bearer {token(tenant_id='')}",
    "a tenant that is a number": f"Bearer {token(tenant_id=5)}",
}


@pytest.mark.parametrize("name", NOT_VALID)
@pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")
async def test_a_token_that_is_not_valid_opens_nothing(steady: World, name: str) -> None:
    for row in (line("POST", "/jobs"), line("GET", "/jobs/workers")):
        await steady.refuse(row, 401, headers={"Authorization": NOT_VALID[name]})


async def test_somebody_else_s_job_is_not_found(server: Server) -> None:
    acme, other = bearer(tenant_id="acme"), bearer(tenant_id="other")
    job_id = await server.enqueue(headers=acme)
    assert (await server.job(job_id, headers=acme))["tenantId"] == "acme"
    assert (await server.job(job_id, headers=admin()))["tenantId"] == "acme"
    assert (await server.job(job_id, headers=admin() | {"X-Tenant-ID": "acme"}))["id"] == job_id
    for headers in (other, bearer(), admin(tenant_id="other"), admin() | {"X-Tenant-ID": "other"}):
        assert (await server.call("GET", f"/jobs/{job_id}", headers=headers))[0] == 404


async def test_a_tenant_header_is_for_its_tenant_and_for_unbound_admins(server: Server) -> None:
    body = {"queue": "q", "kind": "k"}
    for headers, expected in [
        (bearer(tenant_id="acme") | {"X-Tenant-ID": "acme"}, 201),
        (admin() | {"X-Tenant-ID": "acme"}, 201),
        (bearer(tenant_id="acme") | {"X-Tenant-ID": "other"}, 403),
        (bearer() | {"X-Tenant-ID": "acme"}, 403),
    ]:
        assert (await server.call("POST", "/jobs", body, headers=headers))[0] == expected, headers


async def test_a_worker_token_reaches_its_queues_and_its_tenant_only(server: Server) -> None:
    await server.enqueue("a")
    await server.enqueue("b", headers=bearer(tenant_id="acme"))
    narrow, acme = await server.mint("a"), await server.mint("*", headers=admin(tenant_id="acme"))

    [job] = await acme.lease("*", capacity=10)
    assert (job["queue"], job["tenantId"]) == ("b", "acme")
    assert (await narrow.report("complete", job))[0] == 409
    assert (await acme.report("complete", job))[0] == 204


async def test_revoking_works_at_once_on_every_replica(make_server: MakeServer, sql: Any) -> None:
    here, there = await make_server(), await make_server()
    worker = await here.mint("q")
    there_worker = type(worker)(there, worker.token_id, worker.token)
    await here.enqueue()
    [job] = await there_worker.lease("q")

    assert (await here.call("DELETE", f"/jobs/workers/{worker.token_id}", headers=admin()))[0] == 204

    for verb in ("heartbeat", "progress", "complete", "fail", "release"):
        assert (await there_worker.report(verb, job))[0] == 401
    assert (await there_worker.call("/jobs/lease", {"queues": ["q"]}))[0] == 401
    assert await sql.fetchval("SELECT count(*) FROM events WHERE type = 'leased'") == 1


async def test_tokens_are_listed_without_their_secret(server: Server, sql: Any) -> None:
    worker = await server.mint("q", headers=admin(tenant_id="acme"))
    await server.mint("r")

    status, answer = await server.call("GET", "/jobs/workers", headers=admin(tenant_id="acme"))

    assert (status, [t["id"] for t in answer["workers"]]) == (200, [worker.token_id])
    assert worker.token.startswith("wkr_")
    assert worker.token not in str(answer)
    assert "hash" not in str(answer).lower()
    assert worker.token not in str(await sql.fetch("SELECT * FROM worker_tokens"))
