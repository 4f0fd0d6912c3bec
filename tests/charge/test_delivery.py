"""What is done at Autumn for an entry, step by step: each credit moves once, whatever gets lost on the way."""

import asyncio
import contextlib
from decimal import Context, Decimal, FloatOperation, Inexact, localcontext

import pytest

from charge.bench import ADA, FAULTS
from fastapi_autumn.charge import _event_log
from fastapi_autumn.charge._event_log import Shown
from fastapi_autumn.errors import CustomerNotFound, NoAnswer, Unavailable
from fastapi_autumn.models import EventTotal
from fastapi_autumn.pricing import ModelPrices
from fastapi_autumn.settlement.entry import STALE_MS, Doubt
from fastapi_autumn.settlement.store import WorkerRow
from settlement.entries import a_charge

NOTHING, FIVE = Decimal(0), Decimal(5)
ONCE = [kind for kind in FAULTS if kind not in {"none", "meanwhile", "400"}]
OUTCOMES = [NOTHING, Decimal(3), FIVE, Decimal(8)]


def close(charge, cost):
    charge.settle(cost)


# Each step fails in each way.


@pytest.mark.parametrize("fault", ONCE)
@pytest.mark.parametrize("cost", [NOTHING, Decimal(3), Decimal(8)], ids=str)
async def test_a_track_moves_once(bench, fault, cost):
    """However the one attempt under a key ends, the customer has paid what the call costs, and no row is left."""
    charge = await bench.open()
    bench.line.fault("balances.track", fault)
    close(charge, cost)
    await bench.settle()
    await bench.line.deliver_delayed()

    assert bench.used == cost
    assert await bench.rows() == []


@pytest.mark.parametrize("fault", ONCE)
@pytest.mark.parametrize("cost", OUTCOMES, ids=str)
async def test_a_hold_is_finalized_once(bench, fault, cost):
    """Released, confirmed, or confirmed with another amount: once, although confirming leaves no trace in the log."""
    charge = await bench.open(charging="hold")
    bench.line.fault("balances.finalize", fault)
    close(charge, cost)
    await bench.settle()
    await bench.line.deliver_delayed()

    assert bench.used == cost
    assert await bench.rows() == []


@pytest.mark.parametrize("fault", ONCE)
@pytest.mark.parametrize("charging", ["deduct", "hold"])
async def test_sealing_fails_in_any_way(bench, fault, charging):
    """After a lost answer its key is used up; that call may fail in every way too."""
    charge = await bench.open(charging=charging)
    bench.line.fault("balances.track", "answer lost")
    bench.line.fault("balances.finalize", "answer lost")
    bench.line.fault("balances.check", fault, fault)
    charge.refund()
    await bench.settle()
    await bench.line.deliver_delayed()

    assert bench.used == 0
    assert bench.events() == ["5", "-5"]


@pytest.mark.parametrize("fault", [kind for kind in ONCE if "after the claim" not in kind])
@pytest.mark.parametrize("operation", ["events.aggregate", "events.list"])
async def test_looking_fails_in_any_way(bench, fault, operation):
    """Until the log has been asked nothing is done."""
    charge = await bench.open()
    bench.line.fault("balances.track", "lost")
    bench.line.fault(operation, fault, fault)
    charge.refund()
    await bench.settle()

    assert bench.used == 0
    assert bench.events() == ["5", "-5"]


@pytest.mark.parametrize("faults", [
    ("500 after the work", "500 after the work", "500 after the work"),
    ("answer lost", "500", "202 without the work"),
    ("late", "late", "crash after the claim"),
    ("doubled by a proxy", "lost", "a stranger's page after the work"),
])  # fmt: skip
@pytest.mark.parametrize("charging", ["deduct", "hold"])
async def test_one_fault_after_the_other(bench, faults, charging):
    """Each new attempt is under its own key, and after a look at the log."""
    charge = await bench.open(charging=charging)
    for operation in ("balances.track", "balances.finalize", "balances.check"):
        bench.line.fault(operation, *faults)
    charge.settle(3)
    await bench.settle(most_rounds=60)
    await bench.line.deliver_delayed()

    assert bench.used == 3
    attempts = bench.keys_of("balances.track") + bench.keys_of("balances.finalize")
    assert len(attempts) == len(set(attempts))


# What each answer means.


async def test_one_attempt_under_a_key(bench):
    """A refund with an unknown outcome is never repeated under its key: the key is used up, and the log is asked."""
    charge = await bench.open()
    bench.line.fault("balances.track", "500 after the work")
    charge.refund()
    await bench.settle()

    assert bench.keys_of("balances.track") == [f"{charge.id}:1"]
    assert bench.keys_of("balances.check") == [f"{charge.id}:check", f"{charge.id}:1"]
    assert bench.events() == ["5", "-5"]


async def test_the_log_is_asked_when_it_can_be_trusted(bench):
    """Not before the delay of Autumn's log has passed since the key was used up."""
    charge = await bench.open()
    bench.line.fault("balances.track", "lost")
    charge.refund()
    await bench.round()
    bench.machine.advance(seconds=1)
    await bench.round()
    asked = len(bench.keys_of("events.aggregate"))
    bench.machine.advance(seconds=119)
    await bench.round()
    assert (asked, len(bench.keys_of("events.aggregate"))) == (0, 0)
    bench.machine.advance(seconds=2)
    await bench.round()

    assert len(bench.keys_of("events.aggregate")) == 1


@pytest.mark.parametrize("shown", [None, 5])
async def test_a_sum_that_lags_is_not_believed(bench, shown):
    """How fresh a sum is nobody knows: unless it shows just what an attempt was to lead to, the log itself is read."""
    charge = await bench.open()
    aggregate = bench.client.events.aggregate

    async def stale(*arguments, **options):
        sums = await aggregate(*arguments, **options)
        total = {} if shown is None else {"ai_usage": EventTotal(count=1, sum=Decimal(shown))}
        return sums.model_copy(update={"total": total})

    bench.client.events.aggregate = stale
    bench.line.fault("balances.track", "answer lost")
    charge.settle(3)
    await bench.settle()

    assert bench.used == 3
    assert bench.keys_of("events.list")


async def test_a_refund_put_off_is_not_delivered(bench):
    """Autumn degrades to 202 over its limits and may never do the work: that is no yes."""
    charge = await bench.open()
    bench.line.fault("balances.track", "202 without the work", "202 without the work")
    charge.refund()
    await bench.round()
    ((row),) = await bench.rows()
    assert row.entry.doubt is Doubt.UNKNOWN
    await bench.settle()

    assert bench.used == 0


@pytest.mark.parametrize("kind", ["a stranger's page after the work", "a stranger's redirect after the work"])
async def test_a_strangers_no_is_no_answer(bench, kind):
    """A proxy's 403 or redirect says nothing about the work: it is neither a shortfall nor repeated for ever."""
    charge = await bench.open()
    bench.line.fault("balances.track", kind)
    charge.refund()
    await bench.settle()

    assert bench.events() == ["5", "-5"]
    assert bench.keys_of("balances.track") == [f"{charge.id}:1"]
    assert await bench.rows() == []


async def test_a_duplicate_is_not_taken_for_done(bench):
    """Autumn crashed with the key claimed and the work undone: the log shows it, and the refund arrives."""
    charge = await bench.open()
    bench.line.fault("balances.track", "crash after the claim")
    charge.refund()
    await bench.settle()

    assert bench.used == 0
    assert bench.events() == ["5", "-5"]


async def test_key_problems_wait(bench):
    """While the key is refused nothing is given up, and nothing is in doubt."""
    charge = await bench.open()
    bench.line.fault("balances.track", *["401"] * 5)
    charge.refund()
    for _ in range(4):
        await bench.round()
        (row,) = await bench.rows()
        assert (row.state, row.entry.doubt) == ("due", Doubt.NONE)
        assert "invalid_secret_key" in row.entry.last_error
        bench.machine.advance(seconds=600)
    await bench.settle()

    assert bench.used == 0


async def test_what_was_not_sent_is_sent_later_under_the_same_key(bench):
    """Refused connections and 429 did nothing, so nothing is in doubt."""
    charge = await bench.open()
    bench.line.fault("balances.track", "refused", "429", "refused")
    charge.refund()
    await bench.settle()

    assert set(bench.keys_of("balances.track")) == {f"{charge.id}:1"}
    assert bench.keys_of("balances.check") == [f"{charge.id}:check"]


async def test_it_waits_longer_each_time(bench):
    """The pause doubles up to five minutes; being told to slow down, or being held back here, is no failure."""
    charge = await bench.open()
    charge.refund()
    pauses = []
    for _ in range(14):
        bench.line.fault("balances.track", "refused")
        await bench.round()
        (row,) = await bench.rows()
        pauses.append((row.entry.due_at - bench.machine.ms) / 1000)
        bench.machine.advance(seconds=pauses[-1])

    assert pauses == [min(300, 0.5 * 2**attempt) for attempt in range(14)]
    bench.line.fault("balances.track", "429")
    await bench.round()
    (row,) = await bench.rows()
    assert 7 <= (row.entry.due_at - bench.machine.ms) / 1000 <= 8
    assert row.entry.attempts == 14
    bench.machine.advance(seconds=8)
    bench.line.fault("balances.track", "held back")
    await bench.round()
    (row,) = await bench.rows()
    assert 1 <= (row.entry.due_at - bench.machine.ms) / 1000 <= 2
    assert row.entry.attempts == 14


# A hold that has ended.


async def test_a_call_that_outlives_its_hold_is_paid(bench):
    """When the hold has run out before the call ended, the credits are taken by a track instead, once."""
    charge = await bench.open(charging="hold")
    bench.machine.advance(seconds=bench.settings.hold_ttl + 1)
    charge.keep()
    await bench.settle()

    assert bench.events() == ["5", "-5", "5"]
    assert bench.used == 5


async def test_a_hold_that_runs_out_while_its_release_is_in_doubt(bench):
    """It gives the credits back by itself, and nothing is given back a second time."""
    charge = await bench.open(charging="hold")
    bench.machine.advance(seconds=bench.settings.hold_ttl - 60)
    bench.line.fault("balances.finalize", "lost")
    charge.refund()
    await bench.settle()

    assert bench.events() == ["5", "-5"]
    assert bench.used == 0


@pytest.mark.parametrize("cost", [NOTHING, FIVE, Decimal(8)], ids=str)
async def test_a_hold_that_somebody_released_is_brought_to_its_cost(bench, cost):
    """Whatever has become of the hold: the log says what is left of it."""
    charge = await bench.open(charging="hold")
    await bench.client.balances.finalize(charge.id, "release")
    close(charge, cost)
    await bench.settle()

    assert bench.used == cost


async def test_a_hold_is_released_only_when_it_is_there(bench):
    """A hold that arrives late is waited for: a release before it would claim its id, and it would stay for ever."""
    bench.line.fault("balances.check", "late")
    with pytest.raises(Exception, match="timed out"):
        await bench.open(charging="hold")
    bench.line.fault("balances.check", "meanwhile")
    bench.line.meanwhile = bench.line.deliver_delayed
    await bench.settle()

    (finalized,) = [index for index, call in enumerate(bench.line.calls) if call[0] == "balances.finalize"]
    assert "events.aggregate" in [name for name, _, _ in bench.line.calls[:finalized]]
    assert bench.events() == ["5", "-5"]


async def test_a_hold_that_never_came_is_not_released(bench):
    """Where the log shows no hold there is nothing to release, and nothing claims its id."""
    bench.line.fault("balances.check", "lost")
    with pytest.raises(Exception, match="timed out"):
        await bench.open(charging="hold")
    await bench.settle()

    assert bench.keys_of("balances.finalize") == []
    assert bench.used == 0


async def test_a_spoiled_hold_is_undone_by_a_track(bench):
    """A hold whose id was claimed before it came is neither released nor expires; a track gives its credits back."""
    charge = await bench.open(charging="hold")
    store = bench.line.emulator._store
    store.claim("lock", charge.id, now=bench.machine.ms, until=2**62)
    store.run("UPDATE locks SET expires_at = NULL")
    charge.refund()
    await bench.settle()

    assert bench.used == 0
    assert bench.events() == ["5", "-5"]


# Customers and amounts.


@pytest.mark.parametrize("charging", ["deduct", "hold"])
async def test_a_customer_that_was_deleted(bench, charging):
    """What was taken is gone together with the customer: nothing is given back, and nobody is created for it."""
    charge = await bench.open(charging=charging)
    # Confirming in the background would create it anew.
    await bench.customers.drain()
    bench.line.emulator.call("customers.delete", {"customer_id": "ada"})
    charge.refund()
    await bench.settle()

    assert await bench.rows() == []
    with pytest.raises(CustomerNotFound):
        await bench.client.customers.get("ada")


async def test_a_customer_that_was_deleted_while_a_grant_is_due(bench):
    """There is nobody to grant it to, and nothing goes round in circles."""
    granting = a_charge(
        bench.outbox, customer_id="gone", taken=NOTHING, doubt=Doubt.NONE, to_grant=FIVE, loose_feature="ai_credits",
        key_number=2,
    )  # fmt: skip
    result = await bench.delivery.deliver(granting)

    assert result.state is None
    assert len(bench.line.calls) < 5


@pytest.mark.parametrize("cost", ["0.3333333334", "7.0000000001"])
async def test_amounts_to_the_last_digit(bench, cost):
    """A third of a credit, and a trifle more than seven: Autumn's books say exactly that, and it is no shortfall."""
    charge = await bench.open()
    close(charge, cost)
    await bench.settle()

    assert bench.used == Decimal(cost)
    assert await bench.rows() == []


async def test_sums_of_events_are_exact_enough(bench):
    """The log adds up doubles: what comes of rounding is not moved."""
    charge = await bench.open()
    bench.line.fault("balances.track", "answer lost")
    close(charge, Decimal("2.63"))
    await bench.settle()

    assert bench.used == Decimal("2.63")
    assert len(bench.keys_of("balances.track")) == 1


@pytest.mark.parametrize("charging", ["deduct", "hold"])
async def test_taking_more_than_there_is_ends_with_a_shortfall(bench, caplog, charging):
    """What Autumn could not take is told, kept for a person with its reason, and not tried again and again."""
    charge = await bench.open("all", charging=charging)
    close(charge, Decimal(60))
    await bench.settle()

    (row,) = await bench.rows()
    assert (row.state, row.entry.taken, row.entry.cost) == ("shortfall", 50, 60)
    assert "did not move 10" in row.entry.last_error
    assert "ends with a shortfall" in caplog.text


async def test_a_refund_after_the_month_has_ended(bench):
    """A charge comes to nothing whenever it is settled: a late refund counts in the month in which it arrives."""
    charge = await bench.open()
    bench.machine.advance(hours=32 * 24)
    later = [await bench.open("small") for _ in range(7)]
    charge.refund()
    for each in later:
        each.keep()
    await bench.settle()

    assert bench.used == 2
    assert sum(map(Decimal, bench.events())) == 7
    assert await bench.rows() == []


@pytest.mark.parametrize("cost", [0, 2])
async def test_a_hold_that_outlives_the_month_adds_nothing_to_the_next(bench, cost):
    """A caller who chooses the moment must not get last month's credits on top of this month's."""
    balance = bench.line.emulator.call("customers.get", {"customer_id": "ada"})["balances"]["ai_credits"]
    bench.machine.advance(seconds=balance["next_reset_at"] / 1000 - bench.machine.ms / 1000 - 100)
    charge = await bench.open(charging="hold")
    bench.machine.advance(seconds=200)
    charge.settle(cost)
    await bench.settle()

    balance = bench.line.emulator.call("customers.get", {"customer_id": "ada"})["balances"]["ai_credits"]
    assert balance["remaining"] <= 50


async def test_a_refund_that_the_new_month_has_no_room_for(bench):
    """Autumn gives back no more than is used: what did not fit is a shortfall, and no balance exceeds its grant."""
    charge = await bench.open()
    bench.machine.advance(hours=32 * 24)
    (await bench.open("small")).keep()
    charge.refund()
    await bench.settle()

    (row,) = await bench.rows()
    assert (row.state, row.entry.taken) == ("shortfall", 4)
    assert bench.used == 0


@pytest.mark.parametrize("fault", ["answer lost", "202 with the work", "a stranger's page after the work"])
@pytest.mark.parametrize("charging", ["deduct", "hold"])
async def test_a_settlement_whose_answer_is_lost_counts_what_moved(bench, fault, charging):
    """The log says what was asked and what moved. What did not move is a shortfall, whether the answer came or not."""
    charge = await bench.open("all", charging=charging)
    bench.line.fault("balances.track", fault)
    charge.settle(60)
    await bench.settle()

    (row,) = await bench.rows()
    assert (row.state, row.entry.taken, row.entry.cost) == ("shortfall", 50, 60)


async def test_what_is_owed_as_a_grant_is_not_given_back_as_well(bench):
    """A row that waits with a grant to make may be looked up again: its claim ran out, or a person retries it."""
    charge = await bench.open()
    owed = charge._entry._replace(
        cost=NOTHING, taken=NOTHING, to_grant=Decimal(5), loose_feature="ai_credits", doubt=Doubt.UNKNOWN
    )
    bench.put(owed)
    await bench.settle()

    record = bench.line.emulator.call("customers.get", {"customer_id": "ada"})["balances"]["ai_credits"]
    assert record["remaining"] == 50
    assert bench.events() == ["5"]


async def test_a_no_that_says_nothing_about_the_hold(bench):
    """Only Autumn's word that it knows no such lock says that there is no hold; any other no is for a person."""
    charge = await bench.open(charging="hold")
    bench.line.fault("balances.finalize", "400")
    charge.refund()
    await bench.settle()

    (row,) = await bench.rows()
    assert (row.state, row.entry.held) == ("shortfall", True)
    assert bench.events() == ["5"]


async def test_a_refund_with_more_digits_than_a_number_keeps(bench):
    """What is left between a large price and a small cost is told as the number that Autumn reads."""
    bench.charges._prices = ModelPrices({"large": 10_000_000})
    await bench.client.balances.create("ada", "ai_credits", included_grant=20_000_000)
    (await bench.open()).settle(Decimal(1) / 3)
    await bench.settle()

    assert round(bench.used, 6) == Decimal("0.333333")
    assert await bench.rows() == []


@pytest.mark.parametrize("fault", ["none", "answer lost"])
async def test_the_applications_own_decimals_change_nothing(bench, fault):
    """Refunds are exact, and unknown outcomes are settled, whatever precision and traps the application has set."""
    bench.charges._prices = ModelPrices({"large": "12.3456789"})
    with localcontext(Context(prec=3, traps=[Inexact, FloatOperation])):
        bench.line.fault("balances.check", fault)
        with contextlib.suppress(NoAnswer):
            charge = await bench.open("large")
            charge.settle("0.3333")
        await bench.settle()

    assert bench.used == (Decimal("0.3333") if fault == "none" else 0)


async def test_a_shortfall_that_a_person_retries(bench):
    """After the customer has got more credits a retry takes what is missing, and no more: the log knows the rest."""
    charge = await bench.open("all")
    close(charge, Decimal(60))
    await bench.settle()
    await bench.client.balances.create("ada", "ai_credits", included_grant=100)
    bench.machine.advance(hours=48)
    assert await bench.outbox.store.retry(charge.id, now=bench.machine.ms)
    await bench.settle()

    assert bench.used == 60
    assert await bench.rows() == []


# Old rows.


@pytest.mark.parametrize("was_done", [False, True])
async def test_a_row_from_a_backup_is_looked_up_first(bench, was_done):
    """Autumn has forgotten its key, so only the log can tell whether it was delivered."""
    charge = await bench.open()
    entry = charge._entry._replace(cost=NOTHING, due_at=bench.machine.ms)
    if was_done:
        await bench.delivery.deliver(entry)
    bench.machine.advance(hours=49)
    bench.line.emulator._store.run("DELETE FROM claims")
    bench.put(entry)
    await bench.settle()

    assert bench.events() == ["5", "-5"]


async def test_two_days_without_autumn_are_no_reason_to_give_up(bench):
    """Nothing is parked that the log can decide, however long it took."""
    charge = await bench.open()
    bench.line.fault("balances.track", "lost", *["refused"] * 3)
    bench.line.fault("balances.check", *["refused"] * 3)
    charge.refund()
    for _ in range(5):
        await bench.round()
        bench.machine.advance(hours=12)
    await bench.settle()

    assert bench.used == 0


async def test_clocks_that_disagree_by_hours(bench):
    """A lost check is given back although this machine's clock is hours ahead or behind: the log is asked by charge."""
    # Not six: Autumn's sums cover whole days, and one of the wrong hours would show the charge all the same.
    for hours in (11, -22):
        bench.machine.ms += hours * 3_600_000
        bench.line.emulator._store.move_clock(-hours * 3_600_000)
        bench.line.fault("balances.check", "answer lost")
        with pytest.raises(Exception, match="broke"):
            await bench.open()
        await bench.settle()
        assert bench.used == 0
    assert STALE_MS > 11 * 3_600_000


# Many look-ups.


async def test_a_look_up_asks_for_its_charge_alone(bench, monkeypatch):
    """A busy customer's thousands of events are not read for each: one sum says what the charge has come to."""
    for _ in range(30):
        (await bench.open("small")).keep()
    bench.line.fault("balances.check", "answer lost")
    with pytest.raises(NoAnswer):
        await bench.open()
    bench.line.calls.clear()
    await bench.settle()

    assert [name for name, _, _ in bench.line.calls if name.startswith("events.")] == ["events.aggregate"]
    (asked,) = [body for name, body, _ in bench.line.calls if name == "events.aggregate"]
    assert asked["filter_by"].keys() == {"charge_id"}


async def test_look_ups_of_one_customer_share_a_reading(bench, monkeypatch):
    """Fifty failed checks of a customer with dozens of events are looked up from a few readings of the log."""
    monkeypatch.setattr(_event_log, "_EVENTS_A_PAGE", 10)
    for _ in range(40):
        (await bench.open("small")).keep()
    for _ in range(50):
        bench.put(a_charge(bench.outbox, due_at=bench.machine.ms))
    bench.line.calls.clear()
    await bench.settle()

    assert await bench.rows() == []
    assert bench.used == 40
    assert len(bench.keys_of("events.aggregate")) == 50
    # A reading takes four or five pages. Each for itself would take two hundred of them.
    assert len(bench.keys_of("events.list")) < 50


async def test_a_reading_is_not_used_for_what_came_later(bench):
    """What the log has to show only since then is read anew."""
    aggregate = bench.client.events.aggregate

    async def blind(*arguments, **options):
        return (await aggregate(*arguments, **options)).model_copy(update={"total": {}})

    bench.client.events.aggregate = blind
    for fault in ("lost", "answer lost"):
        bench.line.fault("balances.check", fault)
        with pytest.raises(Unavailable):
            await bench.open()
        await bench.settle()

    assert bench.events() == ["5", "-5"]


# What a dead worker never wrote.


async def test_charges_that_were_never_written_are_found(bench, monkeypatch):
    """All of them, over many pages, and only those: not what is complete, no holds, no events of other origin."""
    monkeypatch.setattr(_event_log, "_EVENTS_A_PAGE", 2)
    charges = [await bench.open("large" if number % 2 else "small") for number in range(5)]
    hold = await bench.open(charging="hold")
    await bench.client.balances.track("ada", feature_id="ai_usage", value=1, properties={"charge_id": "mine-99"})
    await bench.client.balances.track("ada", feature_id="ai_usage", value=1)
    worker = WorkerRow(bench.outbox.worker_id, beat=1, complete_to=2, seen_at=bench.machine.ms)
    found = {entry.charge_id: entry for entry in await bench.delivery.find_unwritten(worker)}

    assert set(found) == {charge.id for charge in charges[2:]}
    assert hold.id not in found
    for charge in charges[2:]:
        entry = found[charge.id]
        assert (entry.credits, entry.cost, entry.doubt) == (charge.credits, 0, Doubt.UNKNOWN)
        assert (entry.customer_id, entry.feature_id) == (ADA.id, "ai_usage")


async def test_a_restored_backup_gives_back_nothing_that_was_written_since(bench):
    """A worker lived on after the copy was made: what its row does not know of was settled long ago."""
    worker = WorkerRow("a-worker", beat=1, complete_to=0, seen_at=bench.machine.ms)
    for number, seconds in enumerate((0, bench.settings.silence + 899, 2, 3600), start=1):
        bench.machine.advance(seconds=seconds)
        properties = {"charge_id": f"a-worker-{number}"}
        await bench.client.balances.track("ada", feature_id="ai_usage", value=1, properties=properties)
    found = {entry.charge_id for entry in await bench.delivery.find_unwritten(worker)}

    assert found == {"a-worker-1", "a-worker-2"}


async def test_what_is_found_is_given_back_once(bench):
    """Also when its worker lives and has settled it at the same moment."""
    first, second = await bench.open(), await bench.open()
    first.refund()
    await bench.settle()
    worker = WorkerRow(bench.outbox.worker_id, beat=1, complete_to=0, seen_at=bench.machine.ms)
    for entry in await bench.delivery.find_unwritten(worker):
        bench.put(entry._replace(due_at=bench.machine.ms))
    await bench.settle()

    assert bench.used == 0
    assert sorted(bench.events()) == ["-5", "-5", "5", "5"]
    assert second.closed is False


async def test_settling_events_are_not_taken_for_charges(bench):
    """A refund's event is about the same charge, whichever of the two the log shows first."""
    charge = await bench.open()
    charge.settle(8)
    await bench.settle()
    worker = WorkerRow(bench.outbox.worker_id, beat=1, complete_to=0, seen_at=bench.machine.ms)
    (entry,) = await bench.delivery.find_unwritten(worker)
    bench.put(entry._replace(due_at=bench.machine.ms))
    await bench.settle()

    assert bench.used == 0
    assert entry.charge_id == charge.id


async def test_one_reading_of_the_log_answers_all_who_wait_for_it(bench):
    """Look-ups of one customer that fell due together read their events once, and a later one reads them again."""
    entries = [a_charge(bench.outbox) for _ in range(5)]
    bench.machine.advance(seconds=121)
    before = len(bench.line.calls)

    found = await asyncio.gather(*(bench.delivery._log.shown_for(entry) for entry in entries))

    assert found == [Shown()] * 5
    assert [operation for operation, _, _ in bench.line.calls[before:]] == ["events.list"]
    await bench.delivery._log.shown_for(entries[0]._replace(due_at=bench.machine.ms + 1))
    assert len(bench.line.calls) == before + 2
