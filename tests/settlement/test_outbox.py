"""The writer: how changes become commits, and what it makes of commits that fail, hang, or come too late."""

import asyncio
import contextlib
import logging
import sqlite3
from decimal import Decimal

import pytest

from fastapi_autumn.settlement.entry import Doubt
from fastapi_autumn.settlement.outbox import Outbox
from fastapi_autumn.settlement.sql import SqlStore
from memory_store import MemoryDatabase, MemoryStore
from settlement.entries import SANDBOX, a_charge, a_refund, freeze, rows, until

FIVE = Decimal(5)


class WatchedStore(MemoryStore):
    """A store that counts its commits, and loses some of them, or their answers."""

    def __init__(self, database):
        super().__init__(database, SANDBOX)
        self.commits = 0
        self.lose_work = self.lose_answers = 0

    async def before(self, what):
        if what == "commit":
            self.commits += 1
            if self.lose_work:
                self.lose_work -= 1
                raise OSError("the connection broke")

    async def after(self, what):
        if what == "commit" and self.lose_answers:
            self.lose_answers -= 1
            raise OSError("the connection broke")


@pytest.fixture
def store(memory):
    return WatchedStore(memory)


@pytest.fixture
async def outbox(open_outbox, store):
    return await open_outbox(store)


def keep(outbox, entry):
    """End a charge as a call that succeeded ends it."""
    outbox.end(entry._replace(taken=FIVE, cost=FIVE, key_number=1, doubt=Doubt.NONE), owed=False)


# Commits.


async def test_writes_are_grouped(outbox, store):
    """500 charges at once are a handful of commits."""
    before = store.commits
    for _ in range(500):
        outbox.open(a_charge(outbox))
    await outbox.flush()

    assert store.commits - before <= 3
    assert len(await rows(store)) == 500


async def test_served_calls_are_never_written(outbox, store):
    """A charge that is opened and kept between two commits never touches the disk, and proves to be over by number."""
    for _ in range(50):
        charge = a_charge(outbox)
        outbox.open(charge)
        keep(outbox, charge)
    outbox.open(a_charge(outbox))
    await outbox.flush()

    assert len(await rows(store)) == 1
    assert [worker.complete_to for worker in await store.workers()] == [51]


async def test_nothing_waits_long_for_its_commit(outbox, store):
    """A refund is written without anybody asking for it, and the sender is woken."""
    outbox.end(a_refund(outbox), owed=True)
    await asyncio.wait_for(outbox.has_due.wait(), 60)

    assert [state for state, _ in (await rows(store)).values()] == ["due"]


async def test_an_idle_worker_shows_life(open_outbox, store):
    """Without a charge there is still a commit several times in a lease."""
    await open_outbox(store, lease=1.0)
    first = store.commits

    await until(lambda: store.commits >= first + 3)


async def test_flush_does_not_wait_for_what_comes_later(outbox, store):
    """Under a stream of new charges a flush ends as soon as the earlier ones are written."""

    async def traffic():
        while True:
            outbox.open(a_charge(outbox))
            await asyncio.sleep(0)

    first = a_charge(outbox)
    outbox.open(first)
    load = asyncio.create_task(traffic())
    try:
        async with asyncio.timeout(60):
            await outbox.flush()
    finally:
        load.cancel()

    assert first.charge_id in await rows(store)


async def test_flush_with_nothing_to_write_returns(outbox):
    """There is nothing to wait for."""
    await outbox.flush()

    assert outbox.unwritten == 0


async def test_a_flush_outlives_the_writer(outbox, store):
    """Whoever tears an event loop down cancels its tasks; a flush that waits then gets what it waits for."""
    outbox.open(a_charge(outbox))
    flush = asyncio.create_task(outbox.flush())
    await asyncio.sleep(0)
    outbox._writer.cancel()
    async with asyncio.timeout(60):
        await flush

    assert len(await rows(store)) == 1


# Commits that fail.


async def test_what_cannot_be_written_waits_in_memory(outbox, store, caplog):
    """It is told, and everything is there once the database is back."""
    store.lose_work = 3
    refunds = [a_refund(outbox) for _ in range(20)]
    for refund in refunds:
        outbox.end(refund, owed=True)
    await until(lambda: not store.lose_work)
    assert outbox.unwritten == 20
    await outbox.flush()

    assert "cannot be written (OSError). 20 changes wait in memory" in caplog.text
    assert set(await rows(store)) == {refund.charge_id for refund in refunds}


async def test_a_lost_answer_to_a_commit(outbox, store):
    """The commit may have got through: a charge that is kept afterwards leaves no row, and nobody takes a new name."""
    name, charge = outbox.worker_id, a_charge(outbox)
    store.lose_answers = 1
    outbox.open(charge)
    await until(lambda: not store.lose_answers)
    await until(lambda: outbox.unwritten or charge.charge_id in store.database.charges)
    keep(outbox, charge)
    await outbox.flush()

    assert await rows(store) == {}
    assert outbox.worker_id == name


async def test_a_database_that_cannot_be_written_at_first(open_outbox, memory, caplog):
    """The service starts all the same; it shows no life until the first commit has gone well."""
    store = WatchedStore(memory)
    store.lose_work = 2
    outbox = await open_outbox(store, lease=1.0)
    assert not outbox.shows_life
    assert "cannot be written yet" in caplog.text

    await until(lambda: outbox.shows_life)


# Showing life: the fence.


async def test_life_lasts_a_lease(outbox, machine):
    """Without a commit for a lease others may soon act, so this worker opens no new deductions; a commit revives it."""
    thaw = await freeze(outbox)
    machine.advance(seconds=outbox.lease - 0.01)
    assert outbox.shows_life
    machine.advance(seconds=0.01)
    assert not outbox.shows_life
    thaw()
    # The commit that hung had begun before, so it proves nothing about now; the next one does.
    outbox.open(a_charge(outbox))
    await until(lambda: outbox.shows_life)


async def test_life_is_counted_from_the_beginning_of_a_commit(outbox, machine):
    """A commit whose answer takes a lease says what was true when it was sent."""
    thaw = await freeze(outbox)
    machine.advance(seconds=outbox.lease + 1)
    commits = outbox._commits_done
    thaw()
    await until(lambda: outbox._commits_done > commits)

    assert not outbox.shows_life


async def test_a_wall_clock_that_jumps_changes_nothing(outbox, machine):
    """Life is counted on a clock that only runs forward."""
    machine.ms += 48 * 3_600_000
    assert outbox.shows_life
    machine.ms -= 96 * 3_600_000
    assert outbox.shows_life


async def test_one_that_stops_opens_no_more(open_outbox, store):
    """From the beginning of the end nothing new is begun that nobody would see the end of."""
    outbox = await open_outbox(store)
    thaw = await freeze(outbox)
    stopping = asyncio.create_task(outbox.stop(within=30))
    await asyncio.sleep(0)

    assert (outbox.stopping, outbox.shows_life) == (True, False)
    thaw()
    await stopping


# Taken for dead.


@pytest.fixture
async def taken_for_dead(outbox, store):
    """A worker that was frozen with charges open, and that another one takes over: call what this returns to let it."""

    async def take_over(*unwritten):
        (worker,) = await store.workers()
        assert await store.take_over(worker, by="other", unwritten=unwritten, now=outbox.now()) is not None

    return take_over


async def test_a_delivered_answer_is_not_given_back(outbox, store, memory, taken_for_dead, caplog):
    """Cut off from the database, taken for dead, and back: each charge that was served meanwhile is compared."""
    written, unwritten = a_charge(outbox), a_charge(outbox)
    name = outbox.worker_id
    outbox.open(written)
    await outbox.flush()
    thaw = await freeze(outbox)
    outbox.open(unwritten)
    keep(outbox, written)
    keep(outbox, unwritten)
    await taken_for_dead(unwritten._replace(due_at=0))
    claimed = {entry.charge_id for entry in await store.claim("other", limit=9, doubtful=True, now=1, until=2)}
    assert unwritten.charge_id in claimed
    thaw()
    await until(lambda: outbox.worker_id != name)
    await outbox.flush()

    found = await rows(store)
    assert set(found) == {written.charge_id, unwritten.charge_id}
    for state, entry in found.values():
        assert (state, entry.cost, entry.contested, entry.doubt) == ("due", FIVE, True, Doubt.UNKNOWN)
    assert {charge.owner for charge in memory.charges.values()} == {outbox.worker_id}
    assert "took this one for dead" in caplog.text


async def test_it_goes_on_under_a_new_name(outbox, store, machine, taken_for_dead):
    """The charge that is still under way gets its row back, the old name is forgotten, and it shows life again."""
    charge, name = a_charge(outbox), outbox.worker_id
    outbox.open(charge)
    await outbox.flush()
    thaw = await freeze(outbox)
    machine.advance(seconds=outbox.lease)
    await taken_for_dead()
    assert not outbox.shows_life
    thaw()
    await until(lambda: outbox.worker_id != name and outbox.shows_life)

    assert (await rows(store))[charge.charge_id][0] == "open"
    assert [worker.id for worker in await store.workers()] == [outbox.worker_id]
    assert outbox.new_charge_id().startswith(outbox.worker_id)


async def test_a_database_that_was_restored(outbox, store, memory, taken_for_dead):
    """From an older copy: what has ended since is not settled anew, what is open is written again, nothing is lost."""
    old, name = a_charge(outbox), outbox.worker_id
    outbox.open(old)
    await outbox.flush()
    backup = memory.backup()
    keep(outbox, old)
    await outbox.flush()
    still_open, refund = a_charge(outbox), a_refund(outbox)
    outbox.open(still_open)
    await outbox.flush()
    memory.restore(backup)
    outbox.end(refund, owed=True)
    await until(lambda: outbox.worker_id != name)
    await outbox.flush()

    states = {charge_id: state for charge_id, (state, _) in (await rows(store)).items()}
    assert states == {still_open.charge_id: "open", refund.charge_id: "due"}
    # The old name knows nothing of what has ended since, so nobody may search Autumn's log in its name.
    assert [worker.id for worker in await store.workers()] == [outbox.worker_id]


async def test_taken_for_dead_and_the_answer_to_the_first_commit_lost(outbox, store, taken_for_dead):
    """The first commit under the new name is repeated as it was, old name and all."""
    charge, name = a_charge(outbox), outbox.worker_id
    outbox.open(charge)
    await outbox.flush()
    thaw = await freeze(outbox)
    await taken_for_dead()
    thaw()
    await until(lambda: outbox.worker_id != name)
    store.lose_answers = 2
    keep(outbox, charge)
    await until(lambda: not store.lose_answers)
    await outbox.flush()

    ((state, entry),) = (await rows(store)).values()
    assert (state, entry.cost, entry.contested) == ("due", FIVE, True)
    assert [worker.id for worker in await store.workers()] == [outbox.worker_id]


# Stopping.


async def test_a_stop_writes_everything_and_leaves(open_outbox, store):
    """Nothing is left for others to recover."""
    outbox = await open_outbox(store)
    charge = a_charge(outbox)
    outbox.open(charge)
    keep(outbox, charge)
    outbox.end(a_refund(outbox), owed=True)
    await outbox.stop(within=30)

    assert [state for state, _ in (await rows(store)).values()] == ["due"]
    assert await store.workers() == []


async def test_what_ends_during_the_last_commit_is_written_too(open_outbox, store):
    """A worker leaves when nothing is left to write, and not when the first commit after the stop is through."""
    outbox = await open_outbox(store)
    first, last = a_refund(outbox), a_refund(outbox)
    before = store.before

    async def end_meanwhile(what):
        if what == "commit" and outbox.stopping and not outbox.unwritten:
            store.before = before
            outbox.end(last, owed=True)

    store.before = end_meanwhile
    outbox.end(first, owed=True)
    await outbox.stop(within=30)

    assert set(await rows(store)) == {first.charge_id, last.charge_id}


async def test_a_stop_revives_a_writer_that_was_cancelled(open_outbox, store):
    """An event loop that is torn down cancels the writer first; the last charges are closed after that."""
    outbox = await open_outbox(store)
    outbox._writer.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await outbox._writer
    outbox.end(a_refund(outbox), owed=True)
    await outbox.stop(within=30)

    assert len(await rows(store)) == 1


@pytest.fixture
def path(tmp_path):
    return tmp_path / "outbox.db"


@contextlib.contextmanager
def locked(path):
    """Hold SQLite's lock, as another process may."""
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield other
    finally:
        other.close()


async def test_a_database_that_is_locked_while_the_service_stops(path, caplog):
    """Locked for longer than SQLite waits, then a stop in order: all is written, nothing is left to search for."""
    outbox = Outbox(SqlStore(f"sqlite+aiosqlite:///{path}", SANDBOX))
    await outbox.start()
    charges = [a_charge(outbox) for _ in range(21)]
    with locked(path):
        for charge in charges:
            outbox.open(charge)
            keep(outbox, charge)
        outbox.end(a_refund(outbox), owed=True)
        stopping = asyncio.create_task(outbox.stop(within=60))
        # SQLite has waited for its lock in vain.
        await until(lambda: "cannot be written" in caplog.text)
        assert not stopping.done()
    await stopping

    store = SqlStore(f"sqlite+aiosqlite:///{path}", SANDBOX)
    await store.open()
    assert [state for state, _ in (await rows(store)).values()] == ["due"]
    assert await store.workers() == []
    assert not [record for record in caplog.records if record.levelno == logging.CRITICAL]
    await store.close()


async def test_a_stop_has_an_end(path, caplog):
    """While the database stays locked a stop takes no longer than it may, and says what is lost and who pays for it."""
    outbox = Outbox(SqlStore(f"sqlite+aiosqlite:///{path}", SANDBOX))
    await outbox.start()
    charge = a_charge(outbox)
    with locked(path):
        outbox.open(charge)
        keep(outbox, charge)
        outbox.end(a_refund(outbox), owed=True)
        # The lock is not let go of before the stop has ended: one that waited for it would wait for ever.
        await outbox.stop(within=0.2)

    assert "2 charges are only in Autumn's event log" in caplog.text


async def test_an_outbox_that_was_not_started_stops():
    """A service that fails while it starts stops what it has not started yet."""
    await Outbox(MemoryStore(MemoryDatabase(), SANDBOX)).stop(within=1)
