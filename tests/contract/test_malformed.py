"""Each field of each body, wrong in each way: refused with 400 by the field's name, and nothing has changed."""

import json

import pytest

from tests.contract.malformed import BODIES, SURROGATE, UNKNOWN, Case, cases
from tests.contract.table import CLOSED, SHAPED, WITH_BODY, Row, World


@pytest.mark.parametrize("case", list(cases()), ids=str)
async def test_a_malformed_field_is_named(steady: World, case: Case) -> None:
    raw = case.body(steady.body(case.row) or {})

    answer = await steady.refuse(case.row, 400, data=raw)

    detail = answer.body["detail"]
    assert case.fault.rule in detail
    if case.fault.rule == SURROGATE:
        assert case.fault.field.startswith(answer.body["field"])
    elif not case.fault.rule.startswith("the body"):
        assert case.fault.field in detail
        assert answer.body["field"].startswith(case.fault.field)


@pytest.mark.parametrize("row", WITH_BODY, ids=str)
@pytest.mark.parametrize("kind", BODIES)
async def test_a_malformed_body_is_refused(steady: World, row: Row, kind: str) -> None:
    if row.is_optional and kind == "empty":
        return
    template, rule = BODIES[kind]
    raw = template.replace(b"%b", json.dumps(steady.body(row)).encode())
    assert rule in (await steady.refuse(row, 400, data=raw)).body["detail"]


@pytest.mark.parametrize("row", WITH_BODY, ids=str)
@pytest.mark.parametrize("kind", UNKNOWN)
async def test_a_field_that_nobody_knows_must_be_json_too(steady: World, row: Row, kind: str) -> None:
    value, rule = UNKNOWN[kind]
    rest = json.dumps(steady.body(row)).encode()[1:-1]
    raw = b'{"nobody": %b%b}' % (value, rest and b", " + rest)
    detail = (await steady.refuse(row, 400, data=raw)).body["detail"]
    assert rule in detail or (row.plane != "worker" and "nobody is not a field" in detail)


@pytest.mark.parametrize("row", [line for line in SHAPED if line.plane != "worker"], ids=str)
async def test_what_asks_for_something_has_no_field_that_nobody_knows(steady: World, row: Row) -> None:
    body = {**(steady.body(row) or {}), "tenant": "a"}
    answer = await steady.refuse(row, 400, data=json.dumps(body).encode())
    assert answer.body["field"] == "tenant"
    assert "tenant is not a field of this body" in answer.body["detail"]


@pytest.mark.parametrize("row", [line for line in CLOSED if line.plane != "worker"], ids=str)
@pytest.mark.parametrize("tenant", [" ", "x" * 201, "a\tb", "\udcff"])
async def test_a_malformed_tenant_is_refused(steady: World, row: Row, tenant: str) -> None:
    answer = await steady.refuse(row, 400, headers=steady.headers(row) | {"X-Tenant-ID": tenant})
    assert "X-Tenant-ID" in answer.body["detail"]
