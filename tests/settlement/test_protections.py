"""Each protection is needed: with it the books balance after its fault, and without it the same test fails.

A scenario makes one call that is paid, has its fault, and returns what is used at the end: the price of that one call.
"""

import itertools
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any, NamedTuple

import pytest

from fastapi_autumn.charge import Delivery
from fastapi_autumn.client import _calls
from fastapi_autumn.settlement import Entry, Outcome, outbox
from fastapi_autumn.settlement.outbox import Outbox
from settlement.bench import Bench, serving
from settlement.entries import HOUR_MS, a_refund, freeze, until

PRICE = Decimal(5)
DAY_MS = 24 * HOUR_MS


class Protection(NamedTuple):
    """How to take it away, and what goes wrong then."""

    remove: Callable[[pytest.MonkeyPatch], None]
    scenario: Callable[[Any], Awaitable[Decimal]]


async def a_refund_dropped_after_the_work(tmp_path: Any) -> Decimal:
    async with serving(tmp_path) as bench:
        await bench.call()
        bench.fault("balances.track", "drop")
        await bench.call(fails=True)
        return await bench.used()


async def a_refund_failed_after_the_work(tmp_path: Any) -> Decimal:
    async with serving(tmp_path) as bench:
        await bench.call()
        bench.connection.failing.append("balances.track")
        await bench.call(fails=True)
        return await bench.used()


async def a_check_answered_202_without_work(tmp_path: Any) -> Decimal:
    async with serving(tmp_path) as bench:
        await bench.call()
        bench.fault("balances.check", "unverified")
        served = await bench.call() == 200
        return await bench.used() + (PRICE if served else 0)


async def settled_by_another(tmp_path: Any, *, written: bool) -> Decimal:
    async with serving(tmp_path, outbox_lease=0.5) as living:
        await living.call()
        async with serving(tmp_path, beside=living, outbox_lease=0.5, shutdown_timeout=0.1) as dying:
            if not written:
                await freeze(dying.outbox)
            await dying.open()
            if written:
                await dying.outbox.flush()
                await dying.outbox._commit({}, dying.outbox._sequence)
            await dying.kill()
            gone = dying.outbox.worker_id

            async def is_forgotten() -> bool:
                return not any(worker == gone for worker in await workers(living))

            await until(is_forgotten)
            return await living.used()


async def workers(bench: Bench) -> list[str]:
    async with bench.outbox._connected.connect() as connection:
        return [row.id for row in await connection.execute(outbox.workers.select())]


async def killed_after_the_journal(tmp_path: Any) -> Decimal:
    return await settled_by_another(tmp_path, written=True)


async def killed_before_the_journal(tmp_path: Any) -> Decimal:
    return await settled_by_another(tmp_path, written=False)


async def killed_while_it_delivered_and_off_for_a_day(tmp_path: Any) -> Decimal:
    async with serving(tmp_path) as bench:
        await bench.call()
        charge = await bench.open()
        refund = a_refund(bench.outbox, charge_id=charge.id, created_at=int(time.time() * 1000))
        bench.sender._task.cancel()
        bench.outbox.put(refund)
        await bench.outbox.flush()
        (claimed,) = await bench.outbox.claim(1)
        await bench.delivery.send(claimed)
        bench.emulator._store.move_clock(DAY_MS + 1)
        now = bench.outbox.now
        bench.outbox.now = lambda: now() + DAY_MS + 1
        await bench.sender.drain()
        return await bench.service.used()


async def a_worker_that_only_seems_dead(tmp_path: Any) -> Decimal:
    async with (
        serving(tmp_path, outbox_lease=0.5) as living,
        serving(tmp_path, beside=living, outbox_lease=0.5) as slow,
    ):
        charge = await slow.open()
        await slow.outbox.flush()
        name, commits = slow.outbox.worker_id, slow.outbox._commits_begun
        thawed = await freeze(slow.outbox)
        async with slow.outbox._connected.begin() as connection:
            await connection.execute(outbox.workers.delete().where(outbox.workers.c.id == name))
        await living.outbox.take_over_orphans(delay=0)
        assert await living.used() == 0
        thawed.set()
        await until(lambda: slow.outbox._commits_done > commits + 3)
        charge.finish(Outcome.DONE)
        clock = slow.outbox.now
        living.outbox.now = slow.outbox.now = lambda: clock() + 60_000
        return await slow.used()


def without_keys(patch: pytest.MonkeyPatch) -> None:
    fresh = itertools.count()
    patch.setattr(Entry, "idempotency_key", property(lambda entry: f"{entry.charge_id}:{next(fresh)}"))


def without_looking_first(patch: pytest.MonkeyPatch) -> None:
    async def never(*_: Any) -> bool:
        return False

    patch.setattr(Delivery, "_is_tracked", never)


def without_refusing_202(patch: pytest.MonkeyPatch) -> None:
    read = _calls.Caller.read

    async def trusting(self: Any, *arguments: Any, verified: bool = False, **options: Any) -> Any:
        return await read(self, *arguments, **options)

    patch.setattr(_calls.Caller, "read", trusting)


def without_journal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Outbox, "open", lambda *_: None)


def without_recovery(patch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: Any) -> list[Entry]:
        return []

    patch.setattr(Delivery, "recover", nothing)


def without_parking(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Entry, "is_beyond_certainty", lambda *_: False)


def without_finding_out(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Outbox, "_show_life", Outbox._join)


PROTECTIONS = {
    "idempotency keys": Protection(without_keys, a_refund_dropped_after_the_work),
    "the event log before a second attempt": Protection(without_looking_first, a_refund_failed_after_the_work),
    "202 is not a yes": Protection(without_refusing_202, a_check_answered_202_without_work),
    "the journal": Protection(without_journal, killed_after_the_journal),
    "recovery from the event log": Protection(without_recovery, killed_before_the_journal),
    "parking after 23 hours": Protection(without_parking, killed_while_it_delivered_and_off_for_a_day),
    "a worker finds out that it was taken for dead": Protection(without_finding_out, a_worker_that_only_seems_dead),
}


@pytest.mark.parametrize("protection", PROTECTIONS.values(), ids=PROTECTIONS)
async def test_with_it_the_books_balance(tmp_path, protection):
    """After the fault, one paid call is what is used."""
    assert await protection.scenario(tmp_path) == PRICE


@pytest.mark.parametrize("protection", PROTECTIONS.values(), ids=PROTECTIONS)
async def test_without_it_they_do_not(tmp_path, protection, monkeypatch):
    """The same fault with the protection taken out leaves the books wrong, so the test above proves something."""
    protection.remove(monkeypatch)

    assert await protection.scenario(tmp_path) != PRICE
