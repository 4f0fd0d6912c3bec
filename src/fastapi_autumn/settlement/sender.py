"""The loop that takes what is due out of the outbox and has it delivered."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from enum import Enum
from typing import assert_never

from sqlalchemy.exc import SQLAlchemyError

from fastapi_autumn import telemetry
from fastapi_autumn.errors import AutumnError, DuplicateRequest, NotSent, RateLimited, RequestRejected, Unavailable
from fastapi_autumn.settlement._entry import Entry
from fastapi_autumn.settlement.outbox import LostWorker, Outbox

__all__ = ["Next", "Sender", "after"]

_log = logging.getLogger("fastapi_autumn.outbox")

_AT_ONCE = 32
_POLL_SECONDS = 1.0
_ADOPT_SECONDS = 10.0
_FIRST_BACKOFF_MS = 500
_LONGEST_BACKOFF_MS = 300_000
_KEY_PROBLEMS = {401, 403}


class Next(Enum):
    """What follows an attempt to deliver an entry."""

    DELIVERED = "delivered"
    RETRY = "retry"
    PARK = "park"


def after(error: AutumnError | None, entry: Entry, now: int) -> Next:
    """Decide what follows an attempt that ended in `error`, or in nothing when Autumn answered well."""
    match error:
        case None | DuplicateRequest():
            # The key was used: an attempt whose answer got lost, or another worker's, has done it.
            return Next.DELIVERED
        case RequestRejected() if error.status not in _KEY_PROBLEMS:
            return Next.PARK
        case _:
            return Next.PARK if entry.is_beyond_certainty(now) else Next.RETRY


class Sender:
    """Delivers due entries until it is stopped.

    Args:
        outbox: Where they are.
        send: Does at Autumn what an entry says, and returns the entry that follows from it, if any.
        recover: Finds at Autumn the charges of a lost worker that were never written, and puts them into the outbox.
        delay: How long, in milliseconds, Autumn's event log may take to show what has happened.
    """

    def __init__(
        self,
        outbox: Outbox,
        send: Callable[[Entry], Awaitable[Entry | None]],
        *,
        recover: Callable[[LostWorker], Awaitable[None]],
        delay: int,
    ) -> None:
        self._outbox = outbox
        self._send = send
        self._recover = recover
        self._delay = delay
        self._task: asyncio.Task[None] | None = None
        self._delivering = asyncio.Lock()
        self._stopping = False

    def start(self) -> None:
        """Begin to deliver, first of all what an earlier process left."""
        self._task = asyncio.create_task(self._run(), name="autumn-sender")

    async def stop(self, *, within: float) -> None:
        """Finish what is under way, for at most `within` seconds, and stop.

        What was claimed and could not be finished is due again when its lease has run out.
        """
        if self._task is None:
            return
        self._stopping = True
        self._outbox.has_due.set()
        await asyncio.wait([self._task], timeout=within)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def drain(self) -> None:
        """Deliver all that is due now; what waits for another attempt stays."""
        await self._outbox.flush()
        await self._deliver_due()
        await self._outbox.flush()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        adopt_at = loop.time()
        while not self._stopping:
            try:
                if loop.time() >= adopt_at:
                    adopt_at = loop.time() + _ADOPT_SECONDS
                    await self._adopt()
                await self._deliver_due()
            except (SQLAlchemyError, OSError) as error:
                _log.error("the outbox cannot be read (%s); trying again", type(error).__name__)
                await asyncio.sleep(_POLL_SECONDS)
            except Exception:  # noqa: BLE001 - nobody is answered here, and the loop must outlive a defect
                _log.exception("the outbox met an error that nobody expected; trying again")
                await asyncio.sleep(_POLL_SECONDS)
            # Other processes put rows there too, and retries become due by themselves: look without being told.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._outbox.has_due.wait(), _POLL_SECONDS)

    async def _deliver_due(self) -> None:
        async with self._delivering:
            while not self._stopping:
                self._outbox.has_due.clear()
                entries = await self._outbox.claim(_AT_ONCE)
                if not entries:
                    return
                await asyncio.gather(*(self._deliver(entry) for entry in entries))
                # What an attempt led to is written before the next claim, so that nothing is claimed twice.
                await self._outbox.flush()

    async def _deliver(self, entry: Entry) -> None:
        now = self._outbox.now()
        error: AutumnError | None = None
        follows: Entry | None = None
        try:
            follows = await self._send(entry)
        except AutumnError as raised:
            error = raised
        tried = replace(entry, attempts=entry.attempts + 1, last_error=str(error) if error else None)
        if isinstance(error, Unavailable) and not isinstance(error, NotSent | RateLimited):
            tried = replace(tried, maybe_sent_at=entry.maybe_sent_at or now)
        match after(error, tried, now):
            case Next.DELIVERED if follows is not None:
                self._outbox.put(follows)
            case Next.DELIVERED:
                self._outbox.close(entry.charge_id)
            case Next.RETRY:
                retry_after = error.retry_after if isinstance(error, Unavailable) else None
                self._outbox.put(replace(tried, due_at=now + _pause(tried.attempts, retry_after)))
            case Next.PARK:
                telemetry.outbox_parked.add(1)
                _log.error("charge %s is parked, a person has to decide: %s", entry.charge_id, error)
                await self._outbox.park(tried)
            case other:
                assert_never(other)

    async def _adopt(self) -> None:
        for worker in await self._outbox.adopt(delay=self._delay):
            try:
                await self._recover(worker)
            except AutumnError as error:
                _log.warning("charges of a lost process cannot be looked up yet: %s", error)
            else:
                await self._outbox.forget(worker.id)


def _pause(attempts: int, retry_after: float | None) -> int:
    if retry_after is not None:
        return int(retry_after * 1000)
    ceiling = min(_LONGEST_BACKOFF_MS, _FIRST_BACKOFF_MS * 2 ** min(attempts - 1, 20))
    return int(ceiling * random.uniform(0.5, 1))  # noqa: S311 - jitter, not a secret
