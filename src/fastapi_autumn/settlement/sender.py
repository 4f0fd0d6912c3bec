"""The loop that takes what is due out of the outbox and has it delivered."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from enum import Enum
from typing import assert_never

from fastapi_autumn import telemetry
from fastapi_autumn.errors import (
    AutumnError,
    DuplicateRequest,
    NotSent,
    RateLimited,
    RequestRejected,
    ServerFailure,
    Unavailable,
)
from fastapi_autumn.settlement._entry import Entry
from fastapi_autumn.settlement._outcome import Action
from fastapi_autumn.settlement.outbox import LostWorker, Outbox

__all__ = ["Next", "Sender", "after"]

_log = logging.getLogger("fastapi_autumn.outbox")

_AT_ONCE = 64
_PATIENCE_SECONDS = 0.1
_POLL_SECONDS = 1.0
_FIRST_BACKOFF_MS = 500
_LONGEST_BACKOFF_MS = 300_000
_LONGEST_RETRY_AFTER = 3600.0
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
        case RequestRejected() | Unavailable():
            return Next.PARK if entry.is_beyond_certainty(now) else Next.RETRY
        case _:
            return Next.PARK


class Sender:
    """Delivers due entries until it is stopped.

    Args:
        outbox: Where they are.
        send: Does at Autumn what an entry says, and returns the entry that follows from it, if any.
        recover: Finds at Autumn the charges of a lost worker that were never written, and returns what gives them back.
        delay: How long, in seconds, Autumn's event log may take to show what has happened.
    """

    def __init__(
        self,
        outbox: Outbox,
        send: Callable[[Entry], Awaitable[Entry | None]],
        *,
        recover: Callable[[LostWorker], Awaitable[Sequence[Entry]]],
        delay: float,
    ) -> None:
        self._outbox = outbox
        self._send = send
        self._recover = recover
        self._delay = delay
        self._task: asyncio.Task[None] | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._delivering = asyncio.Lock()
        self._stopping = asyncio.Event()

    def start(self) -> None:
        """Begin to deliver, first of all what an earlier process left."""
        self._task = asyncio.create_task(self._run(), name="autumn-sender")
        self._recovery = asyncio.create_task(self._look_after_others(), name="autumn-recovery")

    async def stop(self, *, within: float) -> None:
        """Finish what is under way, for at most `within` seconds, and stop.

        What was claimed and could not be finished is due again when its lease has run out.
        """
        if self._task is None or self._recovery is None:
            return
        self._stopping.set()
        self._outbox.has_due.set()
        # Not cancelled as long as they may be talking to the database: a driver's thread would outlive the event loop.
        await asyncio.wait([self._task, self._recovery], timeout=within)
        self._task.cancel()
        self._recovery.cancel()
        await asyncio.gather(self._task, self._recovery, return_exceptions=True)

    async def drain(self) -> None:
        """Deliver all that is due now; what waits for another attempt stays."""
        await self._outbox.flush()
        await self._deliver_due()
        await self._outbox.flush()

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                await self._deliver_due()
            except Exception as error:  # noqa: BLE001 - nothing may end this loop: all that is due waits for it
                _log.error("the outbox cannot be read (%s); trying again", type(error).__name__)
                await asyncio.sleep(_POLL_SECONDS)
            # Other processes put rows there too, and retries become due by themselves: look without being told.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._outbox.has_due.wait(), _POLL_SECONDS)

    async def _deliver_due(self) -> None:
        async with self._delivering:
            under_way: set[asyncio.Task[None]] = set()
            try:
                while not self._stopping.is_set():
                    self._outbox.has_due.clear()
                    free = _AT_ONCE - len(under_way)
                    entries = await self._outbox.claim(free) if free else []
                    if not entries and not under_way:
                        return
                    under_way |= {asyncio.create_task(self._deliver(entry)) for entry in entries}
                    # One that hangs holds up the others for so long, and not until it ends.
                    _, under_way = await asyncio.wait(under_way, timeout=_PATIENCE_SECONDS)
                    # Before the next claim, so that no lease runs out while what an attempt led to is only in memory.
                    await self._outbox.flush()
                if under_way:
                    await asyncio.wait(under_way)
            finally:
                for task in under_way:
                    task.cancel()
                await asyncio.gather(*under_way, return_exceptions=True)

    async def _deliver(self, entry: Entry) -> None:
        now = self._outbox.now()
        if entry.is_beyond_certainty(now):
            self._park(entry, "it may have been delivered so long ago that Autumn has forgotten")
            return
        error: AutumnError | None = None
        follows: Entry | None = None
        try:
            follows = await self._send(entry)
        except AutumnError as raised:
            error = raised
        except Exception:  # noqa: BLE001 - a defect in one delivery must not hold up the others
            _log.exception("charge %s met a defect; trying again later", entry.charge_id)
            self._outbox.put_back(
                replace(entry, attempts=entry.attempts + 1, due_at=now + _LONGEST_BACKOFF_MS, maybe_sent_at=now)
            )
            return
        tried = _after_attempt(entry, error, now)
        match after(error, tried, now):
            case Next.DELIVERED if follows is not None:
                self._outbox.put_back(follows)
            case Next.DELIVERED:
                self._outbox.finish(entry)
            case Next.RETRY:
                retry_after = error.retry_after if isinstance(error, Unavailable) else None
                pause = _pause(tried.attempts, retry_after)
                if tried.look_first:
                    pause = max(pause, int(self._delay * 1000))
                self._outbox.put_back(replace(tried, due_at=self._outbox.now() + pause))
            case Next.PARK:
                self._park(tried, str(error))
            case other:
                assert_never(other)

    def _park(self, entry: Entry, why: str) -> None:
        telemetry.outbox_parked.add(1)
        _log.error("charge %s is parked, a person has to decide: %s", entry.charge_id, why)
        self._outbox.park(replace(entry, last_error=why))

    async def _look_after_others(self) -> None:
        while not self._stopping.is_set():
            try:
                await self._outbox.take_over_orphans(delay=self._delay)
                # A charge of the last moment is in the event log only after the delay.
                for worker in await self._outbox.find_lost(silence=self._outbox.lease + self._delay):
                    await self._outbox.take_over(worker, await self._recover(worker))
            except AutumnError as error:
                _log.warning("charges of a lost process cannot be looked up yet: %s", error)
            except Exception as error:  # noqa: BLE001 - as in _run
                _log.error("the outbox cannot be searched for lost processes (%s)", type(error).__name__)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._outbox.lease / 3)


def _after_attempt(entry: Entry, error: AutumnError | None, now: int) -> Entry:
    tried = replace(entry, attempts=entry.attempts + 1, last_error=str(error) if error else None)
    if isinstance(error, Unavailable) and not isinstance(error, NotSent | RateLimited):
        tried = replace(tried, maybe_sent_at=entry.maybe_sent_at or now)
    if isinstance(error, ServerFailure) and entry.action is not Action.LOOK_UP:
        tried = replace(tried, look_first=True)
    return tried


def _pause(attempts: int, retry_after: float | None) -> int:
    jitter = random.uniform(0.5, 1)  # noqa: S311 - not a secret
    ceiling = min(_LONGEST_BACKOFF_MS, _FIRST_BACKOFF_MS * 2 ** min(attempts - 1, 20))
    if retry_after is None:
        return int(ceiling * jitter)
    return int(min(retry_after, _LONGEST_RETRY_AFTER) * 1000 + _FIRST_BACKOFF_MS * jitter)
