"""The SQL function refuses what the servers refuse, in the same words, and takes what they take."""

import json
from datetime import UTC, datetime
from random import Random
from typing import Any

import asyncpg
import pytest

from atomo_gql.domain.errors import AtomoError
from atomo_gql.domain.jobs import NewJob
from atomo_gql.domain.rules import check_actor, check_json, check_name, check_new_job
from atomo_gql.service.encoding import encode
from atomo_gql.store import JobStore
from tests.conftest import Server, bearer

_ARGUMENTS = {  # on the wire → of the function, and their types
    "queue": ("queue", "text"),
    "kind": ("kind", "text"),
    "payload": ("payload", "text::jsonb"),
    "idempotencyKey": ("idempotency_key", "text"),
    "maxAttempts": ("max_attempts", "integer"),
    "priority": ("priority", "integer"),
    "runAt": ("run_at", "timestamptz"),
    "tenantId": ("tenant_id", "text"),
    "timeoutSecs": ("timeout_secs", "integer"),
    "deadline": ("deadline", "timestamptz"),
    "actor": ("actor", "text"),
}
_MOMENT = datetime(2030, 1, 1, tzinfo=UTC)
_BLANK = "".join(map(chr, range(0x3001))).replace("\x00", "")
_WHITE = "".join(c for c in _BLANK if c.isspace())  # all that Python calls white

_BAD: dict[str, list[Any]] = {
    **{name: ["", " ", _WHITE, "a\nb", "a\x7fb", "a\x9fb", "a\u2028b"] for name in ("queue", "kind", "idempotencyKey")},
    "tenantId": ["", "\u3000", "x" * 201, "a\x1fb"],
    "actor": ["", "alice", "worker:alice", "user:", "user:" + "x" * 516, "system:\x1f"],
    "maxAttempts": [0, -1, 1_001, 2**31 - 1],
    "priority": [-32_768, 32_768, 40_000],
    "timeoutSecs": [0, 604_801],
    "runAt": [datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(9000, 1, 1, 0, 0, 1, tzinfo=UTC)],
    "deadline": [datetime(1969, 12, 31, tzinfo=UTC), datetime(9500, 1, 1, tzinfo=UTC)],
}
_BAD["queue"] += ["*", "x" * 201, "😀" * 201]
_BAD["kind"] += ["x" * 201]
_BAD["idempotencyKey"] += ["é" * 513]
_BAD_PAYLOADS = [
    "[" * 251 + "]" * 251,
    '{"a":' * 251 + "1" + "}" * 251,
    '{"a":[' * 125 + "{}" + "]}" * 125,
    f"{2**64}",
    f'{{"a": [{{"b": {-(2**63) - 1}}}]}}',
    "[1e400]",
    "-1e400",
    '[1, {"a": 1e309}]',
    json.dumps("x" * 1_048_575),
    json.dumps({"a b": ['"' * 400_000, "\\ : , " * 50_000], "c": [{}, [], 1.5, None]}),
]
_GOOD: dict[str, list[Any]] = {
    "queue": ["😀" * 200, " x", "a*"],
    "kind": ["é" * 200, "*"],
    "idempotencyKey": ["x" * 512],
    "tenantId": ["😀" * 200],
    "actor": ["user:alice", "system:nightly", "user:" + "x" * 515, "user:user:"],
    "maxAttempts": [1, 1_000],
    "priority": [-32_767, 32_767],
    "timeoutSecs": [1, 604_800],
    "runAt": [datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)],
    "deadline": [datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)],
}
_GOOD_PAYLOADS = [
    "[" * 250 + "]" * 250,
    '{"a":' * 250 + "1" + "}" * 250,
    json.dumps([[]] * 400),
    f"[{2**64 - 1}, {-(2**63)}, 1e20, 1e300, 1e308, -1e-308, 1e-400, 0.1, 1.7976931348623157e308]",
    "12345678901234567890.5",
    '["99999999999999999999999", "[[[["]',
    json.dumps("[" * 300),
    "null",
    "false",
    '{"": []}',
    json.dumps("x" * 1_048_574),
]
_PAYLOADS = {"payload": _BAD_PAYLOADS}, {"payload": _GOOD_PAYLOADS}


def _cases(table: dict[str, list[Any]]) -> list[Any]:
    cases = [(name, value) for name, values in table.items() for value in values]
    return [pytest.param({name: value}, id=f"{name}={str(value)[:20]!r}-{n}") for n, (name, value) in enumerate(cases)]


async def _by_sql(sql: Any, given: dict[str, Any]) -> tuple[str, str, str] | None:
    full = {"queue": "q", "kind": "k", **given}
    named = ", ".join(f"{_ARGUMENTS[name][0]} => ${n}::{_ARGUMENTS[name][1]}" for n, name in enumerate(full, 1))
    try:
        await sql.fetchval(f"SELECT atomo.enqueue_job({named})", *full.values())
    except asyncpg.InvalidParameterValueError as error:
        return error.args[0], error.column_name or "", error.detail or ""
    return None


def _by_rules(given: dict[str, Any]) -> tuple[str, str, str] | None:
    named = {_ARGUMENTS[name][0]: value for name, value in given.items()}
    payload = json.loads(named.pop("payload", "{}"))
    tenant, actor = named.pop("tenant_id", None), named.pop("actor", None)
    try:
        check_new_job(NewJob(**{"queue": "q", "kind": "k", "payload": payload, **named}))
        check_json("payload", payload)
        encode("payload", payload, 1_048_576)
        if tenant is not None:
            check_name("tenantId", tenant)
        if actor is not None:
            check_actor(actor)
    except AtomoError as error:
        return error.detail, error.field or "", error.code
    return None


async def _by_store(sql: Any, given: dict[str, Any]) -> tuple[str, str, str] | None:
    named = {_ARGUMENTS[name][0]: value for name, value in given.items()}
    if "payload" in named:
        named["payload"] = json.loads(named["payload"])
    try:
        await JobStore().enqueue(**{"queue": "q", "kind": "k", **named}, connection=sql)
    except AtomoError as error:
        return error.detail, error.field or "", error.code
    return None


@pytest.mark.parametrize(
    "given", [*_cases(_BAD), *_cases(_PAYLOADS[0]), pytest.param({"runAt": _MOMENT, "deadline": _MOMENT}, id="no time")]
)
async def test_what_is_refused_is_refused_in_the_same_words(sql: Any, given: dict[str, Any]) -> None:
    refused = await _by_sql(sql, given)

    assert refused is not None
    assert refused == _by_rules(given) == await _by_store(sql, given)
    assert await sql.fetchval("SELECT count(*) FROM events") == 0


@pytest.mark.parametrize("given", [*_cases(_GOOD), *_cases(_PAYLOADS[1])])
async def test_what_is_taken_is_taken_through_every_door(sql: Any, given: dict[str, Any]) -> None:
    assert _by_rules(given) is None
    assert await _by_sql(sql, given) is None
    assert await _by_store(sql, given) is None


async def test_the_limit_of_a_payload_is_the_database_s(sql: Any) -> None:
    await sql.execute("SET atomo.max_body = 100")
    payload = json.dumps("x" * 99)
    assert await _by_sql(sql, {"payload": payload}) == (
        "payload must have at most 100 bytes, not 101",
        "payload",
        "PAYLOAD_TOO_LARGE",
    )
    assert await _by_store(sql, {"payload": payload}) == await _by_sql(sql, {"payload": payload})
    assert await _by_sql(sql, {"payload": json.dumps("x" * 98)}) is None


@pytest.mark.parametrize("name", ["queue", "kind"])
async def test_a_name_may_not_be_null(sql: Any, name: str) -> None:
    assert await _by_sql(sql, {name: None}) == (f"{name} is required", name, "BAD_USER_INPUT")


async def test_null_is_what_it_is_in_rest(sql: Any) -> None:
    given = dict.fromkeys(_ARGUMENTS.keys() - {"queue", "kind"})
    assert await _by_sql(sql, given) is None
    assert tuple(await sql.fetchrow("SELECT max_attempts, priority, run_at, tenant FROM job_records")) == (
        5,
        0,
        None,
        "",
    )
    assert await sql.fetchval("SELECT data -> 'payload' FROM events") == "null"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"queue": 7}, "queue"),
        ({"kind": None}, "kind"),
        ({"idempotency_key": b"x"}, "idempotencyKey"),
        ({"max_attempts": 5.0}, "maxAttempts"),
        ({"priority": None}, "priority"),
        ({"run_at": "2030-01-01"}, "runAt"),
        ({"run_at": datetime(2030, 1, 1)}, "runAt"),
        ({"tenant_id": 7}, "tenantId"),
        ({"priority": 2**40}, "priority"),
        ({"payload": {1: 2}}, "payload"),
        ({"payload": float("nan")}, "payload"),
        ({"payload": {"at": _MOMENT}}, "payload"),
        ({"payload": ["\udc00"]}, "payload"),
        ({"queue": "a\x00"}, "queue"),
    ],
    ids=str,
)
async def test_what_sql_could_not_be_told_is_refused_before(sql: Any, given: dict[str, Any], field: str) -> None:
    async with sql.transaction():
        with pytest.raises(AtomoError) as refused:
            await JobStore().enqueue(**{"queue": "q", "kind": "k", **given}, connection=sql)
        assert refused.value.field == field
        assert await sql.fetchval("SELECT count(*) FROM events") == 0, "and the transaction goes on"


def _letters(count: int, *, seed: int) -> str:
    """Signs of four bytes each, which nothing compresses."""
    return "".join(chr(0x1F300 + n) for n in Random(seed).choices(range(0x400), k=count))


async def test_what_no_index_could_hold_is_refused_through_every_door(server: Server, sql: Any) -> None:
    queue, key, tenant = _letters(200, seed=1), _letters(450, seed=2), "t" * 199
    given = {"queue": queue, "idempotencyKey": key, "tenantId": tenant}
    rule = "idempotencyKey must have at most 2600 bytes, together with queue and tenant, not 2799"
    assert await _by_sql(sql, given) == await _by_store(sql, given) == (rule, "idempotencyKey", "BAD_USER_INPUT")
    body = {"queue": queue, "kind": "k", "idempotencyKey": key}
    status, answer = await server.call("POST", "/jobs", body, headers=bearer(tenant_id=tenant))
    assert (status, answer["detail"]) == (400, rule)
    longest = key[:400] + "x"
    await server.enqueue(queue, _letters(200, seed=3), idempotencyKey=longest, headers=bearer(tenant_id=tenant))
    assert await _by_sql(sql, {**given, "idempotencyKey": longest}) is None
    event = {"model": queue, "event": "created", "id": _letters(512, seed=4), "data": {}}
    status, answer = await server.call("POST", "/events", event, headers=bearer())
    assert (status, answer["field"]) == (400, "id")
    assert await sql.fetchval("SELECT count(*) FROM job_records") == 1
