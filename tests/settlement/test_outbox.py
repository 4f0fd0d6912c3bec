"""The outbox on both databases: what is written, in how many commits, and who may claim it."""

import asyncio
from dataclasses import replace
from decimal import Decimal

import pytest
import sqlalchemy as sa

from fastapi_autumn.errors import ConfigurationError
from fastapi_autumn.settlement import Action
from fastapi_autumn.settlement.outbox import Outbox
from settlement.entries import a_charge, a_refund, kill, until, written


def count_commits(outbox: Outbox) -> list[int]:
    commits: list[int] = []
    sa.event.listen(outbox._connected.sync_engine, "commit", lambda _: commits.append(1))
    return commits


async def test_an_open_charge_is_written(outbox):
    """What `open` is given is in the table after a flush, to be looked up if the process dies."""
    charge = a_charge(outbox, entity_id="seat-1", credits=Decimal("0.0000000001"))
    outbox.open(charge)
    await outbox.flush()

    assert await written(outbox) == {charge.charge_id: ("open", charge)}


async def test_opened_and_kept_at_once_is_never_written(outbox):
    """A charge that is opened and kept between two commits costs no write at all."""
    commits = count_commits(outbox)
    for _ in range(50):
        charge = a_charge(outbox)
        outbox.open(charge)
        outbox.close(charge.charge_id)

    assert outbox.unwritten == 0
    await asyncio.sleep(0.1)
    assert len(commits) <= 1
    assert await written(outbox) == {}


async def test_opened_and_refunded_at_once_is_one_row(outbox):
    """The last word counts: an open charge that is refunded before it was written is only a refund."""
    charge = a_charge(outbox)
    outbox.open(charge)
    outbox.put(replace(charge, action=Action.TRACK, reason="failed"))
    await outbox.flush()

    (state, entry), *others = (await written(outbox)).values()
    assert not others
    assert (state, entry.action, entry.reason) == ("due", Action.TRACK, "failed")


async def test_a_written_charge_that_is_kept_leaves_no_row(outbox):
    """Closing a charge deletes its row."""
    charge = a_charge(outbox)
    outbox.open(charge)
    await outbox.flush()
    outbox.close(charge.charge_id)
    await outbox.flush()

    assert await written(outbox) == {}


async def test_closing_while_it_is_being_committed(outbox, monkeypatch):
    """A charge that is kept while its row is on the way to the disk leaves no row either."""
    commit = outbox._commit
    closed = []

    async def close_meanwhile(changes, complete_to):
        if changes and not closed:
            closed.append(charge.charge_id)
            outbox.close(charge.charge_id)
        await commit(changes, complete_to)

    monkeypatch.setattr(outbox, "_commit", close_meanwhile)
    charge = a_charge(outbox)
    outbox.open(charge)
    await until(lambda: closed)
    await outbox.flush()

    assert await written(outbox) == {}


async def test_a_failed_commit_may_have_got_through(outbox, monkeypatch):
    """When the answer to a COMMIT is lost, a charge that is kept afterwards is deleted all the same."""
    commit = outbox._commit
    failures = []

    async def lose_the_answer(changes, complete_to):
        await commit(changes, complete_to)
        if changes and not failures:
            failures.append(1)
            outbox._is_open = False
            raise OSError("the connection broke")

    monkeypatch.setattr(outbox, "_commit", lose_the_answer)
    charge = a_charge(outbox)
    outbox.open(charge)
    await until(lambda: failures and outbox.unwritten)
    outbox.close(charge.charge_id)
    await outbox.flush()

    assert await written(outbox) == {}


async def test_writes_are_grouped(outbox):
    """500 charges at once are a handful of commits."""
    commits = count_commits(outbox)
    for _ in range(500):
        outbox.open(a_charge(outbox))
    await outbox.flush()

    assert len(commits) <= 3
    assert len(await written(outbox)) == 500


async def test_flush_does_not_wait_for_what_comes_later(outbox):
    """Under a stream of new charges a flush ends as soon as the earlier ones are written."""

    async def traffic() -> None:
        while True:
            outbox.open(a_charge(outbox))
            await asyncio.sleep(0)

    first = a_charge(outbox)
    outbox.open(first)
    load = asyncio.create_task(traffic())
    try:
        async with asyncio.timeout(5):
            await outbox.flush()
    finally:
        load.cancel()

    assert first.charge_id in await written(outbox)


async def test_what_no_database_can_store_is_made_storable(outbox):
    """A reason with NUL or half a surrogate pair does not keep the whole group from being written."""
    refund = a_refund(outbox, reason="model\0said \ud800", customer_id="c" * 5000)
    outbox.put(refund)
    await outbox.flush()

    ((_, entry),) = (await written(outbox)).values()
    assert entry.reason == "modelsaid ?"


async def test_claims_what_is_due_oldest_first(outbox, clock):
    """Rows are claimed in the order in which they became due; what waits for later is left."""
    now = clock()
    refunds = [a_refund(outbox, due_at=now - age) for age in (10, 30, 20)]
    outbox.put(a_refund(outbox, due_at=now + 1))
    outbox.open(a_charge(outbox))
    for refund in refunds:
        outbox.put(refund)
    await outbox.flush()

    assert [entry.due_at for entry in await outbox.claim(2)] == [now - 30, now - 20]
    assert [entry.due_at for entry in await outbox.claim(2)] == [now - 10]


async def test_two_claim_at_once_without_a_double(open_outbox):
    """Two workers that claim as fast as they can get every row, and none of them twice."""
    first, second = await open_outbox(), await open_outbox()
    for _ in range(400):
        first.put(a_refund(first))
    await first.flush()

    async def claim_all(outbox: Outbox) -> list[str]:
        claimed = []
        while entries := await outbox.claim(7):
            claimed += [entry.charge_id for entry in entries]
        return claimed

    claimed = await asyncio.gather(claim_all(first), claim_all(second), claim_all(first), claim_all(second))

    together = [charge_id for part in claimed for charge_id in part]
    assert len(together) == len(set(together)) == 400


async def test_a_claim_ends_with_its_lease(open_outbox, clock):
    """What a worker claimed and never finished is somebody else's after the lease, and known to be perhaps sent."""
    first, second = await open_outbox(), await open_outbox()
    first.put(a_refund(first))
    await first.flush()
    (claimed,) = await first.claim(10)
    claimed_at = clock()
    assert claimed.maybe_sent_at is None
    clock.advance(seconds=29)
    assert await second.claim(10) == []
    clock.advance(seconds=2)

    (again,) = await second.claim(10)
    assert again == replace(claimed, maybe_sent_at=claimed_at)


async def test_results_of_a_lost_claim_are_void(open_outbox, clock):
    """A worker that comes back after its lease does not overwrite what the next one has made of the row."""
    first, second = await open_outbox(), await open_outbox()
    first.put(a_refund(first))
    await first.flush()
    (claimed,) = await first.claim(10)
    clock.advance(seconds=31)
    (again,) = await second.claim(10)
    second.park(replace(again, last_error="no such customer"))
    await second.flush()
    first.finish(claimed)
    await first.flush()

    ((state, entry),) = (await written(second)).values()
    assert (state, entry.last_error) == ("parked", "no such customer")


async def test_for_people(outbox, clock):
    """Parked rows are counted, listed, retried as if never sent, and dropped; open ones cannot be retried."""
    charge, parked = a_charge(outbox), a_refund(outbox)
    outbox.open(charge)
    outbox.put(parked)
    await outbox.flush()
    (claimed,) = await outbox.claim(1)
    outbox.park(replace(claimed, last_error="why", maybe_sent_at=clock()))
    await outbox.flush()

    assert await outbox.count() == {"open": 1, "due": 0, "parked": 1}
    assert [entry.charge_id for _, entry in await outbox.list("parked")] == [parked.charge_id]
    assert not await outbox.retry(charge.charge_id)
    assert await outbox.retry(parked.charge_id)
    assert [(entry.maybe_sent_at, entry.look_first) for entry in await outbox.claim(9)] == [(None, True)]
    assert await outbox.drop(parked.charge_id)
    assert not await outbox.drop(parked.charge_id)


async def test_any_number_of_workers_may_start_at_once(url):
    """Workers that start together on an empty database all find their tables."""
    outboxes = [Outbox(url) for _ in range(6)]
    await asyncio.gather(*(outbox.start() for outbox in outboxes))
    for outbox in outboxes:
        outbox.put(a_refund(outbox))
        await outbox.flush()

    assert len(await written(outboxes[0])) == 6
    for outbox in outboxes:
        await outbox.stop(within=2)


async def test_stopping_writes_what_is_left(open_outbox):
    """A worker that stops in order writes everything, and leaves nothing for others to recover."""
    staying, leaving = await open_outbox(lease=0.5), await open_outbox(lease=0.5)
    leaving.put(a_refund(leaving))
    await leaving.stop(within=5)

    assert [state for state, _ in (await written(staying)).values()] == ["due"]
    await staying.find_lost(silence=0)
    await asyncio.sleep(0.05)
    assert await staying.find_lost(silence=0) == []


async def test_left_open_by_one_that_stopped(open_outbox, clock):
    """Charges that were still open when their worker stopped in order become due for the others."""
    staying, leaving = await open_outbox(), await open_outbox()
    leaving.open(a_charge(leaving))
    await leaving.stop(within=5)
    await staying.take_over_orphans(delay=60)

    assert await staying.claim(1) == []
    clock.advance(seconds=61)
    assert [entry.action for entry in await staying.claim(1)] == [Action.LOOK_UP]


async def test_killed_before_the_commit(open_outbox):
    """Of a killed worker it is known up to which charge its rows are complete."""
    staying, killed = await open_outbox(), await open_outbox()
    killed.open(a_charge(killed))
    await killed.flush()
    killed.open(a_charge(killed))
    await kill(killed)
    await staying.find_lost(silence=0)
    await asyncio.sleep(0.01)

    (lost,) = await staying.find_lost(silence=0)
    assert (lost.id, lost.complete_to) == (killed.worker_id, 1)


@pytest.mark.parametrize(
    "bad", ["sqlite+aiosqlite:////proc/no/such/outbox.db", "postgresql+asyncpg://u:p@127.0.0.1:9/x"]
)
async def test_an_impossible_url_is_told_at_the_start(bad):
    """A database that cannot be opened stops the start with the name of the setting, and without the password."""
    with pytest.raises(ConfigurationError, match="AUTUMN_OUTBOX_URL") as refused:
        await Outbox(bad).start()

    assert "u:p@" not in str(refused.value)


async def test_not_started_is_told(tmp_path):
    """Using an outbox that was not started says what to do."""
    with pytest.raises(RuntimeError, match="lifespan"):
        await Outbox(f"sqlite+aiosqlite:///{tmp_path}/outbox.db").count()
