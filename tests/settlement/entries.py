"""Entries, and what the outbox is run with in its tests: a machine whose clocks the test moves, a worker that dies."""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from itertools import count
from typing import Any

from fastapi_autumn.settlement.entry import Doubt, Entry
from fastapi_autumn.settlement.outbox import Outbox
from fastapi_autumn.settlement.store import Account, Batch, Change, Row, Store
from service import until

__all__ = [
    "ADA",
    "HOUR_MS",
    "SANDBOX",
    "FakeMachine",
    "a_batch",
    "a_charge",
    "a_refund",
    "an_entry",
    "freeze",
    "kill",
    "rows",
    "until",
]

HOUR_MS = 3_600_000
ADA = "ada"
SANDBOX = Account(key_digest="digest of a key", origin="https://autumn.example", environment="sandbox")


class FakeMachine:
    """Clocks that stand still until the test moves them, and ids in order."""

    def __init__(self, name: str = "worker") -> None:
        self.ms = 1_790_000_000_000
        self.seconds = 1000.0
        self._name = name
        self._numbers = count(1)

    def wall_ms(self) -> int:
        return self.ms

    def steady(self) -> float:
        return self.seconds

    def uniform(self, low: float, high: float) -> float:
        return high

    def new_id(self) -> str:
        return f"{self._name}{next(self._numbers):04}"

    def advance(self, *, seconds: float = 0, hours: float = 0) -> None:
        """Let time pass on both clocks."""
        self.seconds += seconds + hours * 3600
        self.ms += int(seconds * 1000 + hours * HOUR_MS)


def an_entry(charge_id: str = "w-1", **changes: Any) -> Entry:
    """A deduction of 5 that is under way: if its worker dies, it is given back."""
    entry = Entry(
        charge_id=charge_id,
        customer_id=ADA,
        feature_id="ai_usage",
        credits=Decimal(5),
        cost=Decimal(0),
        reason="the process died",
        created_at=1_790_000_000_000,
    )
    return entry._replace(**changes)


def a_charge(outbox: Outbox, **changes: Any) -> Entry:
    """An entry as `Charges` makes it before it takes the credits."""
    return an_entry(outbox.new_charge_id(), created_at=outbox.now(), **changes)


def a_refund(outbox: Outbox, **changes: Any) -> Entry:
    """A charge that was taken and whose call has failed: its credits are to be given back."""
    taken = {"taken": Decimal(5), "key_number": 1, "doubt": Doubt.NONE, "reason": "failed", "due_at": outbox.now()}
    return a_charge(outbox, **taken | changes)


def a_batch(worker_id: str, *changes: Change, beat: int = 1, confirmed: int = 0, **fields: Any) -> Batch:
    """What one commit writes."""
    by_charge = {change.entry.charge_id: change for change in changes}
    values = {"complete_to": 0, "seen_at": 1_790_000_000_000} | fields
    return Batch(worker_id, beat, confirmed, changes=by_charge, **values)


async def rows(store: Store) -> dict[str, tuple[str, Entry]]:
    """What is in the table: the state and the entry of each charge."""
    found: list[Row] = list(await store.list(limit=1_000_000))
    return {row.entry.charge_id: (row.state, row.entry) for row in found}


async def freeze(outbox: Outbox) -> Callable[[], None]:
    """Have an outbox write nothing, nor show life, until what is returned is called."""
    store, frozen, thawed = outbox.store, asyncio.Event(), asyncio.Event()
    commit = store.commit

    async def hang(batch: Batch) -> None:
        frozen.set()
        await thawed.wait()
        await commit(batch)

    store.commit = hang  # type: ignore[method-assign] - what a stopped process does
    outbox._wake.set()
    outbox._hurry.set()
    await frozen.wait()

    def thaw() -> None:
        store.commit = commit  # type: ignore[method-assign] - as it was
        thawed.set()

    return thaw


async def kill(outbox: Outbox) -> None:
    """Have an outbox end as SIGKILL ends it: what was not written is gone, and nobody is told."""
    assert outbox._writer is not None
    outbox._writer.cancel()
    await asyncio.wait([outbox._writer])
    outbox._pending.take()
    outbox._stopping = True
    outbox._revive_writer = lambda: None  # type: ignore[method-assign] - it is dead
