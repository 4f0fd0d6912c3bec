"""Entries, and what they are delivered with, for the tests of the outbox."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from fastapi_autumn.settlement import Action, Entry
from fastapi_autumn.settlement.outbox import LostWorker, Outbox
from fastapi_autumn.settlement.sender import Sender

HOUR_MS = 3_600_000


class Clock:
    """Milliseconds that pass only when told."""

    def __init__(self) -> None:
        self.ms = 1_790_000_000_000

    def __call__(self) -> int:
        return self.ms

    def advance(self, *, seconds: float = 0, hours: float = 0) -> None:
        self.ms += int(seconds * 1000 + hours * HOUR_MS)


def a_charge(outbox: Outbox, **changes: Any) -> Entry:
    """An entry as `Charges` makes it before it takes the credits."""
    entry = Entry(
        charge_id=outbox.new_charge_id(),
        customer_id="ada",
        feature_id="ai_usage",
        credits=Decimal(5),
        action=Action.LOOK_UP,
        value=Decimal(-5),
        reason="the process died",
        created_at=outbox.now(),
    )
    return replace(entry, **changes)


def a_refund(outbox: Outbox, **changes: Any) -> Entry:
    """An entry that gives all credits back."""
    return a_charge(outbox, **{"action": Action.TRACK, "reason": "failed", "due_at": outbox.now()} | changes)


async def freeze(outbox: Outbox) -> asyncio.Event:
    """Have an outbox write nothing, nor show a sign of life, until the event that is returned is set."""
    commit, frozen, thawed = outbox._commit, asyncio.Event(), asyncio.Event()

    async def hang(*arguments: Any) -> None:
        frozen.set()
        await thawed.wait()
        outbox._commit = commit  # type: ignore[method-assign] - as it was
        await commit(*arguments)

    outbox._commit = hang  # type: ignore[method-assign] - what a stopped process does not do
    outbox._wake.set()
    await frozen.wait()
    return thawed


async def kill(outbox: Outbox) -> None:
    """Have an outbox end as SIGKILL ends it: what was not written is gone, and nobody is told."""
    if outbox._commit.__name__ != "hang":
        await freeze(outbox)
    assert outbox._writer is not None
    outbox._writer.cancel()
    await asyncio.gather(outbox._writer, return_exceptions=True)
    outbox._writer = None
    outbox._pending.take()


async def written(outbox: Outbox) -> dict[str, tuple[str, Entry]]:
    """What is in the table."""
    return {entry.charge_id: (state, entry) for state, entry in await outbox.list(limit=1_000_000)}


class Deliveries:
    """Stands for `Delivery`: notes what it is handed, and does what the test says."""

    def __init__(self, *answers: Any, otherwise: Any = None) -> None:
        self.sent: list[Entry] = []
        self._answers = list(answers)
        self._otherwise = otherwise

    async def send(self, entry: Entry) -> Entry | None:
        self.sent.append(entry)
        answer = self._answers.pop(0) if self._answers else self._otherwise
        if callable(answer):
            answer = answer(entry)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def recover(self, worker: LostWorker) -> Sequence[Entry]:
        return ()

    @property
    def ids(self) -> list[str]:
        return [entry.charge_id for entry in self.sent]


@contextlib.asynccontextmanager
async def sending(outbox: Outbox, deliveries: Any, *, delay: float = 0.0) -> AsyncIterator[Sender]:
    """Run a sender."""
    sender = Sender(outbox, deliveries.send, recover=deliveries.recover, delay=delay)
    sender.start()
    try:
        yield sender
    finally:
        await sender.stop(within=2)


async def until(condition: Any, *, seconds: float = 10) -> None:
    """Wait until `condition()` is true, or true once awaited."""
    async with asyncio.timeout(seconds):
        while True:
            result = condition()
            if asyncio.iscoroutine(result):
                result = await result
            if result:
                return
            await asyncio.sleep(0.01)
