"""A reader that keeps its place in the log never misses an event that committed late."""

from atomo_gql.domain.events import Event, EventFilter, EventType, Place
from atomo_gql.domain.jobs import JobFilter
from atomo_gql.store import enqueue, events, jobs
from atomo_gql.store.database import Database
from tests.conftest import until
from tests.store.test_projection import row


async def _tail(database: Database, after: Place) -> list[Event]:
    found, _, _ = await events.tail(database, after, None, EventFilter(), 10, 1_000_000)
    return found


async def test_a_late_commit_is_not_passed_over(database: Database) -> None:
    async with database.connection() as slow:
        transaction = slow.transaction()
        await transaction.start()
        [late] = await enqueue.enqueue(database, [row()], connection=slow)
        [early] = await enqueue.enqueue(database, [row()])
        assert await _tail(database, Place()) == [], "nothing is told while an older transaction runs"
        await transaction.commit()

    async def both() -> object:
        found = await _tail(database, Place())
        return found if len(found) == 2 else None

    found = await until(both)
    assert [event.stream_id for event in found] == [late.id, early.id]
    assert [e.stream_id for e in await _tail(database, found[0].place)] == [early.id]
    assert await _tail(database, found[1].place) == []


async def test_a_place_moves_on_over_what_does_not_match(database: Database) -> None:
    await enqueue.enqueue(database, [row() for _ in range(5)] + [row("r")])
    await until(lambda: _tail(database, Place()))
    wanted = EventFilter(queue="r")
    found, place, has_more = await events.tail(database, Place(), None, wanted, 4, 1_000_000)
    assert (found, has_more) == ([], True)
    [only], place, has_more = await events.tail(database, place, None, wanted, 4, 1_000_000)
    assert (only.queue, only.type, has_more) == ("r", EventType.ENQUEUED, False)
    assert await events.tail(database, place, None, wanted, 4, 1_000_000) == ([], place, False)
    assert await events.head(database) > place


async def test_a_job_enqueued_in_a_transaction_that_is_undone_never_was(database: Database) -> None:
    async with database.connection() as caller:
        transaction = caller.transaction()
        await transaction.start()
        await enqueue.enqueue(database, [row(key="once")], connection=caller)
        await transaction.rollback()
    [made] = await enqueue.enqueue(database, [row(key="once")])
    assert made.is_new
    assert len((await jobs.page(database, None, JobFilter(), most=10)).ids) == 1


async def test_a_page_of_large_events_ends_early_and_misses_nothing(database: Database) -> None:
    large = [row()._replace(payload=b'"' + b"x" * 1_000 + b'"') for _ in range(5)]
    await enqueue.enqueue(database, large)
    await until(lambda: _tail(database, Place()))
    place, has_more = Place(), True
    seen: list[Event] = []
    while has_more:
        found, place, has_more = await events.tail(database, place, None, EventFilter(), 10, 2_000)
        assert len(found) <= 2
        seen += found
    assert len(seen) == len({event.stream_id for event in seen}) == 5
