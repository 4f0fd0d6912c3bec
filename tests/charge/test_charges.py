"""Taking the credits, and deciding how it ends: each way that the check can go, and each way that a charge can end."""

import asyncio
import contextlib
import math
from decimal import Decimal

import pytest

from charge.bench import ADA, FAULTS, bench_of
from fastapi_autumn import Customer, telemetry
from fastapi_autumn.errors import (
    AmountError,
    ConfigurationError,
    ConnectFailed,
    InsufficientCredits,
    NotEntitled,
    Overloaded,
    RequestRejected,
    Unavailable,
    UnknownModel,
)
from fastapi_autumn.settlement import Outcome
from fastapi_autumn.settlement.entry import Doubt
from settlement.entries import freeze

NO_ANSWER = [kind for kind in FAULTS if kind not in {"none", "meanwhile", "401", "400"}]
WAYS = ["deduct", "hold"]


# A check without an answer.


@pytest.mark.parametrize("fault", NO_ANSWER)
@pytest.mark.parametrize("charging", WAYS)
async def test_a_call_that_is_refused_costs_nothing(bench, fault, charging):
    """Neither a yes nor a no is a 503; what Autumn may have taken, or takes later, is given back, once."""
    bench.line.fault("balances.check", fault)
    with pytest.raises(Unavailable):
        await bench.open(charging=charging)
    await bench.settle()
    await bench.line.deliver_delayed()

    assert bench.used == 0
    assert bench.events() in ([], ["5", "-5"])
    assert await bench.rows() == []


@pytest.mark.parametrize("cost", [Decimal(0), Decimal(3), Decimal(5)], ids=str)
@pytest.mark.parametrize("fault", NO_ANSWER)
@pytest.mark.parametrize("charging", WAYS)
async def test_a_call_that_is_served_unverified_is_charged_once(fault, charging, cost):
    """With `on_unavailable="allow"`: whether the check did its work or not, in the end the call has its price."""
    async with bench_of(on_unavailable="allow") as bench:
        bench.line.fault("balances.check", fault)
        charge = await bench.open(charging=charging)
        assert charge.verified is False
        charge.settle(cost)
        await bench.settle()
        await bench.line.deliver_delayed()

        assert bench.used == cost
        assert await bench.rows() == []


async def test_served_unverified_beyond_the_balance(caplog):
    """What the balance gives is taken, and the rest is a shortfall that a person is told of."""
    async with bench_of(on_unavailable="allow") as bench:
        (await bench.open("all")).settle(48)
        await bench.settle()
        bench.line.fault("balances.check", "lost")
        (await bench.open()).keep()
        await bench.settle()

        (row,) = await bench.rows()
        assert bench.used == 50
        assert (row.state, row.entry.taken) == ("shortfall", 2)


async def test_a_customer_that_could_not_be_created_is_served_and_charged():
    """A new customer who comes while Autumn is away is created with the charge."""
    async with bench_of(on_unavailable="allow") as bench:
        bench.line.fault("customers.get_or_create", "refused")
        charge = await bench.charges.open(Customer("bob"), "large")
        charge.keep()
        await bench.settle()

        record = await bench.client.customers.get("bob")
        assert record.balances["ai_credits"].usage == 5


async def test_a_proxy_that_repeats_a_request(bench):
    """A 409 on the first attempt says that the request came twice, and not that nothing was taken."""
    bench.line.fault("balances.check", "doubled by a proxy")
    with pytest.raises(Unavailable, match="409"):
        await bench.open()
    assert bench.used == 5
    await bench.settle()

    assert bench.used == 0


# A check with an answer.


@pytest.mark.parametrize("charging", WAYS)
async def test_a_clear_no_leaves_nothing(bench, charging):
    """A refusal takes nothing, writes nothing, and says what would help."""
    (await bench.open("all")).keep()
    with pytest.raises(InsufficientCredits) as refused:
        await bench.open(charging=charging)
    await bench.outbox.flush()

    assert (refused.value.detail["required"], refused.value.detail["balance"]["remaining"]) == (5, 0)
    assert {plan["id"] for plan in refused.value.detail["plans"]} & {"pro", "credit_top_up"}
    assert await bench.rows() == []


async def test_a_wrong_key_is_told(bench):
    """Autumn's own refusal of the request is an error of the service, and nothing was taken."""
    bench.line.fault("balances.check", "401")
    with pytest.raises(RequestRejected, match="invalid_secret_key"):
        await bench.open()
    await bench.settle()

    assert bench.outbox._pending.open_charges == 0
    assert await bench.rows() == []


async def test_a_model_without_a_price(bench):
    """Nobody knows what to charge, so nothing is asked."""
    with pytest.raises(UnknownModel):
        await bench.open("unheard of")

    assert bench.line.calls == []


async def test_a_plan_that_does_not_include_it(bench):
    """A requirement is checked before the credits are taken."""

    class Nobody:
        def check(self, record, *, model, **price):
            raise NotEntitled(f"{record.id} may not call {model} for {price['credits']}")

    with pytest.raises(NotEntitled, match="ada may not call large for 5"):
        await bench.open(requirement=Nobody())

    assert bench.keys_of("balances.check") == []


async def test_a_customer_that_was_deleted_since(bench):
    """Autumn no longer knows a customer that this process does: it is created, and charged."""
    (await bench.open()).keep()
    await bench.customers.drain()
    bench.line.emulator.call("customers.delete", {"customer_id": "ada"})
    (await bench.open("small")).keep()
    await bench.settle()

    assert bench.used == 1


@pytest.mark.parametrize("charging", WAYS)
async def test_what_the_event_says(bench, charging):
    """Autumn's log shows the charge, the model and the way, beside what the application adds."""
    charge = await bench.open(charging=charging, properties={"team": "blue"})
    _, body, key = next(call for call in bench.line.calls if call[0] == "balances.check")

    assert body["properties"] == {"team": "blue", "charge_id": charge.id, "model": "large", "charging": charging}
    assert key == f"{charge.id}:check"


@pytest.mark.parametrize("name", ["charge_id", "model", "charging", "reason"])
async def test_properties_that_belong_to_this_package(bench, name):
    """Recovery relies on them, so an application that sets one is told, before anything is taken."""
    with pytest.raises(ConfigurationError, match=name):
        await bench.open(properties={name: "mine", "fine": 1})

    assert bench.line.calls == []


@pytest.mark.parametrize("hours", [2, -2])
@pytest.mark.parametrize("when", ["before the first answer", "between two answers"])
async def test_a_hold_ends_by_autumns_clock(hours, when):
    """The longest hold is accepted, and lives as long as it should, whatever this machine's clock says and does."""
    async with bench_of(hold_ttl=24 * 3600, charging="hold") as bench:
        bench.line.dates = True
        if when == "between two answers":
            await bench.open("small", charging="deduct")
        bench.machine.ms += hours * 3_600_000
        bench.line.emulator._store.move_clock(-hours * 3_600_000)
        # Whoever confirms the customer is not done yet.
        await bench.open(confirm_customer=False)
        body = [body for operation, body, _ in bench.line.calls if operation == "balances.check"][-1]
        lives_ms = body["lock"]["expires_at"] - bench.line.emulator.clock.now()

    assert 23 * 3_600_000 < lives_ms <= 24 * 3_600_000


# The journal.


async def test_a_deduction_is_noted_before_it_is_taken(bench):
    """If the process dies while Autumn works, its row says what to do."""
    seen = []

    async def look():
        await bench.outbox.flush()
        seen.extend(await bench.rows())

    bench.line.fault("balances.check", "meanwhile")
    bench.line.meanwhile = look
    charge = await bench.open()

    (row,) = seen
    assert (row.state, row.entry.charge_id, row.entry.cost, row.entry.doubt) == ("open", charge.id, 0, Doubt.UNKNOWN)


async def test_a_hold_is_not_noted(bench):
    """Autumn gives a hold back by itself, so a call that is held writes nothing until it ends."""
    await bench.open(charging="hold")
    await bench.outbox.flush()

    assert await bench.rows() == []


@pytest.mark.parametrize("charging", WAYS)
@pytest.mark.parametrize("work", ["before", "after"])
async def test_cancelled_during_the_check(bench, charging, work):
    """Whoever leaves while the credits are taken gets them back, whether Autumn was done by then or not."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    request = bench.line.request

    async def slow(method, path, **options):
        if not path.endswith("balances.check") or begun.is_set():
            return await request(method, path, **options)
        if work == "before":
            await request(method, path, **options)
        begun.set()
        if work == "after":
            bench.line._delayed.append(lambda: request(method, path, **options))
        await go_on.wait()
        raise AssertionError

    bench.line.request = slow
    opening = asyncio.create_task(bench.open(charging=charging))
    await begun.wait()
    opening.cancel()
    await asyncio.wait([opening])
    if work == "after":
        await bench.line.deliver_delayed()
    await bench.settle()

    assert opening.cancelled()
    assert bench.events() == ["5", "-5"]
    assert bench.used == 0


# The fence.


async def cut_off(bench):
    """Have the outbox fail to write for a lease."""
    thaw = await freeze(bench.outbox)
    bench.machine.advance(seconds=bench.outbox.lease)
    return thaw


async def test_a_worker_that_is_cut_off_holds():
    """Others may soon settle its charges, so it begins only what ends by itself, until it can write again."""
    async with bench_of(when_cut_off="hold") as bench:
        thaw = await cut_off(bench)
        held = await bench.open()
        assert "lock" in bench.line.calls[-1][1]
        held.refund()
        thaw()
        await bench.settle()
        assert bench.used == 0
        await bench.open()

        assert bench.line.calls[-1][1]["send_event"] is True


async def test_a_worker_that_is_cut_off_refuses():
    """With `when_cut_off="deny"` it answers 503, and nothing is sent; a service that holds anyway goes on."""
    async with bench_of(when_cut_off="deny") as bench:
        thaw = await cut_off(bench)
        with pytest.raises(Overloaded, match="cannot be written") as refused:
            await bench.open()
        assert refused.value.retry_after == 1
        assert bench.keys_of("balances.check") == []
        (await bench.open(charging="hold")).refund()
        thaw()


@pytest.mark.parametrize("when_cut_off", ["hold", "deny"])
async def test_after_a_stop_nothing_is_begun(when_cut_off):
    """A deduction that nobody would write down is refused."""
    async with bench_of(when_cut_off=when_cut_off) as bench:
        await bench.outbox.stop(within=10)
        with pytest.raises(Overloaded):
            await bench.open()

        assert bench.keys_of("balances.check") == []


# How it ends.


@pytest.mark.parametrize("charging", WAYS)
@pytest.mark.parametrize(
    ("end", "used"),
    [
        (lambda charge: charge.keep(), "5"),
        (lambda charge: charge.refund(), "0"),
        (lambda charge: charge.settle(0), "0"),
        (lambda charge: charge.settle(Decimal(1) / 3), "0.3333333334"),
        (lambda charge: charge.settle(2 / 3), "0.6666666667"),
        (lambda charge: charge.settle("7.5"), "7.5"),
        (lambda charge: charge.settle(1e-12), "1E-10"),
    ],
    ids=["keep", "refund", "settle 0", "a third", "two thirds", "more", "a trifle"],
)
async def test_what_was_decided_is_what_it_costs(bench, charging, end, used):
    """Kept, given back, or settled at any amount: a quotient is rounded up, never refused, never lost."""
    charge = await bench.open(charging=charging)
    assert end(charge)
    assert charge.cost == Decimal(used)
    await bench.settle()

    assert bench.used == Decimal(used)
    assert await bench.rows() == []


@pytest.mark.parametrize("bad", [-1, math.nan, math.inf, "much", Decimal("1e30")])
async def test_amounts_that_are_none(bench, bad):
    """They are refused before they decide anything."""
    charge = await bench.open()
    with pytest.raises(AmountError):
        charge.settle(bad)

    assert not charge.closed
    assert charge.keep()


async def test_the_first_decision_counts(bench):
    """Later ones change nothing, and say so."""
    charge = await bench.open()
    assert charge.settle(2)

    assert not charge.refund()
    assert not charge.keep()
    assert not charge.settle(9)
    assert (charge.closed, charge.cost) == (True, 2)


async def test_decided_in_a_thread(bench):
    """A `def` handler runs in a thread of its own, and may decide there; what wakes the outbox stays in the loop."""
    charges = [await bench.open("small") for _ in range(20)]
    # It then refuses to be woken up by another thread.
    asyncio.get_running_loop().set_debug(True)
    decided = await asyncio.gather(
        *(asyncio.to_thread(charge.refund) for charge in charges),
        *(asyncio.to_thread(charge.keep) for charge in charges),
        *(asyncio.to_thread(charge.settle, "0.5") for charge in charges),
    )
    await asyncio.sleep(0)
    # Long enough for any machine: a writer that was woken up from elsewhere never comes to it.
    async with asyncio.timeout(60):
        await bench.settle()

    assert sum(decided) == 20
    assert bench.used == sum(charge.cost for charge in charges)


class LeftError(Exception):
    """The caller has gone."""


@pytest.mark.parametrize("refund_on_disconnect", [False, True])
@pytest.mark.parametrize(("error", "used"), [(None, 5), (ValueError("model"), 0), (LeftError(), None)])
async def test_a_block_ends_its_charge(error, used, refund_on_disconnect):
    """Success costs, a failure does not, and a caller who left pays as on a route."""
    async with bench_of(refund_on_disconnect=refund_on_disconnect) as bench:
        with contextlib.suppress(ValueError, LeftError):
            async with bench.charges.charge(ADA, "large", gone=(LeftError,)):
                if error is not None:
                    raise error
        await bench.settle()

        assert bench.used == (used if used is not None else 0 if refund_on_disconnect else 5)


async def test_a_block_that_is_cancelled_gives_back(bench):
    """Outside of a request nobody could have left, so it failed."""
    inside = asyncio.Event()

    async def work():
        async with bench.charges.charge(ADA, "large"):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    await asyncio.wait([task])
    await bench.settle()

    assert bench.used == 0


async def test_a_call_that_is_not_billed(bench):
    """It looks like any other charge to the application, and Autumn never hears of it."""
    charge = bench.charges.free(ADA, "large")
    assert (charge.credits, charge.verified) == (0, True)
    assert charge.settle(9)
    await bench.settle()

    assert bench.line.calls == []
    assert "0 credits of ada" in repr(charge)


@pytest.mark.parametrize("cost", [0, 2, 8])
@pytest.mark.parametrize("charging", ["deduct", "hold"])
async def test_what_the_application_says_after_the_caller_left(bench, charging, cost):
    """A generator in a thread is told of a hang-up when the request is over, and what it settles then still counts."""
    charge = await bench.open(charging=charging)
    charge.finish(Outcome.GONE)
    await bench.round()
    assert charge.settle(cost)
    assert not charge.settle(9)
    await bench.settle()

    assert (bench.used, charge.cost) == (cost, cost)
    assert await bench.rows() == []


@pytest.mark.parametrize("outcome", [Outcome.DONE, Outcome.FAILED])
async def test_other_ends_are_final(bench, outcome):
    """After an answer that was delivered, or failed, nothing that comes too late changes what it costs."""
    charge = await bench.open()
    charge.finish(outcome)
    assert not charge.settle(8)
    await bench.settle()

    assert bench.used == charge.cost


async def test_a_charge_whose_event_loop_is_gone(tmp_path, caplog):
    """It cannot be ended here any more, says so, and keeps nobody from ending the others."""
    opened = []

    async def elsewhere():
        async with bench_of() as bench:
            opened.append(await bench.open())

    await asyncio.to_thread(asyncio.run, elsewhere())
    assert opened[0].refund()

    assert "is used after its event loop" in caplog.text


async def test_a_meter_that_raises_loses_no_refund(bench, monkeypatch):
    """What has to be done for a charge is noted before anything counts it."""

    class Broken:
        def add(self, *_):
            raise RuntimeError("the exporter is gone")

    charge = await bench.open()
    monkeypatch.setattr(telemetry, "charges", Broken())
    with pytest.raises(RuntimeError):
        charge.refund()
    await bench.settle()

    assert bench.used == 0


async def test_a_reason_that_is_no_text(bench):
    """An exception is a natural reason, and must not keep a row from being written."""
    charge = await bench.open()
    charge.refund(ValueError("the model failed"))
    await bench.outbox.flush()
    (row,) = await bench.rows()

    assert row.entry.reason == "the model failed"


@pytest.mark.parametrize("policy", ["allow", "deny"])
async def test_a_flood_is_not_served_unverified(policy):
    """What this service holds back itself is refused, whatever is to be done when Autumn cannot be asked."""
    async with bench_of(on_unavailable=policy, max_concurrency=1, max_waiting=2) as bench:
        await bench.open("small")
        release = asyncio.Event()
        bench.line.fault("balances.check", "meanwhile")
        bench.line.meanwhile = release.wait
        flood = [asyncio.create_task(bench.open("small")) for _ in range(20)]
        refused, _ = await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
        release.set()
        await asyncio.wait(flood)

        assert {type(task.exception()) for task in refused} == {Overloaded}
        assert all(task.exception() or task.result().verified for task in flood)


async def test_many_at_once_on_little(bench):
    """Of 300 calls at once on 50 credits, 10 are served, and the books say so."""
    results = await asyncio.gather(*(bench.open() for _ in range(300)), return_exceptions=True)
    served = [charge for charge in results if not isinstance(charge, Exception)]
    for charge in served:
        charge.keep()
    await bench.settle()

    assert len(served) == 10
    assert {type(result) for result in results if isinstance(result, Exception)} <= {InsufficientCredits, Overloaded}
    assert bench.used == 50


async def test_autumn_is_down_and_comes_back(bench):
    """What was under way when it went is settled when it is there again; what was refused costs nothing."""
    kept, failed = [await bench.open() for _ in range(2)], [await bench.open(charging="hold") for _ in range(2)]
    for operation in ("balances.track", "balances.finalize"):
        bench.line.fault(operation, *["refused"] * 6)
    for charge in kept:
        charge.keep()
    for charge in failed:
        charge.refund()
    bench.line.fault("balances.check", *["refused"] * 3)
    for _ in range(3):
        with pytest.raises((ConnectFailed, Overloaded)):
            await bench.open()
        await bench.round()
        bench.machine.advance(seconds=120)
    bench.line.faults.clear()
    await bench.settle()

    assert bench.used == 10
    assert await bench.rows() == []
