"""The outbox: what still has to be told to Autumn, in a SQL table that survives the process.

A charge has one row from its opening until nothing is left to do for it. No request waits for a write: writes are
handed over and committed in groups, and a charge that is opened and kept between two commits never touches the disk.
What a crash can take with it is still found, because each commit also says up to which charge it is complete, and
Autumn's own event log knows the ones after that.

Rows that are due are claimed under a lease, so several processes and machines may share one database. A worker whose
row in `autumn_workers` is gone has been taken for dead: others settle its charges. If it lives all the same, it finds
out with its next commit, takes a new name, and has the charges in question compared with the event log.
"""

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from fastapi_autumn import telemetry
from fastapi_autumn.errors import ConfigurationError
from fastapi_autumn.settlement._entry import Entry
from fastapi_autumn.settlement._pending import Change, Pending
from fastapi_autumn.settlement._tables import (
    ENTRY_COLUMNS,
    State,
    create_tables,
    engine_for,
    entry_of,
    inode_of,
    insert_into,
    path_of,
    row_of,
    rows,
    workers,
)

__all__ = ["LostWorker", "Outbox", "State"]

_log = logging.getLogger("fastapi_autumn.outbox")

_GROUP_SECONDS = 0.02
# Opening and closing can wait longer for a commit: what a crash takes with it is found in Autumn's event log. Most
# charges are closed again by then and are never written.
_JOURNAL_SECONDS = 0.2
_FIRST_BACKOFF = 0.1
_LONGEST_BACKOFF = 5.0
_PAUSES_WHILE_BUSY = (0.05, 0.1, 0.2, 0.4)


@dataclass(frozen=True, slots=True)
class LostWorker:
    """A worker that stopped without saying so.

    Charges of its with a number above `complete_to` were never written here; Autumn's event log has those that
    happened, all of them after `seen_at` (milliseconds).
    """

    id: str
    seen_at: int
    complete_to: int


class _TakenForDeadError(Exception):
    """This worker's row is gone."""


class Outbox:
    """The table, and the task that writes to it.

    Args:
        url: A SQLAlchemy URL, `sqlite+aiosqlite:///path` or `postgresql+asyncpg://...`.
        lease: Seconds for which a claim is respected, and the least silence after which a worker is taken for dead.
        now: The time in milliseconds.
    """

    def __init__(
        self, url: str, *, lease: float = 30.0, now: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    ) -> None:
        self.worker_id = _new_worker_id()
        self.lease = lease
        self.now = now
        self.has_due = asyncio.Event()
        self._url = url
        self._engine: AsyncEngine | None = None
        self._path: Path | None = None
        self._inode: tuple[int, int] | None = None
        self._is_open = False
        self._has_joined = False
        self._sequence = 0
        self._pending = Pending(doubt=int(lease * 1000), now=lambda: self.now())  # noqa: PLW0108 - `now` may be replaced
        self._observed: dict[str, tuple[int, float]] = {}
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._written = asyncio.Event()
        self._commits_begun = self._commits_done = 0
        self._committing = False
        self._committed_at = 0.0
        self._writer: asyncio.Task[None] | None = None
        self._stopping = False

    # The hot path: nothing below this line waits, and nothing in it can fail.

    def new_charge_id(self) -> str:
        """Return an id that no charge had before. Ids of one worker are numbered in the order of their making."""
        self._sequence += 1
        return f"{self.worker_id}-{self._sequence}"

    def open(self, entry: Entry) -> None:
        """Note that credits are about to be taken. If this process dies, what `entry` says is done."""
        self._pending.open(entry)
        self._wake.set()

    def put(self, entry: Entry) -> None:
        """Note what has to be done to close a charge."""
        self._pending.put(entry)
        self._wake.set()
        self._hurry.set()

    def close(self, charge_id: str) -> None:
        """Note that nothing is left to do for a charge."""
        self._pending.close(charge_id)
        self._wake.set()

    def finish(self, entry: Entry) -> None:
        """Note that a claimed entry is delivered."""
        self._pending.note(Change(entry, None, claimed=True))
        self._wake.set()
        self._hurry.set()

    def put_back(self, entry: Entry) -> None:
        """Note what is left to do after an attempt to deliver a claimed entry."""
        self._pending.note(Change(entry, "due", claimed=True))
        self._wake.set()
        self._hurry.set()

    def park(self, entry: Entry) -> None:
        """Keep a claimed entry for a person to decide; it is never sent again by itself."""
        self._pending.note(Change(entry, "parked", claimed=True))
        self._wake.set()
        self._hurry.set()

    @property
    def unwritten(self) -> int:
        """How many changes are only in memory so far."""
        return len(self._pending)

    # The writer.

    async def start(self) -> None:
        """Create the tables where they are missing, and begin to write.

        Raises:
            ConfigurationError: The database cannot be opened; the message says which setting names it.
        """
        try:
            url = make_url(self._url)
            self._path = path_of(url)
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._path.touch()
            self._engine = engine_for(url)
            await self._begin()
        except (SQLAlchemyError, OSError) as error:
            cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
            raise ConfigurationError(
                f"the outbox cannot be opened ({type(cause).__name__}: {cause}); check AUTUMN_OUTBOX_URL"
            ) from error
        self._start_writer()

    def _start_writer(self) -> None:
        self._writer = asyncio.create_task(self._write(), name="autumn-outbox")
        self._writer.add_done_callback(lambda _: self._written.set())

    def _revive_writer(self) -> None:
        # Whoever tears an event loop down cancels all of its tasks, and only then are the last charges closed.
        if self._writer is not None and self._writer.cancelled():
            self._start_writer()

    async def _begin(self) -> None:
        for pause in _PAUSES_WHILE_BUSY:
            try:
                await self._commit({}, 0)
            except sa.exc.OperationalError as error:
                # SQLite does not wait for its lock when two processes turn on the write-ahead log at the same time.
                if getattr(error.orig, "sqlite_errorname", "") != "SQLITE_BUSY":
                    raise
                await asyncio.sleep(pause)
            else:
                return
        await self._commit({}, 0)

    async def stop(self, *, within: float) -> None:
        """Write what is in memory, for at most `within` seconds, and close the database."""
        self._stopping = True
        self._wake.set()
        self._hurry.set()
        self._revive_writer()
        if self._writer is not None:
            await asyncio.wait([self._writer], timeout=within)
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        if self.unwritten:
            _log.critical("the outbox could not be written: %d charges are lost to this process", self.unwritten)
        if self._engine is not None:
            await self._engine.dispose()

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
            self._written.clear()
            await self._written.wait()

    async def _write(self) -> None:
        backoff = 0.0
        while True:
            if not self._stopping and not self._pending:
                # Without anything to write it is a sign of life.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), self.lease / 6)
            if self._stopping and not self._pending:
                await self._say_goodbye()
                return
            await self._gather()
            self._wake.clear()
            changes = self._pending.take()
            self._commits_begun += 1
            self._committing = True
            try:
                await self._commit(changes, self._sequence)
            except _TakenForDeadError:
                count = self._pending.open_charges
                _log.error("this worker was taken for dead; its %d open charges are compared with Autumn's", count)
                self.worker_id, self._has_joined, self._is_open = _new_worker_id(), False, True
                self._pending.doubt(changes)
            except asyncio.CancelledError:
                self._pending.take_back(changes)
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, what is in memory must not be lost with it
                self._pending.take_back(changes)
                telemetry.outbox_unwritten.add(1)
                backoff = min(_LONGEST_BACKOFF, self.lease / 6, max(_FIRST_BACKOFF, backoff * 2))
                cause = type(error).__name__
                _log.error("the outbox cannot be written (%s); %d changes are kept in memory", cause, self.unwritten)
                await asyncio.sleep(backoff)
            else:
                backoff = 0.0
                self._commits_done = self._commits_begun
                if any(change.state == "due" for change in changes.values()):
                    self.has_due.set()
            finally:
                self._committing = False
                self._written.set()

    async def _gather(self) -> None:
        """Let a group come together: a short one if something is to be sent, or somebody waits for it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_JOURNAL_SECONDS - _GROUP_SECONDS):
                await self._hurry.wait()
        await asyncio.sleep(0 if self._stopping else _GROUP_SECONDS)
        self._hurry.clear()

    async def _commit(self, changes: Mapping[str, Change], complete_to: int) -> None:
        if not self._is_open or self._has_moved():
            await self._reopen()
        self._is_open = False
        async with self._connected.begin() as connection:
            # First, because it decides whether the rest is still this worker's to write.
            if self._has_joined:
                await self._show_life(connection, complete_to)
            else:
                await self._join(connection, complete_to)
            await self._write_rows(connection, changes.values())
        self._is_open = self._has_joined = True
        self._committed_at = time.monotonic()

    async def _write_rows(self, connection: AsyncConnection, changes: Iterable[Change]) -> None:
        put: list[dict[str, Any]] = []
        changed: list[dict[str, Any]] = []
        closed: list[dict[str, str]] = []
        finished: list[dict[str, str]] = []
        for change in changes:
            charge_id = {"id": change.entry.charge_id}
            if change.state is None:
                (finished if change.claimed else closed).append(charge_id)
            else:
                row = row_of(change.entry, change.state, owner=self.worker_id)
                if change.claimed:
                    changed.append(row | charge_id)
                else:
                    put.append(row)
        this, mine = rows.c.charge_id == sa.bindparam("id"), rows.c.owner == self.worker_id
        if put:
            insert = insert_into(rows, self._connected)
            values = {c.name: insert.excluded[c.name] for c in rows.columns if c.name != "charge_id"}
            await connection.execute(insert.on_conflict_do_update(index_elements=["charge_id"], set_=values), put)
        if changed:
            names = [c.name for c in rows.columns if c.name not in {"charge_id", "owner"}]
            update = rows.update().where(this, mine).values({name: sa.bindparam(f"new_{name}") for name in names})
            renamed = [{"id": row["id"]} | {f"new_{name}": row[name] for name in names} for row in changed]
            await connection.execute(update, renamed)
        if closed:
            await connection.execute(rows.delete().where(this), closed)
        if finished:
            await connection.execute(rows.delete().where(this, mine), finished)

    async def _join(self, connection: AsyncConnection, complete_to: int) -> None:
        values = {"id": self.worker_id, "seen_at": self.now(), "complete_to": complete_to, "lease_until": 0}
        insert = insert_into(workers, self._connected).values(values)
        # Not the first attempt, perhaps: one whose answer was lost may have got through.
        await connection.execute(insert.on_conflict_do_update(index_elements=["id"], set_=values))

    async def _show_life(self, connection: AsyncConnection, complete_to: int) -> None:
        me = workers.c.id == self.worker_id
        beat = workers.update().where(me).values(seen_at=self.now(), complete_to=complete_to)
        if not (await connection.execute(beat)).rowcount:
            raise _TakenForDeadError

    async def _say_goodbye(self) -> None:
        async with self._connected.begin() as connection:
            await connection.execute(workers.delete().where(workers.c.id == self.worker_id))

    def _has_moved(self) -> bool:
        # SQLite goes on writing into a file that was deleted or renamed, without an error.
        return self._path is not None and (not self._path.exists() or inode_of(self._path) != self._inode)

    async def _reopen(self) -> None:
        if self._path is not None and time.monotonic() - self._committed_at > self.lease:
            # What has not come back for so long will not; better an empty outbox than none.
            self._path.touch()
        await self._connected.dispose()
        async with self._connected.begin() as connection:
            await create_tables(connection)
        if self._path is not None:
            self._inode = inode_of(self._path)

    @property
    def _connected(self) -> AsyncEngine:
        if self._engine is None:
            raise RuntimeError("the outbox is not started; run the application with lifespan=autumn.lifespan")
        return self._engine

    # The reader.

    async def claim(self, limit: int) -> list[Entry]:
        """Take up to `limit` rows that are due, oldest first; nobody else gets them for the length of the lease."""
        now = self.now()
        free = (
            sa.select(rows.c.charge_id)
            .where(rows.c.state == "due", rows.c.due_at <= now, rows.c.lease_until < now)
            .order_by(rows.c.due_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        claim = (
            rows.update()
            .where(rows.c.charge_id.in_(free))
            # A process that dies while it delivers cannot say that it has: from here on the row may have been sent.
            .values(
                owner=self.worker_id,
                lease_until=now + int(self.lease * 1000),
                maybe_sent_at=sa.func.coalesce(rows.c.maybe_sent_at, now),
            )
            .returning(*ENTRY_COLUMNS)
        )
        async with self._connected.begin() as connection:
            # RETURNING keeps no order.
            entries = sorted(map(entry_of, await connection.execute(claim)), key=lambda entry: entry.due_at)
        return [replace(entry, maybe_sent_at=None) if entry.maybe_sent_at == now else entry for entry in entries]

    async def find_lost(self, *, silence: float) -> list[LostWorker]:
        """Return workers that have shown no sign of life for `silence` seconds, each to one caller for a lease.

        The silence is measured here, by a clock that does not jump, and only while this process could write itself:
        when the database was away, everybody was silent.
        """
        async with self._connected.connect() as connection:
            query = sa.select(workers).where(workers.c.id != self.worker_id)
            found = [LostWorker(row.id, row.seen_at, row.complete_to) for row in await connection.execute(query)]
        now = time.monotonic()
        before = self._observed if now - self._committed_at < self.lease / 2 else {}
        self._observed = {}
        for worker in found:
            seen_at, since = before.get(worker.id, (worker.seen_at, now))
            self._observed[worker.id] = (seen_at, since) if seen_at == worker.seen_at else (worker.seen_at, now)
        return [
            worker
            for worker in found
            if now - self._observed[worker.id][1] > silence and await self._claim_worker(worker)
        ]

    async def _claim_worker(self, worker: LostWorker) -> bool:
        now = self.now()
        same = sa.and_(workers.c.id == worker.id, workers.c.seen_at == worker.seen_at, workers.c.lease_until < now)
        claim = workers.update().where(same).values(lease_until=now + int(self.lease * 1000))
        async with self._connected.begin() as connection:
            return bool((await connection.execute(claim)).rowcount)

    async def take_over(self, worker: LostWorker, unwritten: Sequence[Entry]) -> None:
        """Make the open charges of a lost worker due, and add those of its charges that were never written.

        Does nothing if the worker has shown a sign of life since.
        """
        same = sa.and_(workers.c.id == worker.id, workers.c.seen_at == worker.seen_at)
        async with self._connected.begin() as connection:
            if not (await connection.execute(workers.delete().where(same))).rowcount:
                return
            adopted = await self._adopt(connection, rows.c.owner == worker.id, due_at=self.now())
            if unwritten:
                added = [row_of(entry, "due", owner=self.worker_id) for entry in unwritten]
                await connection.execute(insert_into(rows, self._connected).on_conflict_do_nothing(), added)
        self._observed.pop(worker.id, None)
        self.has_due.set()
        _log.warning("a process died; %d charges of its are being settled", adopted + len(unwritten))

    async def take_over_orphans(self, *, delay: float) -> None:
        """Make open charges due, in `delay` seconds, whose worker left them behind when it stopped."""
        orphaned = rows.c.owner.not_in(sa.select(workers.c.id))
        async with self._connected.begin() as connection:
            adopted = await self._adopt(connection, orphaned, due_at=self.now() + int(delay * 1000))
        if adopted:
            _log.warning("%d charges were left open by a process that stopped; they are being settled", adopted)

    async def _adopt(self, connection: AsyncConnection, whose: sa.ColumnElement[bool], *, due_at: int) -> int:
        values = {"state": "due", "owner": self.worker_id, "due_at": due_at, "lease_until": 0}
        result = await connection.execute(rows.update().where(rows.c.state == "open", whose).values(values))
        return result.rowcount

    # For people.

    async def list(self, state: State | None = None, *, limit: int = 100) -> Sequence[tuple[State, Entry]]:
        """Return rows with their state, oldest first."""
        query = sa.select(rows.c.state, *ENTRY_COLUMNS).order_by(rows.c.created_at).limit(limit)
        if state is not None:
            query = query.where(rows.c.state == state)
        async with self._connected.connect() as connection:
            return [(row.state, entry_of(row)) for row in await connection.execute(query)]

    async def count(self) -> dict[State, int]:
        """Return how many rows are in each state."""
        query = sa.select(rows.c.state, sa.func.count()).group_by(rows.c.state)
        async with self._connected.connect() as connection:
            counted = dict([tuple(row) for row in await connection.execute(query)])
        return {"open": counted.get("open", 0), "due": counted.get("due", 0), "parked": counted.get("parked", 0)}

    async def retry(self, charge_id: str) -> bool:
        """Make a parked row due now, whatever its age; returns whether there was one.

        Beyond 24 hours Autumn no longer knows the key, so its event log is asked first whether it was done before.
        """
        parked = sa.and_(rows.c.charge_id == charge_id, rows.c.state == "parked")
        values = {"state": "due", "due_at": self.now(), "maybe_sent_at": None, "look_first": True, "lease_until": 0}
        async with self._connected.begin() as connection:
            changed = bool((await connection.execute(rows.update().where(parked).values(values))).rowcount)
        self.has_due.set()
        return changed

    async def drop(self, charge_id: str) -> bool:
        """Delete a row unsent; returns whether there was one."""
        async with self._connected.begin() as connection:
            result = await connection.execute(rows.delete().where(rows.c.charge_id == charge_id))
            return bool(result.rowcount)


def _new_worker_id() -> str:
    return uuid.uuid4().hex[:16]
