"""Workers that die, and workers that only seem to: nobody's charge is settled twice, and none is forgotten."""

import asyncio
from dataclasses import replace

import pytest

from fastapi_autumn.errors import NoAnswer
from fastapi_autumn.settlement.entry import Doubt
from fastapi_autumn.settlement.rescue import Rescuer
from memory_store import MemoryStore
from settlement.entries import SANDBOX, FakeMachine, a_charge, freeze, kill, rows, until

SILENCE = 155.0


class Finder:
    """Stands for `Delivery.find_unwritten`: what Autumn's log knows of a dead worker."""

    def __init__(self, *answers):
        self.asked = []
        self._answers = list(answers)

    async def __call__(self, worker):
        self.asked.append(worker)
        answer = self._answers.pop(0) if self._answers else ()
        if callable(answer):
            answer = await answer()
        if isinstance(answer, BaseException):
            raise answer
        return answer


def a_rescuer(outbox, machine, *answers):
    finder = Finder(*answers)
    return Rescuer(outbox, finder, silence=SILENCE, machine=machine), finder


async def beat(*outboxes):
    """Have these commit now, as they do by themselves every few seconds."""
    for outbox in outboxes:
        commits = outbox._commits_done
        outbox._wake.set()
        outbox._hurry.set()
        await until(lambda outbox=outbox, commits=commits: outbox._commits_done > commits)


async def watch(rescuer, machine, *, seconds, beating):
    """Let time pass for a worker that looks round every ten seconds while these show life."""
    for _ in range(int(seconds // 10)):
        machine.advance(seconds=10)
        await beat(*beating)
        await rescuer.look_round()


async def names(outbox):
    return {worker.id for worker in await outbox.store.workers()}


@pytest.fixture
async def living(open_outbox):
    return await open_outbox()


@pytest.fixture
async def other(open_outbox):
    return await open_outbox()


# Silence.


async def test_a_dead_worker_is_settled_after_its_silence(living, other, machine, caplog):
    """Its open charges become due, what it never wrote is found at Autumn, and it is forgotten; not any earlier."""
    charge, unwritten = a_charge(other), a_charge(other, due_at=0)
    other.open(charge)
    await other.flush()
    await kill(other)
    rescuer, finder = a_rescuer(living, machine, [unwritten])
    await watch(rescuer, machine, seconds=160, beating=[living])
    assert finder.asked == []
    await watch(rescuer, machine, seconds=10, beating=[living])

    (worker,) = finder.asked
    # Numbered 2, and never written: Autumn's log is asked for all after 1.
    assert (worker.id, worker.complete_to) == (other.worker_id, 2)
    assert {charge_id: state for charge_id, (state, _) in (await rows(living.store)).items()} == {
        charge.charge_id: "due",
        unwritten.charge_id: "due",
    }
    assert living.has_due.is_set()
    assert "died with 2 charges open" in caplog.text
    assert await names(living) == {living.worker_id}


async def test_a_living_worker_is_never_taken_over(living, other, machine):
    """Signs of life, however far apart within the silence, keep a worker from being settled by others."""
    rescuer, finder = a_rescuer(living, machine)
    for _ in range(4):
        await watch(rescuer, machine, seconds=150, beating=[living])
        await beat(other)

    assert finder.asked == []


async def test_a_clock_that_jumps_kills_nobody(living, other, machine):
    """Silence is counted on a steady clock: this machine's time of day may be minutes off, either way."""
    rescuer, finder = a_rescuer(living, machine)
    await rescuer.look_round()
    for minutes in (50, -100, 50):
        machine.ms += minutes * 60_000
        await rescuer.look_round()

    assert finder.asked == []


async def test_an_outage_of_the_database_kills_nobody(living, other, machine):
    """While nobody could write everybody was silent: counting begins again when this worker can."""
    rescuer, finder = a_rescuer(living, machine)
    await watch(rescuer, machine, seconds=100, beating=[living])
    machine.advance(seconds=600)
    # Nothing was written for so long, so this worker cannot tell.
    await rescuer.look_round()
    await watch(rescuer, machine, seconds=150, beating=[living])
    assert finder.asked == []
    await watch(rescuer, machine, seconds=20, beating=[living])

    assert [worker.id for worker in finder.asked] == [other.worker_id]


async def test_short_lived_processes_settle_a_dead_one(open_outbox, machine):
    """Jobs that never live long enough to watch a silence settle, an hour later, what one of them left."""
    dead = await open_outbox()
    charge = a_charge(dead)
    dead.open(charge)
    await dead.flush()
    await kill(dead)
    asked = []
    for _ in range(5):
        machine.advance(hours=0.3)
        job = await open_outbox()
        rescuer, finder = a_rescuer(job, machine)
        await rescuer.look_round()
        asked.append([worker.id for worker in finder.asked])
        await job.stop(within=30)

    # 0.3, 0.6 and 0.9 hours after its last sign of life, and then for certain.
    assert asked == [[], [], [], [dead.worker_id], []]
    assert [state for state, _ in (await rows(dead.store)).values()] == ["due"]


async def test_an_hour_by_a_clock_that_may_be_wrong_proves_nothing(open_outbox, machine):
    """A process that does not know Autumn's clock takes nobody for dead by theirs, and asks only if somebody may be."""
    dead = await open_outbox()
    await kill(dead)
    job = await open_outbox()
    answers = []

    async def knows_the_time() -> bool:
        return answers.pop(0)

    finder = Finder()
    rescuer = Rescuer(job, finder, silence=SILENCE, knows_the_time=knows_the_time, machine=machine)
    await rescuer.look_round()
    machine.advance(hours=2)
    await beat(job)
    rescuer._watched.clear()
    answers.append(False)
    await rescuer.look_round()
    assert finder.asked == []

    answers.append(True)
    rescuer._watched.clear()
    await rescuer.look_round()

    assert [worker.id for worker in finder.asked] == [dead.worker_id]


async def test_each_dead_worker_is_settled_by_one(living, open_outbox, other, machine):
    """Of several that see a worker die one takes care of it; if that one fails, another does a little later."""
    second = await open_outbox()
    await kill(other)
    search_ends = asyncio.Event()

    async def searching():
        await search_ends.wait()
        return ()

    first_rescuer, first_finder = a_rescuer(living, machine, searching)
    second_rescuer, second_finder = a_rescuer(second, machine)
    beating = [living, second]
    await watch(first_rescuer, machine, seconds=160, beating=beating)
    await watch(second_rescuer, machine, seconds=160, beating=beating)
    first_round = asyncio.create_task(first_rescuer.look_round())
    await until(lambda: first_finder.asked)
    await watch(second_rescuer, machine, seconds=100, beating=beating)
    assert second_finder.asked == []
    await watch(second_rescuer, machine, seconds=40, beating=beating)
    assert [worker.id for worker in second_finder.asked] == [other.worker_id]
    search_ends.set()
    await first_round

    assert await names(living) == {living.worker_id, second.worker_id}


async def test_a_sign_of_life_during_the_search(living, other, machine):
    """A worker that speaks up while its charges are being searched for keeps them, and its name."""
    charge = a_charge(other)
    other.open(charge)
    await other.flush()
    name, thaw = other.worker_id, await freeze(other)

    async def found_alive():
        thaw()
        await until(lambda: not other.unwritten and not other._committing)
        await beat(other)
        return [a_charge(other)]

    rescuer, finder = a_rescuer(living, machine, found_alive)
    await watch(rescuer, machine, seconds=170, beating=[living])

    assert finder.asked
    assert {charge_id: state for charge_id, (state, _) in (await rows(living.store)).items()} == {
        charge.charge_id: "open"
    }
    await beat(other)
    assert other.worker_id == name


async def test_a_search_that_fails_is_repeated(living, open_outbox, machine, caplog):
    """While Autumn cannot be asked a dead worker is not forgotten, and does not keep the others from being settled."""
    dead = [await open_outbox(machine=FakeMachine(name)) for name in ("a", "b")]
    for outbox in dead:
        await kill(outbox)
    rescuer, finder = a_rescuer(living, machine, NoAnswer("events.list", "dropped"), (), ())
    await watch(rescuer, machine, seconds=170, beating=[living])
    assert [worker.id for worker in finder.asked] == [outbox.worker_id for outbox in dead]
    assert "cannot be looked up yet" in caplog.text
    await watch(rescuer, machine, seconds=140, beating=[living])

    assert finder.asked[2].id == dead[0].worker_id
    assert await names(living) == {living.worker_id}


async def test_what_a_worker_that_is_cut_off_takes_later_is_found(living, other, machine, memory):
    """Cut off, taken over, then killed: it opened nothing that could be overlooked, as it showed no life by then."""
    thaw = await freeze(other)
    rescuer, finder = a_rescuer(living, machine)
    opened_at = []
    for second in range(0, 170, 10):
        machine.advance(seconds=10)
        if other.shows_life:
            opened_at.append(second + 10)
        await beat(living)
        await rescuer.look_round()
    await kill(other)
    thaw()

    # The last charge that it may have opened is older than the silence by far more than a call takes.
    assert finder.asked
    assert max(opened_at) < living.lease < SILENCE


# Charges that were left open.


async def test_what_one_left_open_that_stopped_in_order_is_due_at_once(living, other, caplog):
    """Nobody waits for a silence: its worker is known to have ended."""
    charge = a_charge(other)
    other.open(charge)
    await other.stop(within=30)
    rescuer, finder = a_rescuer(living, FakeMachine())
    await rescuer.look_round()

    ((state, entry),) = (await rows(living.store)).values()
    assert (state, entry) == ("due", charge._replace(due_at=living.now()))
    assert entry.doubt is Doubt.UNKNOWN
    assert finder.asked == []
    assert "stopped with 1 charges open" in caplog.text


async def test_rows_of_other_accounts_are_left_alone(living, open_outbox, memory, machine):
    """The dead of another organisation, or of an emulator, are its own."""
    account = replace(SANDBOX, key_digest="another key", organisation="globex")
    dead = await open_outbox(MemoryStore(memory, account))
    dead.open(a_charge(dead))
    await dead.flush()
    await kill(dead)
    rescuer, finder = a_rescuer(living, machine)
    await watch(rescuer, machine, seconds=200, beating=[living])

    assert finder.asked == []
    assert [state for state, _ in (await rows(dead.store)).values()] == ["open"]


# The loop.


async def test_the_loop_goes_on_whatever_fails(open_outbox, memory, caplog):
    """A database that cannot be read, for a while, ends nothing."""

    class Failing(MemoryStore):
        failures = 2

        async def before(self, what):
            if what == "adopt_orphans" and self.failures:
                self.failures -= 1
                raise OSError("the connection broke")

    outbox = await open_outbox(Failing(memory, SANDBOX), lease=0.5)
    gone = await open_outbox(lease=0.5)
    gone.open(a_charge(gone))
    await gone.stop(within=30)
    rescuer = Rescuer(outbox, Finder(), silence=SILENCE)
    rescuer.start()
    await outbox.has_due.wait()
    await rescuer.stop(within=30)

    assert "cannot be searched" in caplog.text


async def test_stopping_lets_a_round_end(open_outbox, memory):
    """A round that is cancelled would leave a driver's thread, or its connection, behind."""
    began, release, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Slow(MemoryStore):
        async def before(self, what):
            if what == "adopt_orphans":
                began.set()
                await release.wait()

        async def after(self, what):
            if what == "adopt_orphans":
                ended.set()

    outbox = await open_outbox(Slow(memory, SANDBOX))
    rescuer = Rescuer(outbox, Finder(), silence=SILENCE)
    rescuer.start()
    await began.wait()
    stopping = asyncio.create_task(rescuer.stop(within=60))
    await asyncio.sleep(0)
    release.set()
    await stopping

    assert ended.is_set()


async def test_a_stop_that_waits_in_vain_has_an_end(open_outbox, memory):
    """A round that hangs is cut off when the time is up."""
    began = asyncio.Event()

    class Hanging(MemoryStore):
        async def before(self, what):
            if what == "adopt_orphans":
                began.set()
                await asyncio.Event().wait()

    rescuer = Rescuer(await open_outbox(Hanging(memory, SANDBOX)), Finder(), silence=SILENCE)
    rescuer.start()
    await began.wait()
    async with asyncio.timeout(60):
        await rescuer.stop(within=0.01)


async def test_a_rescuer_that_was_not_started_stops(outbox):
    """There is nothing to wait for."""
    await Rescuer(outbox, Finder(), silence=SILENCE).stop(within=1)
