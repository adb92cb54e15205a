"""A binding that fails stops no other, and goes on where it was."""

from collections.abc import Sequence
from typing import Any

import pytest

from atomo_gql.domain.errors import NotFound
from tests.actions.acts import bind, fired, record
from tests.parts import ROOT, Replica


async def test_a_poisoned_binding_is_set_aside_and_the_others_go_on(replica: Replica, sql: Any) -> None:
    await sql.execute("ALTER TABLE ready ADD CHECK (queue <> 'refused')")
    poisoned = await bind(replica, "bad", queue="refused", condition={"fieldEquals": {"n": 3}})
    await bind(replica, "good")
    ids = [await record(replica, n) for n in range(1, 6)]
    await replica.settle()
    assert await fired(sql, "action", "input") == [("good", {"n": n}) for n in range(1, 6)]
    [binding] = [b for b in await replica.services.bindings.listed(ROOT) if b.id == poisoned]
    assert binding.set_aside_at is not None and "CheckViolationError" in (binding.error or "")
    assert await sql.fetchval("SELECT count(*) FROM events WHERE type = 'set_aside'") == 1
    assert len(ids) == len(set(ids))
    await record(replica, 6)
    await replica.settle()
    assert len(await fired(sql)) == 6


async def test_an_event_as_large_as_may_be_has_room_in_its_job(replica: Replica, sql: Any) -> None:
    await bind(replica)
    await bind(replica, "after", model="Job", event="succeeded")
    await record(replica, "x" * (1_048_576 - 200))
    await replica.settle()
    assert len(await fired(sql)) == 1
    assert not [b for b in await replica.services.bindings.listed(ROOT) if b.set_aside_at]


async def _break(replica: Replica, monkeypatch: pytest.MonkeyPatch, broken: Sequence[int]) -> None:
    """The action `bad` cannot make a job of these."""
    theirs = replica.services.dispatcher
    make = theirs._row

    def row(binding: Any, event: Any) -> Any:
        if binding.what.action == "bad" and event.data["n"] in broken:
            raise RuntimeError("no way")
        return make(binding, event)

    monkeypatch.setattr(theirs, "_row", row)


async def test_one_that_was_set_aside_goes_on_from_the_event_it_failed_on_when_it_is_resumed(
    replica: Replica, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = await bind(replica, "bad")
    await bind(replica, "good")
    await _break(replica, monkeypatch, [3, 5])
    for n in range(1, 7):
        await record(replica, n)
        await replica.settle()
    assert [i["n"] for a, i in await fired(sql, "action", "input") if a == "bad"] == [1, 2]
    for fails_at in (5, None):
        await sql.execute("DELETE FROM idempotency_keys")  # as retention does: nothing here leans on the keys
        await replica.services.bindings.resume(ROOT, bad)
        if fails_at is None:
            monkeypatch.undo()
            await replica.settle()
        else:
            monkeypatch.undo()
            await _break(replica, monkeypatch, [5])
            await replica.settle()
            assert [i["n"] for a, i in await fired(sql, "action", "input") if a == "bad"] == [1, 2, 3, 4]
    await record(replica, 7)
    await replica.settle()
    by_action: dict[str, list[int]] = {"bad": [], "good": []}
    for action, given in await fired(sql, "action", "input"):
        by_action[action].append(given["n"])
    assert by_action == {"bad": [1, 2, 3, 4, 5, 6, 7], "good": [1, 2, 3, 4, 5, 6, 7]}
    [binding] = [b for b in await replica.services.bindings.listed(ROOT) if b.id == bad]
    assert (binding.set_aside_at, binding.at, binding.error) == (None, None, None)


async def test_one_that_skips_goes_on_with_what_comes(
    replica: Replica, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = await bind(replica, "bad")
    await _break(replica, monkeypatch, [2])
    for n in range(1, 5):
        await record(replica, n)
    await replica.settle()
    monkeypatch.undo()
    await replica.services.bindings.resume(ROOT, bad, skip=True)
    with pytest.raises(NotFound):
        await replica.services.bindings.resume(ROOT, bad)
    await record(replica, 5)
    await replica.settle()
    assert [given["n"] for (given,) in await fired(sql, "input")] == [1, 5]
