"""Workers that die, and workers that only seem to: nobody's charge is settled twice, and none is forgotten."""

import asyncio
import time
from dataclasses import replace
from decimal import Decimal

import pytest

from fastapi_autumn.errors import NoAnswer
from fastapi_autumn.settlement import Action
from fastapi_autumn.settlement import outbox as outbox_module
from settlement.entries import Deliveries, a_charge, a_refund, kill, sending, until, written


class SteadyTime:
    """A monotonic clock that the test moves; everything else of `time` is real."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __getattr__(self, name):
        return getattr(time, name)

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def steady(monkeypatch) -> SteadyTime:
    steady = SteadyTime()
    monkeypatch.setattr(outbox_module, "time", steady)
    return steady


async def show_life(*outboxes) -> None:
    """Have these commit now, as they do by themselves every few seconds."""
    for outbox in outboxes:
        await outbox._commit({}, outbox._sequence)


async def search(outbox, steady, *, seconds, silence=90.0, beating=()):
    """Let time pass for `outbox`, which looks around every ten seconds; returns whom it found."""
    found = []
    for _ in range(int(seconds // 10)):
        steady.seconds += 10
        outbox.now.advance(seconds=10)
        await show_life(outbox, *beating)
        found += await outbox.find_lost(silence=silence)
    return found


async def test_a_killed_worker_is_found_after_its_silence(open_outbox, steady):
    """A worker that has shown no sign of life for so long is lost, and not a moment earlier."""
    living, killed = await open_outbox(), await open_outbox()
    await kill(killed)

    assert await search(living, steady, seconds=100) == []
    assert [lost.id for lost in await search(living, steady, seconds=10)] == [killed.worker_id]


async def test_a_living_worker_is_never_lost(open_outbox, steady):
    """Signs of life, however far apart within the silence, keep a worker from being settled by others."""
    one, other = await open_outbox(), await open_outbox()
    for _ in range(4):
        assert await search(one, steady, seconds=80) == []
        await show_life(other)


async def test_a_clock_that_jumps_kills_nobody(open_outbox, steady, clock):
    """A jump of the wall clock, of an hour or a day, is no silence."""
    one, other = await open_outbox(), await open_outbox()
    other.open(a_charge(other))
    await other.flush()
    await search(one, steady, seconds=20)
    clock.advance(hours=24)

    assert await search(one, steady, seconds=60) == []
    clock.advance(hours=-48)
    assert await search(one, steady, seconds=10) == []


async def test_an_outage_of_the_database_kills_nobody(open_outbox, steady):
    """When nobody could write, everybody was silent: counting begins again when this worker can."""
    one, other = await open_outbox(), await open_outbox()
    await search(one, steady, seconds=20)
    steady.seconds += 600

    assert await one.find_lost(silence=90) == []
    assert await search(one, steady, seconds=80) == []
    assert [lost.id for lost in await search(one, steady, seconds=30)] == [other.worker_id]


async def test_each_lost_worker_is_settled_by_one(open_outbox, steady):
    """Of several that see a worker die one takes care of it; if that one dies too, the next does after the lease."""
    first, second, killed = await open_outbox(), await open_outbox(), await open_outbox()
    await kill(killed)
    await search(first, steady, seconds=90, beating=[second])
    await search(second, steady, seconds=90, beating=[first])

    assert [lost.id for lost in await search(first, steady, seconds=20, beating=[second])] == [killed.worker_id]
    assert await search(second, steady, seconds=20, beating=[first]) == []
    assert [lost.id for lost in await search(second, steady, seconds=20, beating=[first])] == [killed.worker_id]


async def test_taking_over(open_outbox, steady):
    """The open charges of a lost worker become due, those never written are added, and the worker is forgotten."""
    living, killed = await open_outbox(), await open_outbox()
    charge = a_charge(killed)
    killed.open(charge)
    await killed.flush()
    never_written = a_refund(killed)
    await kill(killed)
    (lost,) = await search(living, steady, seconds=110)
    await living.take_over(lost, [never_written])

    claimed = {entry.charge_id: entry.action for entry in await living.claim(9)}
    assert claimed == {charge.charge_id: Action.LOOK_UP, never_written.charge_id: Action.TRACK}
    assert await search(living, steady, seconds=110) == []


async def test_a_sign_of_life_in_the_last_moment(open_outbox, steady, clock):
    """A worker that speaks up while its charges are being searched for keeps them."""
    living, slow = await open_outbox(), await open_outbox()
    charge = a_charge(slow)
    slow.open(charge)
    await slow.flush()
    slow._writer.cancel()
    (lost,) = await search(living, steady, seconds=110)
    clock.advance(seconds=1)
    await show_life(slow)
    await living.take_over(lost, [a_refund(slow)])

    assert [state for state, _ in (await written(living)).values()] == ["open"]
    await slow._commit({}, 1)
    assert slow.worker_id == lost.id


async def taken_for_dead(open_outbox, steady, *charges):
    """Two outboxes, of which the second lives and was taken over by the first, `charges` and all."""
    living, slow = await open_outbox(lease=6), await open_outbox(lease=6)
    entries = []
    for change in charges:
        entries.append(a_charge(slow, **change))
        slow.open(entries[-1])
    await slow.flush()
    slow._writer.cancel()
    await asyncio.gather(slow._writer, return_exceptions=True)
    for _ in range(60):
        steady.seconds += 2
        await show_life(living)
        if found := await living.find_lost(silence=30):
            await living.take_over(found[0], [])
            break
    return living, slow, entries


async def test_a_slow_worker_finds_out(open_outbox, steady, clock, caplog):
    """One that lives takes another name, loudly, and its kept charge is compared with the event log."""
    living, slow, (charge,) = await taken_for_dead(open_outbox, steady, {})
    old_name = slow.worker_id
    slow._writer = asyncio.create_task(slow._write())
    await until(lambda: slow.worker_id != old_name)
    slow.close(charge.charge_id)
    await slow.flush()

    ((state, entry),) = (await written(living)).values()
    assert "taken for dead" in caplog.text
    assert (state, entry.action, entry.value) == ("due", Action.LOOK_UP, 0)
    assert entry.due_at >= clock() + 6000


@pytest.mark.parametrize("closing", ["before it finds out", "after"])
@pytest.mark.parametrize(("change", "expected"), [(None, 0), (Decimal(-5), -5), (Decimal(-3), -3), (Decimal(2), 2)])
async def test_outcomes_of_a_slow_worker_count(open_outbox, steady, closing, change, expected):
    """Whatever a worker that was taken for dead decides about its charge replaces what others had begun."""
    living, slow, (charge,) = await taken_for_dead(open_outbox, steady, {})

    def close() -> None:
        if change is None:
            slow.close(charge.charge_id)
        else:
            slow.put(replace(charge, action=Action.TRACK, value=change))

    assert [entry.action for entry in await living.claim(1)] == [Action.LOOK_UP]
    if closing == "before it finds out":
        close()
    old_name = slow.worker_id
    slow._writer = asyncio.create_task(slow._write())
    await until(lambda: slow.worker_id != old_name)
    if closing == "after":
        close()
    await slow.flush()
    living.finish(charge)
    await living.flush()

    ((_, entry),) = (await written(living)).values()
    assert (entry.action, entry.value) == (Action.LOOK_UP, expected)


async def test_holds_of_a_slow_worker_are_settled_as_they_are(open_outbox, steady):
    """What was never open in the table, a hold to release, is nobody else's business and stays what it is."""
    _, slow, _ = await taken_for_dead(open_outbox, steady)
    release = a_refund(slow, action=Action.RELEASE, value=Decimal(0))
    slow.put(release)
    slow._writer = asyncio.create_task(slow._write())
    await slow.flush()

    assert [entry.action for _, entry in (await written(slow)).values()] == [Action.RELEASE]


async def test_senders_look_after_each_other(open_outbox):
    """With real time: a worker is killed with charges open, and another one's sender settles them."""
    living, killed = await open_outbox(lease=0.5), await open_outbox(lease=0.5)
    charge = a_charge(killed)
    killed.open(charge)
    await killed.flush()
    await kill(killed)
    lost_refund = a_refund(killed)

    class Recovering(Deliveries):
        async def recover(self, worker):
            assert (worker.id, worker.complete_to) == (killed.worker_id, 1)
            return [lost_refund]

    deliveries = Recovering()
    async with sending(living, deliveries):
        await until(lambda: len(deliveries.sent) == 2)

    assert set(deliveries.ids) == {charge.charge_id, lost_refund.charge_id}


async def test_a_search_that_fails_is_repeated(open_outbox):
    """While Autumn cannot be asked for the charges of a lost worker, the worker is not forgotten."""
    living, killed = await open_outbox(lease=0.5), await open_outbox(lease=0.5)
    await kill(killed)
    attempts = []

    class Failing(Deliveries):
        async def recover(self, worker):
            attempts.append(worker.id)
            living.now.advance(seconds=1)
            if len(attempts) < 3:
                raise NoAnswer("events.list", "dropped")
            return [a_refund(killed)]

    deliveries = Failing()
    async with sending(living, deliveries):
        await until(lambda: deliveries.sent)

    assert attempts == [killed.worker_id] * 3
