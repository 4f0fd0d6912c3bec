"""What is done at Autumn for an entry, against the emulator: each credit moves once, whatever gets lost on the way."""

import time
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from fastapi_autumn import Customer
from fastapi_autumn.charge import _delivery
from fastapi_autumn.settlement import Action
from fastapi_autumn.settlement.outbox import LostWorker
from settlement.bench import Bench, serving
from settlement.entries import a_charge, a_refund

FAULTS: dict[str, dict[str, Any]] = {
    "refused": {"kind": "refuse"},
    "reset": {"kind": "reset"},
    "dropped after the work": {"kind": "drop"},
    "later than the time-out": {"kind": "late", "delay_ms": 1100},
    "429": {"kind": "fail", "status": 429, "retry_after": 0},
    "500": {"kind": "fail", "status": 500},
    "503": {"kind": "fail", "status": 503, "retry_after": 0},
    "202 with the work": {"kind": "unverified", "works": True},
}


@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize("settlement", ["deduct", "hold"])
@pytest.mark.parametrize("fault", [*FAULTS, "202 without the work"])
async def test_a_check_without_an_answer_costs_nothing(tmp_path, settlement, fault, retries):
    """Neither a yes nor a no is a 503, or a retry that succeeds; what Autumn may have taken is given back."""
    options = FAULTS.get(fault, {"kind": "unverified"})
    async with serving(tmp_path, settlement=settlement, max_retries=retries) as bench:
        assert await bench.call() == 200
        bench.fault("balances.check", **options, times=retries + 1)
        status = await bench.call(fails=True)

        assert status in {502, 503}
        assert await bench.used() == 5


@pytest.mark.parametrize("settlement", ["deduct", "hold"])
@pytest.mark.parametrize("fault", [*FAULTS, "202 without the work"])
async def test_served_without_an_answer(tmp_path, settlement, fault):
    """With `on_unavailable="allow"` a served call is paid once; only a deduction that never happened is let go."""
    options = FAULTS.get(fault, {"kind": "unverified"})
    async with serving(tmp_path, settlement=settlement, on_unavailable="allow") as bench:
        bench.fault("balances.check", **options)
        assert await bench.call() == 200

        let_go = settlement == "deduct" and fault in {"reset", "500", "503", "202 without the work"}
        assert await bench.used() == (0 if let_go else 5)


@pytest.mark.parametrize("settlement", ["deduct", "hold"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_refund_whose_answer_is_lost_happens_once(tmp_path, settlement, fault):
    """However the delivery of a refund fails, in the end the credits are back, once."""
    operation = "balances.track" if settlement == "deduct" else "balances.finalize"
    async with serving(tmp_path, settlement=settlement) as bench:
        await bench.call()
        bench.fault(operation, **FAULTS[fault])
        await bench.call(fails=True)

        assert await bench.used() == 5
        assert [value for value, _ in bench.events()].count("-5") == 1


async def test_a_refund_that_failed_after_the_work_happens_once(tmp_path):
    """A 500 frees the key at Autumn although the refund happened: the event log keeps it from happening again."""
    async with serving(tmp_path) as bench:
        await bench.call()
        bench.connection.failing.append("balances.track")
        await bench.call(fails=True)

        assert await bench.used() == 5
        assert bench.events() == [("5", None), ("5", None), ("-5", "track")]


@pytest.mark.parametrize("kind", ["drop", "late"])
async def test_a_confirmation_whose_answer_is_lost_happens_once(tmp_path, kind):
    """A confirmed hold stays confirmed, and is not charged again, when the confirmation's answer is lost."""
    async with serving(tmp_path, settlement="hold") as bench:
        bench.fault("balances.finalize", kind, delay_ms=1100)
        await bench.call()

        assert await bench.used() == 5
        assert bench.events() == [("5", "hold")]


async def test_a_confirmation_that_failed_after_the_work_happens_once(tmp_path):
    """A 500 after the hold was confirmed: "lock not found" is then no reason to charge again."""
    async with serving(tmp_path, settlement="hold") as bench:
        bench.connection.failing.append("balances.finalize")
        await bench.call()

        assert await bench.used() == 5
        assert bench.events() == [("5", "hold")]


@pytest.mark.parametrize("first_attempt", ["at once", "after a 500"])
async def test_a_call_that_outlives_its_hold_is_paid(tmp_path, first_attempt):
    """When the hold has run out before the call ended, the credits are taken by a track instead."""
    async with serving(tmp_path, settlement="hold") as bench:
        if first_attempt == "after a 500":
            bench.fault("balances.finalize", "fail", status=500)
        async with bench.service.autumn.charge("ada", model="large") as charge:
            bench.emulator._store.move_clock(int(bench.service.settings.hold_ttl * 1000) + 1)

        assert await bench.used() == 5
        assert bench.events() == [("5", "hold"), ("-5", "hold"), ("5", "track")]
        assert charge.closed


async def test_a_hold_that_was_never_placed_needs_no_release(tmp_path):
    """Releasing a hold that Autumn does not know is done already."""
    async with serving(tmp_path) as bench:
        await bench.service.autumn.client.customers.get_or_create(Customer("ada"))
        release = a_refund(bench.outbox, action=Action.RELEASE, value=Decimal(0))

        assert await bench.delivery.send(release) is None
        assert await bench.used() == 0


async def deducted(bench: Bench, **changes: Any) -> Any:
    """A charge whose credits Autumn has taken, and of which nobody has written anything."""
    charge = a_charge(bench.outbox, created_at=int(time.time() * 1000), **changes)
    client = bench.service.autumn.client
    await client.customers.get_or_create(Customer("ada"))
    properties = {"charge_id": charge.charge_id}
    await client.balances.check(
        "ada", "ai_usage", required_balance=charge.credits, send_event=True, properties=properties
    )
    return charge


@pytest.mark.parametrize(("value", "used"), [(0, 5), (-5, 0), (-3, 2), (2, 7)])
async def test_a_deduction_that_is_found_is_brought_to_its_value(tmp_path, value, used):
    """What was taken is kept, given back, or changed, as the call ended."""
    async with serving(tmp_path) as bench:
        charge = await deducted(bench)
        bench.outbox.put(replace(charge, value=Decimal(value)))

        assert await bench.used() == used


async def test_a_deduction_that_is_not_found_is_let_go(tmp_path):
    """When the event log does not have it, nothing was taken and nothing is given back."""
    async with serving(tmp_path) as bench:
        await bench.call()
        bench.outbox.put(a_charge(bench.outbox))

        assert await bench.used() == 5


@pytest.mark.parametrize(("value", "used"), [(0, 5), (-5, 0), (-3, 2), (2, 7)])
async def test_what_others_gave_back_is_corrected(tmp_path, value, used):
    """A charge that was given back because its worker seemed dead ends the way its call did, all the same."""
    async with serving(tmp_path) as bench:
        charge = await deducted(bench)
        bench.outbox.put(replace(charge, action=Action.TRACK))
        assert await bench.used() == 0
        bench.outbox.put(replace(charge, value=Decimal(value)))

        assert await bench.used() == used


async def test_charges_that_were_never_written_are_found(tmp_path, monkeypatch):
    """Of a killed worker, what it took and never wrote is in the event log: all of it, over many pages, and only it."""
    monkeypatch.setattr(_delivery, "_EVENTS_A_PAGE", 2)
    async with serving(tmp_path) as bench:
        charges = [await deducted(bench, credits=Decimal(amount)) for amount in (1, 2, 3, 4)]
        await bench.call()
        lost = LostWorker(bench.outbox.worker_id, seen_at=int(time.time() * 1000), complete_to=2)
        refunds = await bench.delivery.recover(lost)

        found = {entry.charge_id: (entry.action, entry.value) for entry in refunds}
        never_written = {charge.charge_id: (Action.TRACK, -charge.credits) for charge in charges[2:]}
        assert {key: found[key] for key in never_written} == never_written
        assert not {charge.charge_id for charge in charges[:2]} & set(found)
        assert {key.split("-")[0] for key in found} == {bench.outbox.worker_id}


async def test_the_event_log_is_not_asked_too_often(tmp_path):
    """Autumn answers five pages a second for one customer: a sixth waits for its turn, another customer's does not."""
    async with serving(tmp_path) as bench:
        delivery = bench.delivery
        begun = time.monotonic()
        for _ in range(4):
            await delivery.send(a_charge(bench.outbox))
        await delivery.send(a_charge(bench.outbox, customer_id="bob"))

        assert 0.6 <= time.monotonic() - begun < 0.8


@pytest.mark.parametrize("settlement", ["deduct", "hold"])
async def test_what_a_person_retries_is_not_done_twice(tmp_path, settlement):
    """Two days later no key protects a retry, but Autumn's event log still knows what was done."""
    fails = settlement == "deduct"
    async with serving(tmp_path, settlement=settlement) as bench:
        await bench.call()
        assert await bench.used() == 5
        charge = await bench.open()
        action, value = (Action.TRACK, -charge.credits) if fails else (Action.CONFIRM, charge.credits)
        entry = a_charge(bench.outbox, charge_id=charge.id, action=action, value=value, created_at=bench.outbox.now())
        await bench.delivery.send(entry)
        await bench.sender.stop(within=1)
        bench.outbox.put(entry)
        await bench.outbox.flush()
        (claimed,) = await bench.outbox.claim(1)
        bench.outbox.park(claimed)
        await bench.outbox.flush()
        bench.emulator._store.run("DELETE FROM claims")
        assert await bench.outbox.retry(charge.id)
        bench.sender._stopping.clear()

        assert await bench.used() == (5 if fails else 10)
