"""The outbox: the charges of this process, and what Autumn still has to be told, in a table that survives the process.

A charge has one row from its opening until nothing is left to do for it. No request waits for a write: changes are
handed over and committed in groups, and a charge that is opened and kept between two commits never touches the disk.
What a crash can take with it is still found, because each commit also says up to which charge it is complete, and
Autumn's own event log knows the ones after that.

Each commit is a heartbeat. A worker that could not commit for a lease no longer *shows life*: others may soon take it
for dead and settle its charges, so from then on it opens no new deductions. When it can write again and finds that it
was taken for dead, it takes a new name and has every charge checked that others may have settled.
"""

import asyncio
import logging
from collections.abc import Callable

from fastapi_autumn import telemetry
from fastapi_autumn._machine import MACHINE, Machine
from fastapi_autumn.settlement import ledger
from fastapi_autumn.settlement.entry import Entry
from fastapi_autumn.settlement.pending import Pending
from fastapi_autumn.settlement.store import Batch, Ended, State, Store, TakenForDeadError

__all__ = ["Outbox", "signal"]

_log = logging.getLogger("fastapi_autumn.outbox")

_GROUP_SECONDS = 0.02
_JOURNAL_SECONDS = 0.2
"""Opening and closing can wait longer for a commit than what is to be sent: a crash loses neither. Most charges have
ended before that, and are never written."""
_FIRST_BACKOFF_SECONDS = 0.1
_LONGEST_BACKOFF_SECONDS = 5.0
_BEATS_PER_LEASE = 6


class Outbox:
    """The charges of this process, and the task that writes them.

    Args:
        store: Where the rows are.
        lease: Seconds. A worker without a commit for so long opens no new deductions, and a claim on a row is respected
            for so long.
        machine: The steady clock, and ids.
        now: Autumn's time of day in ms, as far as that is known. Whatever is stored is by this clock, because other
            machines, and Autumn itself, compare it with theirs.
    """

    def __init__(
        self,
        store: Store,
        *,
        lease: float = 30.0,
        machine: Machine = MACHINE,
        now: Callable[[], int] | None = None,
    ) -> None:
        self.store = store
        self.lease = lease
        self.worker_id = machine.new_id()
        self.has_due = asyncio.Event()
        """Set when a row was written that can be sent. The sender waits for it."""
        self.now = now or machine.wall_ms
        """Returns Autumn's time of day in ms."""
        self._machine = machine
        self._pending = Pending()
        self._number = 0
        self._beat = self._confirmed = 0
        self._former_id: str | None = None
        self._alive_at: float | None = None
        self._writer: asyncio.Task[None] | None = None
        self._stopping = False
        # Set by every change; the writer sleeps on it while there is nothing to write.
        self._wake = asyncio.Event()
        # Set by changes that somebody waits for; it cuts the gathering of a group short.
        self._hurry = asyncio.Event()
        # Set at the end of every commit, whether it went well or not. `flush` waits for it.
        self._commit_ended = asyncio.Event()
        self._commits_begun = self._commits_done = 0
        self._committing = False

    # The hot path: nothing below this line waits, and nothing in it can fail.

    def new_charge_id(self) -> str:
        """Return an id that no charge had before, and number it."""
        self._number += 1
        return ledger.charge_id(self.worker_id, self._number)

    @property
    def stopping(self) -> bool:
        """Whether the process is about to end."""
        return self._stopping

    @property
    def shows_life(self) -> bool:
        """Whether others still take this worker for living.

        Measured from the beginning of the last commit that went well, by this process's steady clock. Others wait for
        longer than that before they act.
        """
        if self._stopping or self._alive_at is None:
            return False
        return self._machine.steady() - self._alive_at < self.lease

    def open(self, entry: Entry) -> None:
        """Note that credits are about to be taken. If this process dies, what `entry` says is done."""
        self._pending.open(entry)
        self._wake.set()

    def end(self, entry: Entry, *, owed: bool) -> None:
        """Note that a charge has ended; if something is `owed`, `entry` says what it is to come to."""
        self._pending.end(entry, owed=owed)
        self._wake.set()
        if owed:
            self._hurry.set()

    def delivered(self, entry: Entry, state: State | None, *, until: int | None = None) -> None:
        """Note what became of a claimed row: nothing is left of it, it is due again, or a person has to look at it.

        `until` is when the claim ends.
        """
        self._pending.delivered(entry, state, until)
        self._wake.set()
        self._hurry.set()

    @property
    def unwritten(self) -> int:
        """How many changes are only in memory so far."""
        return len(self._pending)

    # The writer.

    async def start(self) -> None:
        """Open the store, and begin to write.

        Raises:
            ConfigurationError: The store cannot be opened; the message says which setting names it.
        """
        await self.store.open()
        try:
            await self._commit()
        except Exception as error:  # noqa: BLE001 - as in `_write`, which goes on trying
            _log.error("The outbox cannot be written yet (%s).", type(error).__name__)
        self._start_writer()

    def _start_writer(self) -> None:
        self._writer = asyncio.create_task(self._write(), name="autumn-outbox")
        self._writer.add_done_callback(lambda _: self._commit_ended.set())

    def _revive_writer(self) -> None:
        # Whoever tears an event loop down cancels all of its tasks, and only then are the last charges closed.
        if self._writer is not None and self._writer.cancelled():
            self._start_writer()

    async def stop(self, *, within: float) -> None:
        """Write what is in memory, for at most `within` seconds, and close the store."""
        self._stopping = True
        self._wake.set()
        self._hurry.set()
        self._revive_writer()
        if self._writer is not None:
            await asyncio.wait([self._writer], timeout=within)
            self._writer.cancel()
            await asyncio.wait([self._writer])
        if self._pending.unproven:
            _log.critical(
                "The outbox could not be written before the process ended. %d charges are only in Autumn's event log; "
                "another process gives them back from there, including those that were served.",
                self._pending.unproven,
            )
        await self.store.close()

    async def flush(self) -> None:
        """Wait until everything noted so far is in the database."""
        if self._pending:
            commit = self._commits_begun + 1
        elif self._committing:
            commit = self._commits_begun
        else:
            return
        self._hurry.set()
        while self._commits_done < commit:
            self._revive_writer()
            self._commit_ended.clear()
            await self._commit_ended.wait()

    async def _write(self) -> None:
        backoff = 0.0
        while True:
            if not self._stopping and not self._pending:
                await signal(self._wake, within=self.lease / _BEATS_PER_LEASE)
            if not self._stopping and self._pending:
                await self._gather()
            try:
                await self._commit()
                if self._stopping and not self._pending.unproven:
                    # Only with nothing left unproven: of a worker that has left nobody searches the log.
                    await self.store.leave(self.worker_id)
                    return
            except TakenForDeadError:
                continue
            except Exception as error:  # noqa: BLE001 - whatever it is, what is in memory must not be lost with it
                telemetry.outbox_unwritten.add(1)
                # Short against a lease, so that a database which is back in time finds this worker alive.
                longest = min(_LONGEST_BACKOFF_SECONDS, self.lease / _BEATS_PER_LEASE)
                backoff = min(longest, max(_FIRST_BACKOFF_SECONDS, backoff * 2))
                _log.error(
                    "The outbox cannot be written (%s). %d changes wait in memory.",
                    type(error).__name__,
                    self.unwritten,
                )
                await asyncio.sleep(backoff)
            else:
                backoff = 0.0

    async def _gather(self) -> None:
        """Let a group come together: a short one if something is to be sent, or somebody waits for it."""
        await signal(self._hurry, within=_JOURNAL_SECONDS - _GROUP_SECONDS)
        await asyncio.sleep(_GROUP_SECONDS)
        self._hurry.clear()

    async def _commit(self) -> None:
        self._wake.clear()
        taken = self._pending.take()
        self._beat += 1
        batch = Batch(
            worker_id=self.worker_id,
            beat=self._beat,
            confirmed=self._confirmed,
            complete_to=self._number,
            seen_at=self.now(),
            changes=taken.changes,
            former_id=self._former_id,
        )
        begun_at = self._machine.steady()
        self._commits_begun += 1
        self._committing = True
        try:
            await self.store.commit(batch)
        except TakenForDeadError:
            self._begin_again()
            self._pending.contest(taken)
            raise
        except BaseException:
            # A cancellation too: what is in memory must outlive the task.
            self._pending.take_back(taken)
            raise
        finally:
            self._committing = False
            self._commit_ended.set()
        self._alive_at = begun_at
        self._confirmed = batch.beat
        self._former_id = None
        self._commits_done = self._commits_begun
        if any(isinstance(change, Ended) and change.owed for change in taken.changes.values()):
            self.has_due.set()

    def _begin_again(self) -> None:
        _log.error(
            "Other workers took this one for dead. Its %d open charges are checked against Autumn's event log.",
            self._pending.open_charges,
        )
        # The oldest name, if the commit under the last one never got through: rows are under that.
        self._former_id = self._former_id or self.worker_id
        self.worker_id = self._machine.new_id()
        self._beat = self._confirmed = 0
        self._alive_at = None


async def signal(event: asyncio.Event, *, within: float) -> None:
    """Wait until an event is set, and set it when the seconds are over.

    Idle workers do this and nothing else, and a timer is a fraction of `asyncio.timeout`, which cancels and raises.
    """
    timer = asyncio.get_running_loop().call_later(within, event.set)
    try:
        await event.wait()
    finally:
        timer.cancel()
