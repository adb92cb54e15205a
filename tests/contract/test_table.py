"""Every row of the table of REST routes, with every answer it can give."""

import json
import re
from typing import Any
from uuid import UUID, uuid4

import pytest

from atomo_gql.api.rest.routes import ROUTES
from tests.conftest import Server, admin, bearer
from tests.contract.table import CLOSED, JOB, LEASED, METHODS, REPORTS, TABLE, TOKEN, Row, World, line, refused

_JSON = "application/json"
_ALL = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
FOR_EVERY_TENANT = [line("GET", "/workflows/{name}"), line("POST", "/workflows/{name}/run")]  # the service's own
_UNKNOWN = "0190f3a8-7c1e-7000-8000-0123456789ab"


def test_the_table_has_every_route() -> None:
    assert {(row.method, row.path) for row in TABLE} == {(name, path) for path in ROUTES for name in ROUTES[path]}


@pytest.mark.parametrize("row", TABLE, ids=str)
async def test_a_call_in_order_is_answered_in_its_shape(world: World, row: Row) -> None:
    answer = await world.ask(row)
    assert answer.status == row.status, answer.body
    if row.keys is not None:
        assert answer.headers["Content-Type"] == _JSON
        assert set(answer.body) == row.keys
    elif row.status == 204:
        assert answer.raw == b""
        assert "Content-Type" not in answer.headers
    else:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert answer.body.startswith("# HELP ")


async def test_what_lies_within_an_answer_has_its_shape_too(world: World) -> None:
    minted = (await world.ask(line("POST", "/jobs/workers"))).body
    listed = (await world.ask(line("GET", "/jobs/workers"))).body["workers"]
    [leased] = (await world.ask(line("POST", "/jobs/lease"))).body["jobs"]
    batch = (await world.ask(line("POST", "/jobs/batch"))).body["jobs"]
    await world.ask(line("POST", "/jobs/{id}/progress"), percent=0.5)
    job = (await world.ask(line("GET", "/jobs/{id}"))).body

    assert set(leased) == LEASED
    assert [set(made) for made in batch] == [{"id"}]
    assert {frozenset(token) for token in listed} == {TOKEN}
    assert {key: minted[key] for key in TOKEN} in listed
    assert re.fullmatch(r"wkr_[\w-]{43,}", minted["token"])
    assert set(job) == JOB
    assert job["progress"] == {"percent": 0.5, "message": None, "data": None}
    for id_ in (leased["id"], batch[0]["id"], minted["id"]):
        assert (str(UUID(id_)), UUID(id_).version) == (id_, 7)
    for moment in (leased["leaseExpiresAt"], leased["createdAt"], minted["createdAt"], job["leasedAt"]):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", moment)


async def test_the_end_of_a_job_is_answered_in_its_shape(world: World) -> None:
    fail, get = line("POST", "/jobs/{id}/fail"), line("GET", "/jobs/{id}")
    assert (await world.ask(fail, retryable=False)).body == {"outcome": "dead"}
    dead = (await world.ask(get)).body
    assert dead["status"] == "dead"
    assert set(dead) == JOB
    assert (await world.ask(line("GET", "/healthz"))).body == {"status": "ok"}
    assert (await world.ask(line("GET", "/readyz"))).body == {"status": "ready"}
    assert (await world.ask(line("POST", "/jobs/lease"), queues=["none"])).body == {"jobs": []}


async def test_what_is_left_out_has_its_default(world: World) -> None:
    nothing = {"maxAttempts": None, "priority": None, "runAt": None, "idempotencyKey": None}
    choices: list[dict[str, Any]] = [{}, nothing]
    for fields in choices:
        made = await world.ask(line("POST", "/jobs"), **fields)
        job = (await world.ask(line("GET", "/jobs/{id}"), path=f"/jobs/{made.body['id']}")).body
        assert (job["maxAttempts"], job["priority"], job["runAt"], job["idempotencyKey"]) == (5, 0, None, None)
    made = await world.ask(line("POST", "/jobs"), queue=f"{world.queue}-default")
    [leased] = (await world.ask(line("POST", "/jobs/lease"), queues=[f"{world.queue}-default"], later=1)).body["jobs"]
    assert (leased["id"], leased["payload"], leased["attempts"]) == (made.body["id"], {}, 1)


@pytest.mark.parametrize("row", [row for row in TABLE if row.method == "GET"], ids=str)
async def test_head_is_get_without_the_body(steady: World, row: Row) -> None:
    varies = {"Date", "X-Request-Id"} | ({"Content-Length"} if row.path == "/metrics" else set())
    get, head = await steady.ask(row), await steady.ask(row, method="HEAD")
    assert (head.status, head.raw) == (row.status, b"")
    assert {k: v for k, v in head.headers.items() if k.title() not in varies} == {
        k: v for k, v in get.headers.items() if k.title() not in varies
    }
    if row.plane != "open":
        assert (await steady.ask(row, method="HEAD", headers={})).status == 401


@pytest.mark.parametrize("row", CLOSED, ids=str)
async def test_without_the_plane_s_own_credential_it_is_401(steady: World, row: Row) -> None:
    worker, person = steady.worker.token, admin()["Authorization"]
    wrong: list[dict[str, str]] = [{}, {"Authorization": f"Bearer {worker}"}]
    if row.plane == "worker":
        wrong += [{"Authorization": person}, {"X-Worker-Token": person.removeprefix("Bearer ")}]
        wrong += [{"X-Worker-Token": value} for value in ("", worker[:-1], worker + "x", f" wkr_{worker}", "wkr_\xe9")]
    else:
        wrong += [{"X-Worker-Token": worker}, {"Authorization": person.removeprefix("Bearer ")}]
    for headers in wrong:
        answer = await steady.refuse(row, 401, headers=headers)
        assert answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("row", [row for row in CLOSED if row.plane == "admin"], ids=str)
@pytest.mark.parametrize("role", [None, "user", "Admin", "", ["admin"], True])
async def test_an_admin_s_row_is_403_for_others(steady: World, row: Row, role: Any) -> None:
    await steady.refuse(row, 403, headers=bearer(role=role))


@pytest.mark.parametrize("row", [row for row in CLOSED if row.plane != "worker"], ids=str)
async def test_another_tenant_s_name_is_403(steady: World, row: Row) -> None:
    await steady.refuse(row, 403, headers=admin(tenant_id="acme") | {"X-Tenant-ID": "other"})


@pytest.mark.parametrize("row", [row for row in CLOSED if "{" in row.path and row not in REPORTS], ids=str)
async def test_what_is_not_there_is_404(world: World, row: Row) -> None:
    for unknown in (_UNKNOWN, "x", "%00", "%ff", "x" * 36, "x" * 5_000, "'"):
        await world.refuse(row, 404, path=row.path.replace("{id}", unknown).replace("{name}", unknown))
    if row in FOR_EVERY_TENANT:
        return
    await world.refuse(row, 404, headers=admin(tenant_id="acme"))
    await world.refuse(row, 404, headers=admin() | {"X-Tenant-ID": "acme"})


async def test_a_token_is_revoked_once(world: World) -> None:
    delete = line("DELETE", "/jobs/workers/{id}")
    assert (await world.ask(delete)).status == 204
    await world.refuse(delete, 404)
    [token] = [t for t in (await world.ask(line("GET", "/jobs/workers"))).body["workers"] if t["isRevoked"]][-1:]
    assert token["id"] == world.spare.token_id
    assert token["revokedAt"]


@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/jobs/", "/jobs/a/b/c", "/jobs/a/", "/healthz/", "/JOBS", "/jobs%00", "/jobs%0A"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
async def test_an_unknown_path_is_404(shared: Server, method: str, path: str) -> None:
    refused(await shared.ask(method, path, headers=admin()), 404)


@pytest.mark.parametrize(("path", "method"), [(p, m) for p in sorted(METHODS) for m in _ALL if m not in METHODS[p]])
async def test_a_wrong_method_is_405_and_told_the_right_ones(steady: World, path: str, method: str) -> None:
    before = await steady.state()
    answer = await steady.server.ask(method, steady.fill(path), headers=admin())
    assert answer.status == 405
    assert set(answer.headers["Allow"].split(", ")) == METHODS[path]
    if method != "HEAD":
        refused(answer, 405)
    assert await steady.state() == before


@pytest.mark.parametrize("row", REPORTS, ids=str)
async def test_a_report_without_the_current_lease_is_409(steady: World, row: Row) -> None:
    for job in (_UNKNOWN, steady.waiting, "x", "%00", "x" * 36):
        await steady.refuse(row, 409, path=row.path.replace("{id}", job))
    for lease in (str(uuid4()), steady.job["id"], "x", "", "x" * 1_000):
        await steady.refuse(row, 409, leaseId=lease)


@pytest.mark.parametrize("row", REPORTS, ids=str)
@pytest.mark.parametrize("end", ["complete", "fail", "release"])
async def test_a_job_that_was_given_up_takes_no_report(world: World, row: Row, end: str) -> None:
    narrow = await world.server.mint("another queue")
    await world.refuse(row, 409, headers={"X-Worker-Token": narrow.token})
    assert (await world.ask(line("POST", f"/jobs/{{id}}/{end}"))).status in (200, 204)
    await world.refuse(row, 409)


@pytest.mark.parametrize("path", ["/jobs/{id}", "/jobs/workers/{id}"])
async def test_an_id_has_one_spelling(world: World, path: str) -> None:
    row = line("GET" if path == "/jobs/{id}" else "DELETE", path)
    canonical = world.path(row).rpartition("/")[2]
    for other in (canonical.replace("-", "") + "----", canonical[1:] + "-", "_" + canonical[1:]):
        await world.refuse(row, 404, path=row.path.replace("{id}", other))


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 0, -1, 1.5, 2**64 - 1, -(2**63), 1e15, 1e16, 1e22, 1e-7, 5e-324, "", "\\u0000", "\x7f\u2028é😀"),
        *([], {}, {"": [None]}, {"b": 1, "a": {"b": []}}, {"__proto__": "x"}),
    ],
    ids=json.dumps,
)
async def test_any_json_comes_back_as_it_went(world: World, value: Any) -> None:
    made = await world.ask(line("POST", "/jobs"), queue=f"{world.queue}-json", payload=value)
    [job] = (await world.ask(line("POST", "/jobs/lease"), queues=[f"{world.queue}-json"])).body["jobs"]
    assert job["id"] == made.body["id"]
    assert job["payload"] == value
    world.job = job
    report = {"leaseId": job["leaseId"]}
    await world.ask(line("POST", "/jobs/{id}/progress"), data=json.dumps(report | {"data": value}))
    assert (await world.ask(line("GET", "/jobs/{id}"))).body["progress"]["data"] == value
    await world.ask(line("POST", "/jobs/{id}/complete"), result=value)
    assert (await world.ask(line("GET", "/jobs/{id}"))).body["result"] == value


async def test_the_sign_for_every_queue(server: Server) -> None:
    anybody, narrow = await server.mint("a", "*"), await server.mint("a")
    assert (await server.call("GET", "/jobs/workers", headers=admin()))[1]["workers"][0]["queues"] == ["*"]
    for queue in ("a", "b", "a*", "c"):
        await server.enqueue(queue)
    for queues in (["*"], ["a", "*"], ["b"], ["a", "b"]):
        refused(await server.ask("POST", "/jobs/lease", {"queues": queues}, headers=_worker(narrow.token)), 403)
    assert [job["queue"] for job in await narrow.lease("a", capacity=10)] == ["a"]
    assert [job["queue"] for job in await anybody.lease("a*", capacity=10)] == ["a*"]
    assert [job["queue"] for job in await anybody.lease("nothing", "*", capacity=10)] == ["b", "c"]


def _worker(token: str) -> dict[str, str]:
    return {"X-Worker-Token": token}
