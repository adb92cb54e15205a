"""Ids that come by the hundred are checked together, and as strictly as one alone."""

import uuid

import pytest

from atomo_gql.domain.rules import are_ids, is_id

_ID = "0190f3a8-7c1e-7000-8000-0123456789ab"


def test_ids_in_canonical_form_are_ids() -> None:
    assert are_ids([])
    assert are_ids([str(uuid.uuid4()) for _ in range(100)])


@pytest.mark.parametrize(
    "odd",
    [
        "",
        "x",
        _ID.upper(),
        _ID.replace("-", ""),
        f"{{{_ID}}}",
        f"{_ID} ",
        f"{_ID}\n",
        f"{_ID},{_ID}",
        _ID[:-1],
        _ID + "0",
    ],
)
def test_one_that_is_none_is_found_among_many(odd: str) -> None:
    assert not is_id(odd)
    for ids in ([odd], [_ID, odd], [odd, _ID], [_ID, odd, _ID]):
        assert not are_ids(ids)


def test_commas_within_ids_do_not_make_up_for_each_other() -> None:
    assert not are_ids([f"{_ID},{_ID[:9]}", _ID[10:]])
    assert not are_ids([f"{_ID},{_ID}", ""])
