"""The loop that delivers: how much at once, what holds up what, and what it makes of each end."""

import asyncio
import contextlib

import pytest

from fastapi_autumn.settlement.entry import Doubt
from fastapi_autumn.settlement.sender import Result, Sender
from memory_store import MemoryStore
from settlement.entries import SANDBOX, FakeMachine, a_refund, rows, until


class Deliveries:
    """Stands for `Delivery`: notes what it is handed, and does what the test says; by default everything succeeds."""

    def __init__(self, deliver=None):
        self.begun = []
        self.ended = []
        self.running = 0
        self.most = {False: 0, True: 0}
        self._deliver = deliver

    async def deliver(self, entry):
        self.begun.append(entry)
        doubtful = entry.doubt is not Doubt.NONE
        at_once = [one for one in self.begun if (one.doubt is not Doubt.NONE) is doubtful and one not in self.ended]
        self.most[doubtful] = max(self.most[doubtful], len(at_once))
        try:
            result = None if self._deliver is None else await self._deliver(entry)
        finally:
            self.ended.append(entry)
        return result or Result(entry, None)

    @property
    def ids(self):
        return [entry.charge_id for entry in self.begun]


@contextlib.asynccontextmanager
async def sending(outbox, deliveries, *, poll_seconds=0.02):
    sender = Sender(outbox, deliveries.deliver, poll_seconds=poll_seconds)
    sender.start()
    try:
        yield sender
    finally:
        await sender.stop(within=10)


async def put(outbox, number=1, **changes):
    """Write refunds that are due."""
    refunds = [a_refund(outbox, **changes) for _ in range(number)]
    for refund in refunds:
        outbox.end(refund, owed=True)
    await outbox.flush()
    return refunds


async def is_empty(outbox):
    return not await rows(outbox.store)


async def test_what_is_due_is_delivered(outbox):
    """A row that is written is claimed, delivered once, and gone, without anybody asking for it."""
    deliveries = Deliveries()
    async with sending(outbox, deliveries, poll_seconds=3600):
        (refund,) = await put(outbox)
        await until(lambda: deliveries.ended)
        await outbox.flush()

    assert deliveries.begun == [refund]
    assert await rows(outbox.store) == {}


@pytest.mark.parametrize("state", ["due", "shortfall"])
async def test_what_became_of_it_is_written(outbox, state):
    """A row that waits for its next attempt, or for a person, says why."""
    (refund,) = await put(outbox)
    left = refund._replace(attempts=1, due_at=outbox.now() + 9, last_error="why")

    async def deliver(entry):
        return Result(left, state)

    await Sender(outbox, Deliveries(deliver).deliver).drain()

    assert await rows(outbox.store) == {refund.charge_id: (state, left)}


async def test_draining_delivers_all_that_is_due_now(outbox, machine):
    """What follows at once from a delivery is delivered as well; what is due later waits."""
    (refund,) = await put(outbox)
    (later,) = await put(outbox, due_at=outbox.now() + 1)

    async def deliver(entry):
        return Result(entry._replace(doubt=Doubt.NONE), "due") if entry.doubt is Doubt.UNKNOWN else None

    (unknown,) = await put(outbox, doubt=Doubt.UNKNOWN)
    deliveries = Deliveries(deliver)
    await Sender(outbox, deliveries.deliver).drain()

    assert sorted(deliveries.ids) == sorted([refund.charge_id, unknown.charge_id, unknown.charge_id])
    assert list(await rows(outbox.store)) == [later.charge_id]
    machine.advance(seconds=1)
    await Sender(outbox, deliveries.deliver).drain()
    assert await rows(outbox.store) == {}


async def test_limits(outbox):
    """So many are under way at once and no more, look-ups and others apart."""
    release = asyncio.Event()

    async def deliver(entry):
        await release.wait()

    await put(outbox, 100)
    for customer in range(30):
        await put(outbox, 2, doubt=Doubt.SEALED, customer_id=f"customer-{customer}")
    deliveries = Deliveries(deliver)
    async with sending(outbox, deliveries):
        await until(lambda: len(deliveries.begun) == 64 + 16)
        # A few more rounds, in which nothing may be begun.
        await asyncio.sleep(0.3)
        assert deliveries.most == {False: 64, True: 16}
        release.set()
        await until(lambda: len(deliveries.ended) == 160)

    assert deliveries.most == {False: 64, True: 16}


async def test_look_ups_never_hold_up_the_others(outbox):
    """While a busy customer's look-ups hang, another customer's refund is delivered."""
    hanging = asyncio.Event()

    async def deliver(entry):
        if entry.doubt is not Doubt.NONE:
            await hanging.wait()

    await put(outbox, 200, doubt=Doubt.SEALED)
    deliveries = Deliveries(deliver)
    async with sending(outbox, deliveries):
        await until(lambda: deliveries.most[True] == 16)
        refunds = await put(outbox, 50, customer_id="bob")
        await until(lambda: len(deliveries.ended) == 50)
        hanging.set()

    assert {entry.charge_id for entry in deliveries.ended[:50]} == {refund.charge_id for refund in refunds}


async def test_a_busy_customer_does_not_hold_up_the_look_ups_of_others(outbox):
    """With a thousand of one customer waiting, the first of every other customer has its turn among the next."""

    async def deliver(entry):
        await asyncio.sleep(0)

    await put(outbox, 1000, doubt=Doubt.SEALED)
    others = [(await put(outbox, doubt=Doubt.SEALED, customer_id=name))[0] for name in ("bob", "cyd", "dan")]
    deliveries = Deliveries(deliver)
    async with sending(outbox, deliveries):
        await until(lambda: {other.charge_id for other in others} <= set(deliveries.ids))

    assert len(deliveries.ids) < 64


async def test_one_that_hangs_holds_up_nobody(outbox):
    """While one delivery gets no answer, hundreds of others go on."""
    (hanging, *others), never = await put(outbox, 201), asyncio.Event()

    async def deliver(entry):
        if entry.charge_id == hanging.charge_id:
            await never.wait()

    deliveries = Deliveries(deliver)
    async with sending(outbox, deliveries):
        await until(lambda: len(deliveries.ended) == len(others))
        await until(lambda: not outbox.unwritten)
        assert list(await rows(outbox.store)) == [hanging.charge_id]
        never.set()


async def test_a_defect_holds_up_nobody(outbox, machine, caplog):
    """It is told; the row is tried again later, and looked up first: the defect may have come after the request."""
    poisoned, *_ = await put(outbox, 41)

    async def deliver(entry):
        if entry.charge_id == poisoned.charge_id:
            raise ValueError("poison")

    await Sender(outbox, Deliveries(deliver).deliver).drain()

    ((charge_id, (state, entry)),) = (await rows(outbox.store)).items()
    assert (charge_id, state, entry.doubt, entry.attempts) == (poisoned.charge_id, "due", Doubt.UNKNOWN, 1)
    assert entry.due_at > machine.ms
    assert "met a defect" in caplog.text


async def test_a_database_that_cannot_be_read_ends_nothing(open_outbox, memory, caplog):
    """The loop goes on trying, and delivers when it can."""

    class FailingStore(MemoryStore):
        failures = 2

        async def before(self, what):
            if what == "claim" and self.failures:
                self.failures -= 1
                raise OSError("the connection broke")

    outbox = await open_outbox(FailingStore(memory, SANDBOX))
    await put(outbox)
    deliveries = Deliveries()
    async with sending(outbox, deliveries):
        await until(lambda: deliveries.ended)

    assert "cannot be read (OSError)" in caplog.text


async def test_what_is_under_way_outlives_the_database(open_outbox, memory):
    """Rows are claimed in two goes; when the second cannot be read, the deliveries of the first are not broken off."""

    class FailingStore(MemoryStore):
        failures = 1

        async def claim(self, worker_id, *, doubtful, **how):
            if doubtful and self.failures:
                self.failures -= 1
                # So that the first ones have begun.
                await started.wait()
                raise OSError("the connection broke")
            return await super().claim(worker_id, doubtful=doubtful, **how)

    async def deliver(entry):
        started.set()
        await release.wait()
        whole.append(entry)

    started, release, whole = asyncio.Event(), asyncio.Event(), []
    outbox = await open_outbox(FailingStore(memory, SANDBOX))
    (refund,) = await put(outbox)
    deliveries = Deliveries(deliver)
    async with sending(outbox, deliveries):
        await started.wait()
        await asyncio.sleep(0)
        release.set()
        await until(lambda: deliveries.ended)

    assert whole == deliveries.begun == [refund]


async def test_two_senders_share_without_a_double(open_outbox, memory):
    """Two workers deliver everything, each row once, and each its part."""
    first, second = await open_outbox(), await open_outbox(machine=FakeMachine("other"))

    async def deliver(entry):
        await asyncio.sleep(0)

    parts = Deliveries(deliver), Deliveries(deliver)
    await put(first, 300)
    async with sending(first, parts[0]), sending(second, parts[1]):

        async def is_done():
            return not await rows(first.store)

        await until(is_done)

    ids = parts[0].ids + parts[1].ids
    assert len(ids) == len(set(ids)) == 300
    assert parts[0].ids
    assert parts[1].ids


async def test_stopping_finishes_what_is_under_way(outbox):
    """A stop lets a delivery that is under way end, and takes no more."""
    started, release = asyncio.Event(), asyncio.Event()

    async def deliver(entry):
        started.set()
        await release.wait()

    deliveries = Deliveries(deliver)
    sender = Sender(outbox, deliveries.deliver)
    sender.start()
    (refund,) = await put(outbox)
    await started.wait()
    stopping = asyncio.create_task(sender.stop(within=60))
    await put(outbox)
    release.set()
    await stopping
    await outbox.flush()

    assert deliveries.begun == deliveries.ended == [refund]
    assert len(await rows(outbox.store)) == 1


async def test_stopped_in_the_middle_it_is_looked_up_later(open_outbox, machine):
    """What a stop cuts off stays claimed until its lease ends, and may have been sent by then."""
    stopped, next_one = await open_outbox(), await open_outbox(machine=machine)
    started = asyncio.Event()

    async def deliver(entry):
        started.set()
        await asyncio.Event().wait()

    sender = Sender(stopped, Deliveries(deliver).deliver)
    sender.start()
    (refund,) = await put(stopped)
    await started.wait()
    await sender.stop(within=0.05)
    deliveries = Deliveries()
    await Sender(next_one, deliveries.deliver).drain()
    assert deliveries.begun == []
    machine.advance(seconds=stopped.lease + 1)
    await Sender(next_one, deliveries.deliver).drain()
    # Claimed as one that can be sent at once, it turned out to be in doubt.
    assert deliveries.begun == [refund._replace(doubt=Doubt.UNKNOWN)]


async def test_a_sender_that_was_not_started_stops(outbox):
    """There is nothing to wait for."""
    await Sender(outbox, Deliveries().deliver).stop(within=1)


async def test_look_ups_stay_claimed_while_they_wait_for_their_turn(open_outbox, machine, monkeypatch):
    """Autumn answers few look-ups a second: one that waits for longer than a lease is not begun by another worker."""
    first, second = await open_outbox(), await open_outbox()
    release, started, renewed = asyncio.Event(), asyncio.Event(), asyncio.Event()
    renew = first.store.renew

    async def deliver(entry):
        started.set()
        await release.wait()

    async def renew_and_say_so(*arguments, **named):
        await renew(*arguments, **named)
        renewed.set()

    monkeypatch.setattr(first.store, "renew", renew_and_say_so)
    await put(first, doubt=Doubt.SEALED)
    deliveries, others = Deliveries(deliver), Deliveries()
    sender = Sender(first, deliveries.deliver, machine=machine)
    sender.start()
    await started.wait()
    for _ in range(6):
        renewed.clear()
        machine.advance(seconds=first.lease / 2)
        async with asyncio.timeout(60):
            await renewed.wait()
        await Sender(second, others.deliver).drain()
    release.set()
    await until(lambda: deliveries.ended)
    await sender.stop(within=10)

    assert others.begun == []
