"""The loop that takes what is due out of the outbox and has it delivered."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi_autumn._machine import MACHINE, Machine
from fastapi_autumn.settlement.entry import Doubt, Entry
from fastapi_autumn.settlement.outbox import Outbox, signal
from fastapi_autumn.settlement.store import State

__all__ = ["Result", "Sender"]

_log = logging.getLogger("fastapi_autumn.outbox")

_AT_ONCE = 64
_LOOK_UPS_AT_ONCE = 16
_PATIENCE_SECONDS = 0.1
_POLL_SECONDS = 1.0
_AFTER_A_DEFECT_MS = 300_000
_RENEWALS_PER_LEASE = 3


@dataclass(frozen=True, slots=True)
class Result:
    """What became of an entry: nothing is left of it (None), it is due again, or a person has to look at it."""

    entry: Entry
    state: State | None


@dataclass(slots=True)
class _Claim:
    """An entry whose delivery is under way, and until when its row is claimed for that."""

    entry: Entry
    until: int


class Sender:
    """Delivers due entries until it is stopped.

    Args:
        outbox: Where they are.
        deliver: Does at Autumn what an entry needs, as far as that is possible now. It raises only for defects.
        machine: The steady clock.
        poll_seconds: How often to look for rows that became due by themselves, or that others have written.
    """

    def __init__(
        self,
        outbox: Outbox,
        deliver: Callable[[Entry], Awaitable[Result]],
        *,
        machine: Machine = MACHINE,
        poll_seconds: float = _POLL_SECONDS,
    ) -> None:
        self._outbox = outbox
        self._deliver = deliver
        self._machine = machine
        self._poll_seconds = poll_seconds
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        # One round at a time: `drain` and the loop would claim beyond the limits together.
        self._round = asyncio.Lock()

    def start(self) -> None:
        """Begin to deliver, first of all what an earlier process left."""
        self._task = asyncio.create_task(self._run(), name="autumn-sender")

    async def stop(self, *, within: float) -> None:
        """Finish what is under way, for at most `within` seconds, and stop.

        What was claimed and could not be finished is due again when its lease has run out.
        """
        if self._task is None:
            return
        self._stopping.set()
        self._outbox.has_due.set()
        # Not cancelled while it may be talking to the database: a driver's thread would outlive the event loop.
        await asyncio.wait([self._task], timeout=within)
        self._task.cancel()
        await asyncio.wait([self._task])

    async def drain(self) -> None:
        """Deliver all that is due now. What waits for another attempt, or for the event log, stays."""
        await self._outbox.flush()
        await self._deliver_due()
        await self._outbox.flush()

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                await self._deliver_due()
            except Exception as error:  # noqa: BLE001 - nothing may end this loop: all that is due waits for it
                _log.error("The outbox cannot be read (%s). Trying again.", type(error).__name__)
                await asyncio.sleep(self._poll_seconds)
            await signal(self._outbox.has_due, within=self._poll_seconds)

    async def _deliver_due(self) -> None:
        async with self._round:
            # In the order of their beginning, and not a set: the order of a set depends on addresses.
            under_way: dict[asyncio.Task[None], _Claim] = {}
            renewed_at = self._machine.steady()
            try:
                while not self._stopping.is_set():
                    self._outbox.has_due.clear()
                    begun = await self._claim(under_way)
                    if not begun and not under_way:
                        return
                    # One that hangs holds up the others for so long, and not until it ends.
                    await asyncio.wait(under_way, timeout=_PATIENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                    under_way = {task: claim for task, claim in under_way.items() if not task.done()}
                    # Before the next claim, so that no lease runs out while what an attempt led to is only in memory.
                    await self._outbox.flush()
                    if self._machine.steady() - renewed_at > self._outbox.lease / _RENEWALS_PER_LEASE:
                        renewed_at = self._machine.steady()
                        await self._renew(under_way)
                if under_way:
                    await asyncio.wait(under_way)
            except Exception:
                # Without the database nothing new is begun. What Autumn is being told meanwhile does not need it.
                if under_way:
                    await asyncio.wait(under_way)
                raise
            finally:
                for task in under_way:
                    task.cancel()
                if under_way:
                    await asyncio.wait(under_way)

    async def _claim(self, under_way: dict[asyncio.Task[None], _Claim]) -> int:
        """Begin to deliver as many rows as there is room for; returns how many."""
        begun = 0
        for doubtful, most in ((False, _AT_ONCE), (True, _LOOK_UPS_AT_ONCE)):
            free = most - sum(1 for claim in under_way.values() if (claim.entry.doubt is not Doubt.NONE) is doubtful)
            if not free:
                continue
            now = self._outbox.now()
            until = self._lease_end(now)
            claimed = await self._outbox.store.claim(
                self._outbox.worker_id, limit=free, doubtful=doubtful, now=now, until=until
            )
            for entry in claimed:
                claim = _Claim(entry, until)
                under_way[asyncio.create_task(self._deliver_one(claim), name="autumn-delivery")] = claim
            begun += len(claimed)
        return begun

    async def _renew(self, under_way: dict[asyncio.Task[None], _Claim]) -> None:
        """Keep what is under way claimed: a look-up may wait long for its turn at Autumn.

        Of two claims of one row, which its maker wrote anew in between, only the later one still holds.
        """
        newest = {claim.entry.charge_id: claim for claim in under_way.values()}
        if newest:
            until = self._lease_end(self._outbox.now())
            await self._outbox.store.renew(self._outbox.worker_id, list(newest), until=until)
            for claim in newest.values():
                claim.until = until

    def _lease_end(self, now: int) -> int:
        return now + int(self._outbox.lease * 1000)

    async def _deliver_one(self, claim: _Claim) -> None:
        entry = claim.entry
        try:
            result = await self._deliver(entry)
        except Exception as error:  # noqa: BLE001 - as in _run
            # A defect in one delivery must not hold up the others, and may have come after the request went out.
            _log.exception("Charge %s met a defect. It is looked up and tried again later.", entry.charge_id)
            again = self._outbox.now() + _AFTER_A_DEFECT_MS
            result = Result(
                entry._replace(
                    doubt=Doubt.UNKNOWN, attempts=entry.attempts + 1, due_at=again, last_error=type(error).__name__
                ),
                "due",
            )
        self._outbox.delivered(result.entry, result.state, until=claim.until)
