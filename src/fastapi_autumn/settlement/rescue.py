"""Settling the charges of workers that ended without saying so."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence

from fastapi_autumn._machine import MACHINE, Machine
from fastapi_autumn.errors import AutumnError
from fastapi_autumn.settlement.entry import Entry
from fastapi_autumn.settlement.outbox import Outbox
from fastapi_autumn.settlement.store import WorkerRow

__all__ = ["Rescuer"]

_log = logging.getLogger("fastapi_autumn.outbox")

_ROUNDS_PER_LEASE = 3
_CLAIM_MS = 120_000
"""Another worker may try after that, if this one fails. Two at once do no harm: the take-over is one transaction."""
_CERTAIN_SILENCE_MS = 3_600_000
"""Clocks of machines differ by seconds or minutes. A worker that was last seen more than an hour ago is dead at once,
so that processes which never live long enough to watch it in silence settle its charges too."""


async def _known() -> bool:
    return True


class Rescuer:
    """Looks for workers that fell silent, and takes over what they left.

    Args:
        outbox: The outbox of the worker that looks.
        find_unwritten: Finds at Autumn the charges of a silent worker that it never wrote down, and returns what gives
            them back.
        knows_the_time: Makes sure that Autumn's clock is known here, by which workers note when they were last seen;
            False if that cannot be had now. It is asked only where something depends on it.
        silence: Seconds without a heartbeat after which a worker is taken for dead. It has to cover the lease, in which
            a worker may still begin deductions, the time-out of such a call, and the delay of the event log.
        machine: The steady clock.
    """

    def __init__(
        self,
        outbox: Outbox,
        find_unwritten: Callable[[WorkerRow], Awaitable[Sequence[Entry]]],
        *,
        silence: float,
        knows_the_time: Callable[[], Awaitable[bool]] = _known,
        machine: Machine = MACHINE,
    ) -> None:
        self._outbox = outbox
        self._find_unwritten = find_unwritten
        self._silence = silence
        self._knows_the_time = knows_the_time
        self._machine = machine
        self._watched: dict[str, tuple[int, float]] = {}
        # Until when the silent workers are this one's to settle: one failure at Autumn must not cost the whole claim.
        self._claimed: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    def start(self) -> None:
        """Begin to look round."""
        self._task = asyncio.create_task(self._run(), name="autumn-rescue")

    async def stop(self, *, within: float) -> None:
        """Let a round that is under way end, for at most `within` seconds."""
        if self._task is None:
            return
        self._stopping.set()
        # Not cancelled while it may be talking to the database: a driver's thread would outlive the event loop.
        await asyncio.wait([self._task], timeout=within)
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                await self.look_round()
            except Exception as error:  # noqa: BLE001 - nothing may end this loop: dead workers wait for it
                _log.error("The outbox cannot be searched for dead processes (%s).", type(error).__name__)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._outbox.lease / _ROUNDS_PER_LEASE):
                    await self._stopping.wait()

    async def look_round(self) -> None:
        """Take over what was left behind, as far as it is known to be."""
        store, now = self._outbox.store, self._outbox.now
        adopted = await store.adopt_orphans(by=self._outbox.worker_id, now=now())
        if adopted:
            _log.warning("A process stopped with %d charges open. They are settled now.", adopted)
            self._outbox.has_due.set()
        for worker in await self._silent(await store.workers()):
            # Before the search, which reads the log of the whole organisation: one worker is to do that, and not all.
            if not await self._claim(worker):
                continue
            try:
                unwritten = await self._find_unwritten(worker)
            except AutumnError as error:
                _log.warning("The charges of a dead process cannot be looked up yet: %s", error)
                continue
            taken = await store.take_over(worker, by=self._outbox.worker_id, unwritten=unwritten, now=now())
            self._watched.pop(worker.id, None)
            self._claimed.pop(worker.id, None)
            if taken is not None:
                _log.warning("A process died with %d charges open. They are settled now.", taken)
                self._outbox.has_due.set()

    async def _claim(self, worker: WorkerRow) -> bool:
        steady = self._machine.steady()
        self._claimed = {known: until for known, until in self._claimed.items() if until > steady}
        if worker.id not in self._claimed:
            now = self._outbox.now()
            if not await self._outbox.store.claim_worker(worker, now=now, until=now + _CLAIM_MS):
                return False
            self._claimed[worker.id] = steady + _CLAIM_MS / 1000
        return True

    async def _silent(self, workers: Sequence[WorkerRow]) -> list[WorkerRow]:
        """Return the workers that were silent for long enough.

        The silence is measured here, by a clock that does not jump, and only while this process could write itself:
        while the database was away, everybody was silent.
        """
        steady = self._machine.steady()
        # Without a life of its own to show it cannot tell who is silent, and counting begins anew.
        before = self._watched if self._outbox.shows_life else {}
        others = [worker for worker in workers if worker.id != self._outbox.worker_id]
        self._watched = {
            worker.id: seen if (seen := before.get(worker.id)) and seen[0] == worker.beat else (worker.beat, steady)
            for worker in others
        }
        if not self._outbox.shows_life:
            return []
        silent = [worker for worker in others if steady - self._watched[worker.id][1] > self._silence]
        gone = [worker for worker in others if worker not in silent and self._is_long_gone(worker)]
        if gone and await self._knows_the_time():
            # Again, by what the time is really.
            silent += [worker for worker in gone if self._is_long_gone(worker)]
        return silent

    def _is_long_gone(self, worker: WorkerRow) -> bool:
        return worker.seen_at < self._outbox.now() - _CERTAIN_SILENCE_MS - int(self._silence * 1000)
