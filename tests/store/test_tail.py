"""A reader that keeps its place in the log never misses an event that committed late."""

from atomo_gql.store import enqueue, jobs
from atomo_gql.store.database import Database
from tests.conftest import until
from tests.store.test_projection import row


async def test_a_late_commit_is_not_passed_over(database: Database) -> None:
    async with database.connection() as slow:
        transaction = slow.transaction()
        await transaction.start()
        [late] = await enqueue.enqueue(database, [row()], connection=slow)
        [early] = await enqueue.enqueue(database, [row()])
        assert await jobs.tail(database, 0, 0, 10) == [], "nothing is told while an older transaction runs"
        await transaction.commit()

    async def both() -> object:
        found = await jobs.tail(database, 0, 0, 10)
        return found if len(found) == 2 else None

    events = await until(both)
    assert [event.stream_id for event in events] == [late.id, early.id]
    assert [e.stream_id for e in await jobs.tail(database, events[0].xid, events[0].position, 10)] == [early.id]
    assert await jobs.tail(database, events[1].xid, events[1].position, 10) == []


async def test_a_job_enqueued_in_a_transaction_that_is_undone_never_was(database: Database) -> None:
    async with database.connection() as caller:
        transaction = caller.transaction()
        await transaction.start()
        await enqueue.enqueue(database, [row(key="once")], connection=caller)
        await transaction.rollback()
    [made] = await enqueue.enqueue(database, [row(key="once")])
    assert made.is_new
    assert len(await jobs.page(database, None, status=None, queue=None, kind=None, before=None, most=10)) == 1
