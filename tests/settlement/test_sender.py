"""What the sender makes of each way in which a delivery can end."""

import asyncio
from decimal import Decimal

import pytest

from fastapi_autumn.errors import (
    AmountError,
    ConnectFailed,
    CustomerNotFound,
    DuplicateRequest,
    NoAnswer,
    Overloaded,
    RateLimited,
    RequestRejected,
    ServerFailure,
    UnexpectedAnswer,
)
from fastapi_autumn.settlement import Action
from settlement.entries import Deliveries, a_refund, sending, until, written

TRACK = "balances.track"
DUPLICATE = DuplicateRequest(TRACK, "duplicate", status=409, code="duplicate_idempotency_key", message="")
NOT_FOUND = CustomerNotFound(TRACK, status=404, code="customer_not_found", message="")
BAD_KEY = RequestRejected(TRACK, status=401, code="invalid_secret_key", message="")


async def drain_once(outbox, deliveries, **options):
    async with sending(outbox, deliveries, **options) as sender:
        await sender.drain()


@pytest.mark.parametrize("answer", [None, DUPLICATE], ids=["done", "409"])
async def test_delivered(outbox, answer):
    """An answer, or Autumn's word that it has had this key, ends an entry."""
    outbox.put(a_refund(outbox))
    deliveries = Deliveries(answer)
    await drain_once(outbox, deliveries)

    assert len(deliveries.sent) == 1
    assert await written(outbox) == {}


@pytest.mark.parametrize(
    ("error", "maybe_sent"),
    [
        (ConnectFailed(TRACK, "refused"), False),
        (Overloaded(TRACK, "Autumn is down"), False),
        (RateLimited(TRACK, "429"), False),
        (NoAnswer(TRACK, "dropped"), True),
        (ServerFailure(TRACK, "500"), True),
        (UnexpectedAnswer(TRACK, "another shape"), True),
        (BAD_KEY, False),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_tried_again(outbox, clock, error, maybe_sent):
    """What may pass by itself is tried again under the same key; whether Autumn may have acted is remembered."""
    refund = a_refund(outbox)
    outbox.put(refund)
    deliveries = Deliveries(error)
    await drain_once(outbox, deliveries)

    ((state, entry),) = (await written(outbox)).values()
    assert (state, entry.attempts, entry.last_error) == ("due", 1, str(error))
    assert entry.maybe_sent_at == (clock() if maybe_sent else None)
    assert 250 <= entry.due_at - clock() <= 500
    clock.advance(seconds=0.5)
    await drain_once(outbox, deliveries)

    first, second = deliveries.sent
    assert first.idempotency_key == second.idempotency_key == f"{refund.charge_id}:track"
    assert await written(outbox) == {}


@pytest.mark.parametrize("error", [NOT_FOUND, AmountError("negative")], ids=lambda error: type(error).__name__)
async def test_parked(outbox, clock, caplog, error):
    """What Autumn refuses for good is kept for a person, loudly, and not sent again."""
    outbox.put(a_refund(outbox))
    deliveries = Deliveries(error)
    await drain_once(outbox, deliveries)
    clock.advance(hours=48)
    await drain_once(outbox, deliveries)

    ((state, entry),) = (await written(outbox)).values()
    assert (state, entry.last_error, len(deliveries.sent)) == ("parked", str(error), 1)
    assert "a person has to decide" in caplog.text


async def test_waits_longer_each_time(outbox, clock):
    """The pause doubles, with jitter, up to five minutes."""
    outbox.put(a_refund(outbox))
    deliveries = Deliveries(otherwise=ConnectFailed(TRACK, "refused"))
    pauses = []
    for _ in range(14):
        await drain_once(outbox, deliveries)
        ((_, entry),) = (await written(outbox)).values()
        pauses.append((entry.due_at - clock()) / 1000)
        clock.ms = entry.due_at

    ceilings = [min(300, 0.5 * 2**attempt) for attempt in range(14)]
    assert all(ceiling / 2 <= pause <= ceiling for pause, ceiling in zip(pauses, ceilings, strict=True))
    assert len(deliveries.sent) == 14


@pytest.mark.parametrize(("told", "least", "most"), [(7, 7, 8), (1_000_000, 3600, 3601)])
async def test_waits_as_long_as_autumn_says(outbox, clock, told, least, most):
    """Retry-After is kept to, but not for more than an hour."""
    outbox.put(a_refund(outbox))
    await drain_once(outbox, Deliveries(RateLimited(TRACK, "429", retry_after=told)))

    ((_, entry),) = (await written(outbox)).values()
    assert least <= (entry.due_at - clock()) / 1000 <= most


async def test_after_a_server_failure_the_event_log_has_its_time(outbox, clock):
    """A 5xx frees the key at Autumn, so the next attempt waits until the event log can be asked instead."""
    outbox.put(a_refund(outbox))
    await drain_once(outbox, Deliveries(ServerFailure(TRACK, "500", retry_after=1)), delay=60)

    ((_, entry),) = (await written(outbox)).values()
    assert entry.look_first
    assert entry.due_at - clock() == 60_000


async def test_parked_when_nobody_can_say(outbox, clock):
    """23 hours after an attempt that may have got through it is not sent again: Autumn may have forgotten the key."""
    outbox.put(a_refund(outbox))
    deliveries = Deliveries(otherwise=NoAnswer(TRACK, "dropped"))
    await drain_once(outbox, deliveries)
    clock.advance(hours=23, seconds=-60)
    await drain_once(outbox, deliveries)
    assert [state for state, _ in (await written(outbox)).values()] == ["due"]
    clock.advance(hours=1)
    await drain_once(outbox, deliveries)

    assert [state for state, _ in (await written(outbox)).values()] == ["parked"]
    assert len(deliveries.sent) == 2


async def test_parked_when_a_crash_was_long_ago(open_outbox, clock):
    """A worker that died while it was delivering may have delivered: a day later that is for a person too."""
    crashed, later = await open_outbox(), await open_outbox()
    crashed.put(a_refund(crashed))
    await crashed.flush()
    assert await crashed.claim(1)
    clock.advance(hours=24)
    deliveries = Deliveries()
    await drain_once(later, deliveries)

    assert [state for state, _ in (await written(later)).values()] == ["parked"]
    assert deliveries.sent == []


async def test_a_day_of_certainty_is_no_reason_to_park(outbox, clock):
    """While Autumn could not be reached at all, nothing is uncertain, however long it lasts."""
    outbox.put(a_refund(outbox))
    deliveries = Deliveries(ConnectFailed(TRACK, "refused"))
    await drain_once(outbox, deliveries)
    clock.advance(hours=72)
    await drain_once(outbox, deliveries)

    assert len(deliveries.sent) == 2
    assert await written(outbox) == {}


async def test_what_follows_is_delivered_too(outbox):
    """When a look-up finds a deduction, the refund that follows from it goes through the table as well."""

    def found(entry):
        return a_refund(outbox, charge_id=entry.charge_id, value=Decimal(-5), due_at=0)

    outbox.put(a_refund(outbox, action=Action.LOOK_UP))
    deliveries = Deliveries(found)
    await drain_once(outbox, deliveries)

    assert [entry.action for entry in deliveries.sent] == [Action.LOOK_UP, Action.TRACK]
    assert await written(outbox) == {}


async def test_a_poisoned_entry_holds_up_nobody(outbox):
    """One entry that meets a defect each time leaves all others delivered, and is itself not lost."""
    poisoned = a_refund(outbox)
    others = [a_refund(outbox) for _ in range(40)]
    for entry in [poisoned, *others]:
        outbox.put(entry)

    def deliver(entry):
        return ValueError("poison") if entry.charge_id == poisoned.charge_id else None

    await drain_once(outbox, Deliveries(otherwise=deliver))

    ((charge_id, (state, _)),) = (await written(outbox)).items()
    assert (charge_id, state) == (poisoned.charge_id, "due")


async def test_one_that_hangs_holds_up_nobody(outbox):
    """While one delivery gets no answer, hundreds of others go on."""
    hanging = a_refund(outbox)
    others = [a_refund(outbox) for _ in range(200)]
    sent = []

    class Hanging(Deliveries):
        async def send(self, entry):
            if entry.charge_id == hanging.charge_id:
                await asyncio.sleep(60)
            sent.append(entry.charge_id)

    for entry in [hanging, *others]:
        outbox.put(entry)
    async with sending(outbox, Hanging()):
        await until(lambda: len(sent) == len(others), seconds=8)

    assert list(await written(outbox)) == [hanging.charge_id]


async def test_two_senders_share_without_a_double(open_outbox):
    """Two workers deliver everything, each entry once."""
    first, second = await open_outbox(), await open_outbox()
    deliveries = Deliveries()
    for _ in range(300):
        first.put(a_refund(first))
    await first.flush()
    async with sending(first, deliveries), sending(second, deliveries):

        async def is_done() -> bool:
            return not await written(first)

        await until(is_done)

    assert len(deliveries.sent) == len(set(deliveries.ids)) == 300


async def test_stopping_finishes_what_is_under_way(outbox):
    """A stop lets a delivery that is under way end, and takes no more."""
    started = asyncio.Event()

    class Slow(Deliveries):
        async def send(self, entry):
            started.set()
            await asyncio.sleep(0.2)
            return await super().send(entry)

    deliveries = Slow()
    outbox.put(a_refund(outbox))
    async with sending(outbox, deliveries):
        await started.wait()
    await outbox.flush()

    assert len(deliveries.sent) == 1
    assert await written(outbox) == {}


async def test_stopped_in_the_middle_it_is_delivered_later(open_outbox, clock):
    """What a stop cuts off stays claimed until its lease ends, and is then delivered under the same key."""
    stopped, next_one = await open_outbox(), await open_outbox()
    started = asyncio.Event()

    class Endless(Deliveries):
        async def send(self, entry):
            started.set()
            await asyncio.sleep(60)

    stopped.put(a_refund(stopped))
    async with sending(stopped, Endless()) as sender:
        await started.wait()
        await sender.stop(within=0.05)
    deliveries = Deliveries()
    await drain_once(next_one, deliveries)
    assert deliveries.sent == []
    clock.advance(seconds=31)
    await drain_once(next_one, deliveries)

    assert [entry.maybe_sent_at is not None for entry in deliveries.sent] == [True]
    assert await written(next_one) == {}
