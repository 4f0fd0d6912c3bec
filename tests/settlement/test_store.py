"""What a store has to do, in memory and on each database: the outbox and the simulator rely on nothing else."""

import asyncio
from dataclasses import replace
from decimal import Decimal

import pytest

from fastapi_autumn.settlement.entry import Doubt
from fastapi_autumn.settlement.store import NOBODY, Account, Delivered, Ended, Opened, Row, TakenForDeadError, WorkerRow
from memory_store import MemoryStore
from settlement.entries import SANDBOX, a_batch, an_entry, rows

NOW = 1_790_000_000_000
LATER = NOW + 30_000


def due(charge_id, **changes):
    """A row that can be sent."""
    known = {"taken": Decimal(5), "key_number": 1, "doubt": Doubt.NONE, "due_at": NOW}
    return Ended(an_entry(charge_id, **known | changes), owed=True)


def doubtful(charge_id, **changes):
    """A row for which the log has to be asked."""
    return due(charge_id, doubt=Doubt.SEALED, **changes)


async def claim(store, by="w", *, limit=100, doubtful=False, now=NOW, until=LATER):
    return [entry.charge_id for entry in await store.claim(by, limit=limit, doubtful=doubtful, now=now, until=until)]


def lose_an_answer(store, monkeypatch):
    """Have the next commit get through, and its answer lost."""
    commit = store.commit

    async def commit_and_fail(batch):
        monkeypatch.setattr(store, "commit", commit)
        await commit(batch)
        raise OSError("the connection broke")

    monkeypatch.setattr(store, "commit", commit_and_fail)


# Writing.


async def test_what_is_written_is_read_back(store):
    """Every field of an entry survives, to the last digit."""
    entry = an_entry(
        entity_id="seat-1",
        charging="hold",
        credits=Decimal("0.0000000001"),
        cost=Decimal("9999999999.25"),
        taken=Decimal("-0.1"),
        required=Decimal("1E+3"),
        loose_feature="ai_credits",
        loose_id="grant",
        loose_until=NOW + 2,
        to_grant=Decimal("0.5"),
        held=True,
        key_number=7,
        doubt=Doubt.IN_USE,
        contested=True,
        attempts=3,
        due_at=NOW + 1,
        last_error="why",
    )
    await store.commit(a_batch("w", Opened(entry)))

    assert list(await store.list()) == [Row("open", entry, SANDBOX)]


async def test_the_last_word_counts(store):
    """A charge has one row: what ends it replaces what began it, and nothing is left of one that owes nothing."""
    await store.commit(a_batch("w", Opened(an_entry("w-1")), Opened(an_entry("w-2"))))
    await store.commit(a_batch("w", due("w-1"), Ended(an_entry("w-2"), owed=False), beat=2, confirmed=1))

    ((charge_id, (state, entry)),) = (await rows(store)).items()
    assert (charge_id, state, entry.doubt) == ("w-1", "due", Doubt.NONE)


async def test_a_result_is_written_by_whoever_holds_the_claim(store):
    """A worker that comes back after its lease does not overwrite what the next one has made of the row."""
    await store.commit(a_batch("slow", due("w-1"), due("w-2")))
    await store.commit(a_batch("next"))
    assert await claim(store, "slow") == ["w-1", "w-2"]
    assert await claim(store, "next", now=LATER + 1, until=LATER + 30_000) == ["w-1", "w-2"]
    refused = an_entry("w-1", last_error="no such customer")
    await store.commit(a_batch("next", Delivered(refused, "shortfall"), beat=2, confirmed=1))
    await store.commit(
        a_batch("slow", Delivered(an_entry("w-1"), None), Delivered(an_entry("w-2"), "due"), beat=2, confirmed=1)
    )

    found = await rows(store)
    assert found["w-1"] == ("shortfall", refused)
    assert await claim(store, "anybody", now=LATER + 2) == []


async def test_a_result_ends_its_claim(store):
    """What is due again can be claimed at once, by anybody; what is done is gone."""
    await store.commit(a_batch("w", due("w-1"), due("w-2")))
    await claim(store)
    again = an_entry("w-1", doubt=Doubt.NONE, attempts=1, due_at=NOW)
    await store.commit(a_batch("w", Delivered(again, "due"), Delivered(an_entry("w-2"), None), beat=2, confirmed=1))

    assert await claim(store, "other") == ["w-1"]
    assert list(await rows(store)) == ["w-1"]


async def test_the_end_of_a_charge_voids_a_claim(store):
    """When the process that made a charge decides how it ended, whoever had claimed its row has nothing more to say."""
    await store.commit(a_batch("maker", Opened(an_entry("w-1"))))
    await store.commit(a_batch("other", due("w-1")))
    await claim(store, "other")
    await store.commit(a_batch("maker", due("w-1", cost=Decimal(3)), beat=2, confirmed=1))
    await store.commit(a_batch("other", Delivered(an_entry("w-1"), None), beat=2, confirmed=1))

    assert (await rows(store))["w-1"][1].cost == 3


async def test_the_end_of_a_charge_voids_a_claim_of_its_own_maker(store):
    """A worker that was taken for dead may have claimed what others made of its charge; its own word counts."""
    await store.commit(a_batch("maker", due("w-1"), due("w-2"), Opened(an_entry("w-3"))))
    assert await claim(store, "maker") == ["w-1", "w-2"]
    await store.commit(a_batch("maker", due("w-1", cost=Decimal(3)), Opened(an_entry("w-2")), beat=2, confirmed=1))
    void = [Delivered(an_entry("w-1"), None), Delivered(an_entry("w-2"), "due")]
    await store.commit(a_batch("maker", *void, beat=3, confirmed=2))

    found = await rows(store)
    assert {charge_id: state for charge_id, (state, _) in found.items()} == {"w-1": "due", "w-2": "open", "w-3": "open"}
    assert found["w-1"][1].cost == 3


@pytest.mark.parametrize("state", [None, "due"])
async def test_a_later_claim_of_the_same_worker_voids_an_earlier_one(store, state):
    """A worker may claim again what the maker wrote anew, while its first delivery still waits for an answer."""
    await store.commit(a_batch("maker", due("w-1")))
    await claim(store, "other", until=LATER)
    await store.commit(a_batch("maker", due("w-1", cost=Decimal(3)), beat=2, confirmed=1))
    await claim(store, "other", until=LATER + 1)
    await store.commit(a_batch("other", Delivered(an_entry("w-1"), state, LATER)))

    assert (await rows(store))["w-1"][1].cost == 3
    await store.commit(a_batch("other", Delivered(an_entry("w-1"), None, LATER + 1), beat=2, confirmed=1))
    assert await rows(store) == {}


# Showing life.


async def test_a_commit_is_a_heartbeat(store):
    """Each commit says that the worker lives, and up to which charge its rows are complete."""
    await store.commit(a_batch("w", complete_to=3, seen_at=NOW))
    await store.commit(a_batch("w", complete_to=8, seen_at=NOW + 5, beat=2, confirmed=1))

    assert await store.workers() == [WorkerRow("w", beat=2, complete_to=8, seen_at=NOW + 5)]


async def test_a_worker_that_is_not_known_writes_nothing(store):
    """Others have settled its charges, so nothing that it believed still holds; it has to find out."""
    await store.commit(a_batch("w"))
    await store.leave("w")

    with pytest.raises(TakenForDeadError):
        await store.commit(a_batch("w", due("w-1"), beat=2, confirmed=1))
    assert await rows(store) == {}


async def test_a_database_that_has_gone_back_is_noticed(store):
    """A database that knows an earlier state of a worker than it confirmed was restored from an older copy."""
    await store.commit(a_batch("w", beat=4))

    with pytest.raises(TakenForDeadError):
        await store.commit(a_batch("w", due("w-1"), beat=6, confirmed=5))
    assert await rows(store) == {}


@pytest.mark.parametrize("beat", [7, 9])
async def test_a_twin_is_noticed(store, beat):
    """A process that was cloned, or put back to a snapshot of its memory, numbers charges as its twin has done."""
    await store.commit(a_batch("w", beat=4))
    await store.commit(a_batch("w", beat=beat, confirmed=4))

    with pytest.raises(TakenForDeadError):
        await store.commit(a_batch("w", due("w-1"), beat=7, confirmed=6))
    assert await rows(store) == {}


@pytest.mark.parametrize("confirmed", [0, 3])
async def test_a_lost_answer_is_no_reason_to_think_so(store, confirmed, monkeypatch):
    """A commit that got through without the worker knowing leaves the database ahead of it, which is no harm."""
    if confirmed:
        await store.commit(a_batch("w", beat=3))
    lose_an_answer(store, monkeypatch)
    with pytest.raises(OSError, match="broke"):
        await store.commit(a_batch("w", Opened(an_entry("w-1")), beat=4, confirmed=confirmed))
    await store.commit(a_batch("w", Opened(an_entry("w-1")), due("w-2"), beat=5, confirmed=confirmed))

    assert set(await rows(store)) == {"w-1", "w-2"}
    assert [worker.beat for worker in await store.workers()] == [5]


async def test_a_new_name_forgets_the_old_one(store):
    """A worker that begins again leaves no open row under its old name, nor the name, which knows less than is true."""
    await store.commit(a_batch("old", Opened(an_entry("old-1")), due("old-2"), complete_to=2))
    await store.commit(a_batch("other", Opened(an_entry("other-1"))))
    await store.commit(a_batch("new", Opened(an_entry("old-3")), former_id="old"))

    assert set(await rows(store)) == {"old-2", "old-3", "other-1"}
    assert [worker.id for worker in await store.workers()] == ["new", "other"]


async def test_one_that_stops_is_forgotten(store):
    """Nobody looks for the charges of a worker that has written everything."""
    await store.commit(a_batch("w"))
    await store.leave("w")

    assert await store.workers() == []


# Claiming.


async def test_claims_what_is_due_oldest_first(store):
    """Rows are claimed in the order in which they became due; what is open, kept or due later is left."""
    ages = {"w-1": 10, "w-2": 30, "w-3": 20}
    later, kept = due("w-4", due_at=NOW + 1), Delivered(an_entry("w-6"), "shortfall")
    await store.commit(a_batch("w", due("w-6", due_at=NOW)))
    assert await claim(store, "w") == ["w-6"]
    changes = [due(name, due_at=NOW - age) for name, age in ages.items()]
    await store.commit(a_batch("w", *changes, later, Opened(an_entry("w-5", due_at=NOW)), kept, beat=2, confirmed=1))

    assert await claim(store, limit=2) == ["w-2", "w-3"]
    assert await claim(store, limit=2) == ["w-1"]
    assert await claim(store, limit=2) == []


async def test_a_claim_lasts_as_long_as_its_lease(store):
    """What a worker claimed and never finished is somebody else's afterwards, and in doubt: it may have been sent."""
    await store.commit(a_batch("w", due("w-1"), doubtful("w-2")))
    (first,) = await store.claim("w", limit=9, doubtful=False, now=NOW, until=LATER)
    await claim(store, "w", doubtful=True)

    assert await claim(store, "other", now=LATER) == []
    (again,) = await store.claim("other", limit=9, doubtful=False, now=LATER + 1, until=LATER + 9)
    assert (first.doubt, again) == (Doubt.NONE, first._replace(doubt=Doubt.UNKNOWN))
    later = await store.claim("third", limit=9, doubtful=True, now=LATER + 10, until=LATER + 20)
    assert [entry.doubt for entry in later] == [Doubt.UNKNOWN, Doubt.SEALED]


async def test_a_claim_can_be_renewed(store):
    """Whoever still works on a row keeps it; what others have claimed since, and what nobody claims, is left alone."""
    await store.commit(a_batch("w", due("w-1"), due("w-2"), due("w-3")))
    assert await claim(store, "w", limit=1) == ["w-1"]
    assert await claim(store, "other", limit=1) == ["w-2"]
    await store.renew("w", ["w-1", "w-2", "w-3"], until=LATER + 9)

    assert await claim(store, "third", now=LATER + 1, until=LATER + 20) == ["w-2", "w-3"]
    assert await claim(store, "third", now=LATER + 10, until=LATER + 20) == ["w-1"]


async def test_those_in_doubt_are_claimed_apart(store):
    """Looking up is slow; what can be sent at once never waits behind it."""
    doubts = [Doubt.UNKNOWN, Doubt.SEALED, Doubt.IN_USE]
    await store.commit(a_batch("w", due("w-0"), *(due(f"w-{doubt.value}", doubt=doubt) for doubt in doubts)))

    assert await claim(store) == ["w-0"]
    assert sorted(await claim(store, doubtful=True)) == ["w-in_use", "w-sealed", "w-unknown"]


async def test_no_customer_crowds_out_the_others(store):
    """Of one with a hundred rows in doubt four are claimed in one go, and the first of every other one before those."""
    crowd = [doubtful(f"w-{number:03}", due_at=NOW - 1000 + number) for number in range(100)]
    others = [doubtful(f"o-{name}", customer_id=name, due_at=NOW - 1) for name in ("bob", "cyd", "dan")]
    await store.commit(a_batch("w", *crowd, *others))

    assert set(await claim(store, limit=4, doubtful=True)) == {"w-000", "o-bob", "o-cyd", "o-dan"}
    assert await claim(store, limit=50, doubtful=True) == ["w-001", "w-002", "w-003", "w-004"]


async def test_two_claim_at_once_without_a_double(new_store):
    """Two workers that claim as fast as they can get every row, and none of them twice."""
    first, second = await new_store(), await new_store()
    await first.commit(a_batch("w", *(due(f"w-{number}") for number in range(300))))

    async def claim_all(store, name):
        claimed = []
        while found := await claim(store, name, limit=7):
            claimed += found
        return claimed

    parts = await asyncio.gather(*(claim_all(store, name) for name in "ab" for store in (first, second)))

    together = [charge_id for part in parts for charge_id in part]
    assert len(together) == len(set(together)) == 300


# Whose rows.

ELSEWHERE = {
    "another organisation": replace(SANDBOX, key_digest="another key"),
    "an emulator": Account("emulator", "emulator at /tmp/emulator.db", "emulator", "emulator"),
    "live": replace(SANDBOX, key_digest="a live key", environment="live"),
}


@pytest.mark.parametrize("other", ELSEWHERE.values(), ids=ELSEWHERE)
async def test_accounts_never_touch_each_others_rows(new_store, other):
    """Two services, an emulator, a sandbox and a live organisation may share one database."""
    ours, theirs = await new_store(), await new_store(other)
    await ours.learn("acme")
    await theirs.learn("globex")
    await ours.commit(a_batch("w", due("w-1"), doubtful("w-2"), Opened(an_entry("w-3"))))

    assert await claim(theirs) == await claim(theirs, doubtful=True) == []
    assert await theirs.workers() == []
    await ours.leave("w")
    assert await theirs.adopt_orphans(by="x", now=NOW) == 0
    assert list(await theirs.list()) == []
    assert await theirs.count() == {"open": 0, "due": 0, "shortfall": 0}
    assert await theirs.next_due_at() is None
    assert set(await claim(ours)) == {"w-1"}


async def test_a_new_key_of_the_organisation_is_the_same_account(new_store):
    """After a rotation the rows of the old key are delivered with the new one, once Autumn has said whose it is."""
    before, after = await new_store(), await new_store(replace(SANDBOX, key_digest="the next key"))
    await before.commit(a_batch("w", due("w-1")))
    await before.learn("acme")
    assert await claim(after) == []
    await after.learn("acme")

    assert after.account == replace(SANDBOX, key_digest="the next key", organisation="acme")
    assert [worker.id for worker in await after.workers()] == ["w"]
    assert await claim(after) == ["w-1"]


async def test_what_an_account_learnt_is_known_at_the_next_start(new_store):
    """Autumn has to be asked once for each key, and not at every start."""
    await (await new_store()).learn("acme")

    assert (await new_store()).account.organisation == "acme"


async def test_a_person_sees_all_accounts(new_store):
    """Someone who looks at the database without a key sees whose each row is, and belongs to no account."""
    live = replace(SANDBOX, key_digest="a live key", environment="live")
    await (await new_store()).commit(a_batch("w", due("w-1")))
    await (await new_store(live)).commit(a_batch("x", due("x-1", created_at=NOW + 1)))
    nobody = await new_store(NOBODY)

    assert [row.account for row in await nobody.list(everybody=True)] == [SANDBOX, live]
    assert (await nobody.count(everybody=True))["due"] == 2
    assert list(await nobody.list()) == []


# Looking after the dead.


async def a_dead_worker(store, *changes):
    """A worker as the others see it, with one charge open and two that its rows are complete to."""
    await store.commit(a_batch("dead", Opened(an_entry("dead-1")), *changes, complete_to=2))
    await store.commit(a_batch("living"))
    return next(worker for worker in await store.workers() if worker.id == "dead")


async def test_taking_over(store):
    """The open charges of a silent worker become due, those never written are added, and the worker is forgotten."""
    worker = await a_dead_worker(store, due("dead-2", due_at=NOW + 9))
    unwritten = [an_entry("dead-3", due_at=0), an_entry("dead-1", due_at=0, cost=Decimal(1))]

    assert await store.take_over(worker, by="living", unwritten=unwritten, now=NOW) == 3
    found = await rows(store)
    assert {charge_id: (state, entry.due_at) for charge_id, (state, entry) in found.items()} == {
        "dead-1": ("due", NOW),
        "dead-2": ("due", NOW + 9),
        "dead-3": ("due", 0),
    }
    assert found["dead-1"][1].cost == 0
    assert [worker.id for worker in await store.workers()] == ["living"]


async def test_a_sign_of_life_in_the_last_moment(store):
    """A worker that speaks up while its charges are being searched for keeps them."""
    worker = await a_dead_worker(store)
    assert await store.claim_worker(worker, now=NOW, until=LATER)
    await store.commit(a_batch("dead", beat=2, confirmed=1, complete_to=2))

    assert await store.take_over(worker, by="living", unwritten=[an_entry("dead-3")], now=NOW) is None
    assert {charge_id: state for charge_id, (state, _) in (await rows(store)).items()} == {"dead-1": "open"}


async def test_a_worker_is_taken_over_once(store):
    """Of two that settle a dead worker at the same time, one does."""
    worker = await a_dead_worker(store)

    assert await store.take_over(worker, by="living", unwritten=[], now=NOW) == 1
    assert await store.take_over(worker, by="other", unwritten=[an_entry("dead-9")], now=NOW) is None
    assert set(await rows(store)) == {"dead-1"}


async def test_a_silent_worker_is_claimed_by_one(store):
    """While one looks for what a worker never wrote the others leave it alone; if that one dies as well, they try."""
    worker = await a_dead_worker(store)

    assert await store.claim_worker(worker, now=NOW, until=LATER)
    assert not await store.claim_worker(worker, now=LATER, until=LATER + 9)
    assert await store.claim_worker(worker, now=LATER + 1, until=LATER + 9)
    assert not await store.claim_worker(replace(worker, beat=0), now=LATER + 99, until=LATER + 999)


async def test_the_claims_of_the_dead_end_with_them(store):
    """What a dead worker had claimed for minutes is somebody else's as soon as it is taken over, and in doubt."""
    worker = await a_dead_worker(store, due("dead-2"))
    assert await claim(store, "dead") == ["dead-2"]

    await store.take_over(worker, by="living", unwritten=[], now=NOW)
    found = await store.claim("living", limit=9, doubtful=False, now=NOW, until=LATER)
    assert [(entry.charge_id, entry.doubt) for entry in found] == [("dead-2", Doubt.UNKNOWN)]


async def test_the_claims_of_one_that_stopped_end_with_it(store):
    """A look-up that a stop cut short does not wait for the end of its claim."""
    await store.commit(a_batch("stopped", doubtful("w-1")))
    await store.commit(a_batch("living", doubtful("w-2")))
    assert await claim(store, "stopped", limit=1, doubtful=True) == ["w-1"]
    assert await claim(store, "living", limit=1, doubtful=True) == ["w-2"]
    await store.leave("stopped")

    assert await store.adopt_orphans(by="living", now=NOW) == 0
    assert await claim(store, "living", doubtful=True) == ["w-1"]


async def test_charges_left_open_by_one_that_stopped(store):
    """They are due at once; those of a worker that is still known are its own."""
    await store.commit(a_batch("stopped", Opened(an_entry("w-1"))))
    await store.commit(a_batch("living", Opened(an_entry("w-2"))))
    await store.leave("stopped")

    assert await store.adopt_orphans(by="living", now=NOW) == 1
    assert await store.adopt_orphans(by="living", now=NOW) == 0
    assert await claim(store, "living", doubtful=True) == ["w-1"]
    assert (await rows(store))["w-2"][0] == "open"


# For people.


async def test_for_people(store):
    """Rows are counted and listed, oldest first; what was given up can be retried, from the log on, or dropped."""
    kept = an_entry("w-2", doubt=Doubt.NONE, attempts=4, last_error="why", created_at=NOW - 5, due_at=NOW + 99)
    await store.commit(a_batch("w", Opened(an_entry("w-1")), due("w-2")))
    await claim(store)
    await store.commit(a_batch("w", Delivered(kept, "shortfall"), beat=2, confirmed=1))

    assert await store.count() == {"open": 1, "due": 0, "shortfall": 1}
    assert [row.entry.charge_id for row in await store.list()] == ["w-2", "w-1"]
    assert [row.entry.charge_id for row in await store.list(limit=1)] == ["w-2"]
    assert [row.entry for row in await store.list("shortfall")] == [kept]
    assert not await store.retry("w-1", now=NOW)
    assert await store.retry("w-2", now=NOW)
    assert (await rows(store))["w-2"] == ("due", kept._replace(doubt=Doubt.UNKNOWN, attempts=0, due_at=NOW))
    assert await claim(store, doubtful=True) == ["w-2"]
    assert await store.drop("w-2")
    assert not await store.drop("w-2")
    assert not await store.retry("w-2", now=NOW)


async def test_when_the_next_one_is_due(store):
    """Only rows that will be sent by themselves count, claimed or not."""
    assert await store.next_due_at() is None
    await store.commit(a_batch("w", due("w-1", due_at=NOW + 7), due("w-2", due_at=NOW + 3), Opened(an_entry("w-3"))))

    assert await store.next_due_at() == NOW + 3


async def test_a_simulator_can_lose_a_call_and_an_answer(memory):
    """The store in memory loses the work when `before` raises, and only the answer when `after` does."""

    class Faulty(MemoryStore):
        lost = ""

        async def before(self, what):
            if self.lost == "work":
                raise OSError(what)

        async def after(self, what):
            if self.lost == "answer":
                raise OSError(what)

    store = Faulty(memory, SANDBOX)
    await store.open()
    for lost in ("work", "answer"):
        store.lost = lost
        with pytest.raises(OSError, match="commit"):
            await store.commit(a_batch("w", due(f"w-{lost}")))
    store.lost = ""
    backup = memory.backup()
    assert list(await rows(store)) == ["w-answer"]
    await store.drop("w-answer")
    memory.restore(backup)
    assert list(await rows(store)) == ["w-answer"]
