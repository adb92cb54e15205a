"""Bad input is refused with a clear error that names the field and the rule, and changes nothing."""

from typing import Any

import pytest

from tests.conftest import MakeServer, Server, bearer

_OK = '"queue": "q", "kind": "k"'
_DEEP = '{"a":' * 300 + "1" + "}" * 300

ENQUEUE = [
    ("", "the body must be JSON"),
    ("not json", "the body must be JSON"),
    ("{", "the body must be JSON"),
    ("[]", "the body must be a JSON object"),
    ("null", "the body must be a JSON object"),
    ("{}", "queue is required"),
    ('{"queue": "q"}', "kind is required"),
    ('{"queue": 1, "kind": "k"}', "queue: expected str, got int"),
    ('{"queue": null, "kind": "k"}', "queue: expected str"),
    ('{"queue": "", "kind": "k"}', "queue must not be blank"),
    ('{"queue": "  ", "kind": "k"}', "queue must not be blank"),
    ('{"queue": "*", "kind": "k"}', "queue must name one queue"),
    ('{"queue": "q", "kind": ""}', "kind must not be blank"),
    ('{"queue": "%s", "kind": "k"}' % ("x" * 201), "queue must have at most 200 characters, not 201"),
    ('{"queue": "a\\u0000b", "kind": "k"}', "queue must not contain a NUL character"),
    ('{"queue": "a\\nb", "kind": "k"}', "queue must not contain control characters"),
    ('{"queue": "\\ud800", "kind": "k"}', "the body must be JSON"),
    ('{%s, "payload": {"a": "\\udc00"}}' % _OK, "the body must be JSON"),
    ('{%s, "payload": "\\u0000"}' % _OK, "payload must not contain a NUL character"),
    ('{%s, "payload": {"\\u0000": 1}}' % _OK, "payload must not contain a NUL character"),
    ('{%s, "payload": 1e400}' % _OK, "payload: number out of range"),
    ('{%s, "payload": NaN}' % _OK, "the body must be JSON"),
    (
        '{%s, "payload": [123456789012345678901234567890]}' % _OK,
        "payload must not contain whole numbers beyond 64 bits",
    ),
    ('{%s, "payload": %s}' % (_OK, _DEEP), "payload must not be nested deeper than 250 levels"),
    ('{%s, "payload": %s}' % (_OK, "[" * 100_000 + "]" * 100_000), "nested deeper"),
    ('{%s, "maxAttempts": 0}' % _OK, "maxAttempts must be from 1 to 1000, not 0"),
    ('{%s, "maxAttempts": 1001}' % _OK, "maxAttempts must be from 1 to 1000"),
    ('{%s, "maxAttempts": 1.5}' % _OK, "maxAttempts: expected int"),
    ('{%s, "maxAttempts": true}' % _OK, "maxAttempts: expected int"),
    ('{%s, "maxAttempts": "5"}' % _OK, "maxAttempts: expected int"),
    ('{%s, "maxAttempts": 99999999999999999999999999}' % _OK, "maxAttempts must be from 1 to 1000"),
    ('{%s, "priority": 32768}' % _OK, "priority must be from -32767 to 32767"),
    ('{%s, "priority": -32768}' % _OK, "priority must be from -32767 to 32767"),
    ('{%s, "runAt": "tomorrow"}' % _OK, "runAt: invalid RFC3339"),
    ('{%s, "runAt": "2030-01-01T00:00:00"}' % _OK, "runAt must name its offset from UTC"),
    ('{%s, "runAt": "9999-12-31T23:59:59Z"}' % _OK, "runAt must lie between the years"),
    ('{%s, "runAt": "0001-01-01T00:00:00+14:00"}' % _OK, "runAt must lie between the years"),
    ('{%s, "runAt": 5}' % _OK, "runAt: expected datetime"),
    ('{%s, "idempotencyKey": ""}' % _OK, "idempotencyKey must not be blank"),
    ('{%s, "idempotencyKey": "%s"}' % (_OK, "x" * 513), "idempotencyKey must have at most 512 characters"),
]


async def _post(server: Server, raw: str | bytes, **headers: str) -> tuple[int, Any]:
    full = {**bearer(), "content-type": "application/json", **headers}
    return await server.call("POST", "/jobs", headers=full, data=raw)


async def test_every_bad_job_is_400_and_changes_nothing(server: Server, sql: Any) -> None:
    for raw, detail in ENQUEUE:
        status, answer = await _post(server, raw)
        assert (status, answer["status"], answer["code"]) == (400, 400, "BAD_USER_INPUT"), raw[:80]
        assert detail in answer["detail"], (raw[:80], answer["detail"])
    assert (await _post(server, b'{"queue": "\xff", "kind": "k"}'))[0] == 400
    assert await sql.fetchval("SELECT count(*) FROM events") == 0


async def test_optional_fields_may_be_null_and_unknown_ones_are_passed_over(server: Server) -> None:
    raw = '{%s, "maxAttempts": null, "priority": null, "runAt": null, "idempotencyKey": null, "later": 1}' % _OK
    status, answer = await _post(server, raw)
    job = await server.job(answer["id"])
    assert (status, job["maxAttempts"], job["priority"]) == (201, 5, 0)


async def test_media_types_methods_sizes_and_paths(make_server: MakeServer, sql: Any) -> None:
    server = await make_server(max_body=2_000)
    good = '{"queue": "q", "kind": "k"}'
    for media_type in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1"):
        status, answer = await server.call("POST", "/jobs", headers={**bearer(), "content-type": media_type}, data=good)
        assert (status, answer["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    for method, path in [("PUT", "/jobs"), ("GET", "/jobs/lease"), ("DELETE", "/jobs/workers"), ("POST", "/healthz")]:
        status, answer = await server.call(method, path, headers=bearer())
        expected = 404 if (method, path) == ("GET", "/jobs/lease") and status == 404 else 405
        assert status == expected, (method, path, answer)
    status, answer = await _post(server, '{"queue": "q", "kind": "k", "payload": "%s"}' % ("x" * 2_000))
    assert (status, answer["code"]) == (413, "PAYLOAD_TOO_LARGE")

    async def chunks() -> Any:
        for _ in range(10):
            yield b" " * 1_000

    status, answer = await server.call(
        "POST", "/jobs", headers={**bearer(), "content-type": "application/json"}, data=chunks()
    )
    assert (status, answer["code"]) == (413, "PAYLOAD_TOO_LARGE")
    for path in ("/nothing", "/jobs/", "/jobs/%00", "/jobs/%ff", "/jobs/" + "x" * 5_000, "/jobs/a/b/c"):
        assert (await server.call("GET", path, headers=bearer()))[0] in (404, 405), path
    assert await sql.fetchval("SELECT count(*) FROM events") == 0


@pytest.mark.parametrize(
    ("verb", "fields", "detail"),
    [
        ("lease", {}, "queues is required"),
        ("lease", {"queues": []}, "queues must name at least one queue"),
        ("lease", {"queues": "q"}, "queues: expected array"),
        ("lease", {"queues": [1]}, "queues[0]: expected str"),
        ("lease", {"queues": [" "]}, "queues[0] must not be blank"),
        ("lease", {"queues": ["q"], "capacity": 1.5}, "capacity: expected int"),
        ("lease", {"queues": ["q"], "visibilitySecs": 0.5}, "visibilitySecs: expected int"),
        ("lease", {"queues": ["q"], "waitSecs": "1"}, "waitSecs: expected float"),
        ("heartbeat", {}, "leaseId is required"),
        ("heartbeat", {"leaseId": 5}, "leaseId: expected str"),
        ("heartbeat", {"leaseId": "a\x00"}, "leaseId must not contain a NUL"),
        ("progress", {"leaseId": "x", "percent": "half"}, "percent: expected float"),
        ("progress", {"leaseId": "x", "message": "m" * 2_001}, "message must have at most 2000 characters"),
        ("complete", {"result": 1}, "leaseId is required"),
        ("fail", {"leaseId": "x", "retryable": "no"}, "retryable: expected bool"),
        ("fail", {"leaseId": "x", "error": "a\x00"}, "error must not contain a NUL"),
    ],
)
async def test_every_bad_worker_call_is_400(server: Server, sql: Any, verb: str, fields: Any, detail: str) -> None:
    worker = await server.mint("*")
    job_id = await server.enqueue()
    path = "/jobs/lease" if verb == "lease" else f"/jobs/{job_id}/{verb}"

    status, answer = await worker.call(path, fields)

    assert (status, answer["code"]) == (400, "BAD_USER_INPUT")
    assert detail in answer["detail"]
    assert await sql.fetchval("SELECT count(*) FROM events") == 1
