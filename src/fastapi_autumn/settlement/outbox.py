"""The outbox: what still has to be told to Autumn, in a SQL table that survives the process.

A charge has one row from its opening until nothing is left to do for it. No request waits for a write: writes are
handed over and committed in groups, and a charge that is opened and kept between two commits never touches the disk.
What a crash can take with it is still found, because each commit also says up to which charge it is complete, and
Autumn's own event log knows the ones after that.

Rows that are due are claimed under a lease, so several processes and machines may share one database.
"""

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from fastapi_autumn import telemetry
from fastapi_autumn.errors import ConfigurationError
from fastapi_autumn.settlement._entry import Entry
from fastapi_autumn.settlement._outcome import Action

__all__ = ["LEASE_MS", "LostWorker", "Outbox", "State"]

_log = logging.getLogger("fastapi_autumn.outbox")

State = Literal["open", "due", "parked"]

LEASE_MS = 30_000
"""How long a claim, or the silence of a worker, is respected before others step in."""

_GROUP_SECONDS = 0.02
_HEARTBEAT_SECONDS = 5.0
_LONGEST_BACKOFF = 5.0

_metadata = sa.MetaData()

_rows = sa.Table(
    "autumn_outbox",
    _metadata,
    sa.Column("charge_id", sa.String(64), primary_key=True),
    sa.Column("state", sa.String(8), nullable=False),
    sa.Column("owner", sa.String(32), nullable=False),
    sa.Column("customer_id", sa.String(255), nullable=False),
    sa.Column("feature_id", sa.String(255), nullable=False),
    sa.Column("entity_id", sa.String(255)),
    sa.Column("credits", sa.String(32), nullable=False),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("value", sa.String(32), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("maybe_sent_at", sa.BigInteger),
    sa.Column("due_at", sa.BigInteger, nullable=False),
    sa.Column("lease_until", sa.BigInteger, nullable=False),
    sa.Column("last_error", sa.Text),
    sa.Index("autumn_outbox_due", "state", "due_at"),
)

_workers = sa.Table(
    "autumn_workers",
    _metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("seen_at", sa.BigInteger, nullable=False),
    sa.Column("complete_to", sa.BigInteger, nullable=False),
)

_ENTRY_COLUMNS = [column for column in _rows.columns if column.name not in {"state", "owner", "lease_until"}]


@dataclass(frozen=True, slots=True)
class LostWorker:
    """A worker that stopped without saying so.

    Charges of its with a number above `complete_to` were never written here; Autumn's event log has those that
    happened, all of them after `seen_at` (milliseconds).
    """

    id: str
    seen_at: int
    complete_to: int


class Outbox:
    """The table, and the task that writes to it.

    Args:
        url: A SQLAlchemy URL, `sqlite+aiosqlite:///path` or `postgresql+asyncpg://...`.
        now: The time in milliseconds.
    """

    def __init__(self, url: str, *, now: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self.worker_id = uuid.uuid4().hex[:16]
        self.now = now
        self.has_due = asyncio.Event()
        self._url = url
        self._engine: AsyncEngine | None = None
        self._sequence = 0
        self._opened: dict[str, Entry] = {}
        self._due: dict[str, Entry] = {}
        self._closed: set[str] = set()
        self._wake = asyncio.Event()
        self._written = asyncio.Event()
        self._committing = False
        self._writer: asyncio.Task[None] | None = None
        self._stopping = False

    # The hot path: nothing below this line waits, and nothing in it can fail.

    def new_charge_id(self) -> str:
        """Return an id that no charge had before. Ids of one worker are numbered in the order of their making."""
        self._sequence += 1
        return f"{self.worker_id}-{self._sequence}"

    def open(self, entry: Entry) -> None:
        """Note that a charge is under way. If this process dies, what `entry` says is done."""
        self._opened[entry.charge_id] = entry
        self._wake.set()

    def put(self, entry: Entry) -> None:
        """Note what has to be done to close a charge."""
        self._opened.pop(entry.charge_id, None)
        self._closed.discard(entry.charge_id)
        self._due[entry.charge_id] = entry
        self._wake.set()

    def close(self, charge_id: str) -> None:
        """Note that nothing is left to do for a charge."""
        if self._opened.pop(charge_id, None) is None:
            self._due.pop(charge_id, None)
            self._closed.add(charge_id)
            self._wake.set()

    @property
    def unwritten(self) -> int:
        """How many changes are only in memory so far."""
        return len(self._opened) + len(self._due) + len(self._closed)

    # The writer.

    async def start(self) -> None:
        """Create the table where it is missing, and begin to write.

        Raises:
            ConfigurationError: The database cannot be opened; the message says which setting names it.
        """
        try:
            self._engine = _engine_for(self._url)
            async with self._engine.begin() as connection:
                await _create_tables(connection)
                await connection.execute(self._heartbeat_statement())
        except (SQLAlchemyError, OSError) as error:
            cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
            raise ConfigurationError(
                f"the outbox cannot be opened ({type(cause).__name__}: {cause}); check AUTUMN_OUTBOX_URL"
            ) from error
        self._writer = asyncio.create_task(self._write(), name="autumn-outbox")

    async def stop(self, *, within: float) -> None:
        """Write what is in memory, for at most `within` seconds, and close the database."""
        self._stopping = True
        self._wake.set()
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
        while self.unwritten or self._committing:
            self._written.clear()
            await self._written.wait()

    async def _write(self) -> None:
        backoff = 0.0
        while True:
            if not self._stopping and not self.unwritten:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), _HEARTBEAT_SECONDS)
            if self._stopping and not self.unwritten:
                await self._say_goodbye()
                return
            await asyncio.sleep(0 if self._stopping else _GROUP_SECONDS)
            self._wake.clear()
            opened, due, closed, complete_to = self._opened, self._due, self._closed, self._sequence
            self._opened, self._due, self._closed = {}, {}, set()
            self._committing = True
            try:
                await self._commit(opened, due, closed, complete_to)
            except (SQLAlchemyError, OSError) as error:
                self._take_back(opened, due, closed)
                telemetry.outbox_unwritten.add(1)
                backoff = min(_LONGEST_BACKOFF, max(0.1, backoff * 2))
                cause = type(error).__name__
                _log.error("the outbox cannot be written (%s); %d changes are kept in memory", cause, self.unwritten)
                await asyncio.sleep(backoff)
            else:
                backoff = 0.0
                if due:
                    self.has_due.set()
            finally:
                self._committing = False
                self._written.set()

    def _take_back(self, opened: dict[str, Entry], due: dict[str, Entry], closed: set[str]) -> None:
        # What came in meanwhile is newer and wins.
        newer = self._due.keys() | self._closed
        self._opened = {id_: entry for id_, entry in opened.items() if id_ not in newer} | self._opened
        self._due = {id_: entry for id_, entry in due.items() if id_ not in newer} | self._due
        self._closed |= {id_ for id_ in closed if id_ not in self._due}

    async def _commit(
        self, opened: dict[str, Entry], due: dict[str, Entry], closed: set[str], complete_to: int
    ) -> None:
        async with self._connected.begin() as connection:
            if opened or due:
                rows = [self._row(entry, "open") for entry in opened.values()]
                rows += [self._row(entry, "due") for entry in due.values()]
                await connection.execute(self._upsert(), rows)
            if closed:
                gone = _rows.delete().where(_rows.c.charge_id == sa.bindparam("id"))
                await connection.execute(gone, [{"id": charge_id} for charge_id in closed])
            await connection.execute(self._heartbeat_statement(complete_to))

    def _row(self, entry: Entry, state: State) -> dict[str, Any]:
        return {
            "charge_id": entry.charge_id,
            "state": state,
            "owner": self.worker_id,
            "customer_id": entry.customer_id,
            "feature_id": entry.feature_id,
            "entity_id": entry.entity_id,
            "credits": str(entry.credits),
            "action": entry.action.value,
            "value": str(entry.value),
            "reason": entry.reason,
            "created_at": entry.created_at,
            "attempts": entry.attempts,
            "maybe_sent_at": entry.maybe_sent_at,
            "due_at": entry.due_at,
            "lease_until": 0,
            "last_error": entry.last_error,
        }

    def _upsert(self) -> sa.Insert:
        insert = self._insert(_rows)
        changed = {c.name: insert.excluded[c.name] for c in _rows.columns if c.name != "charge_id"}
        return insert.on_conflict_do_update(index_elements=["charge_id"], set_=changed)

    def _heartbeat_statement(self, complete_to: int = 0) -> sa.Insert:
        insert = self._insert(_workers).values(id=self.worker_id, seen_at=self.now(), complete_to=complete_to)
        return insert.on_conflict_do_update(
            index_elements=["id"],
            set_={"seen_at": insert.excluded.seen_at, "complete_to": insert.excluded.complete_to},
        )

    async def _say_goodbye(self) -> None:
        async with self._connected.begin() as connection:
            await connection.execute(_workers.delete().where(_workers.c.id == self.worker_id))

    def _insert(self, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        return postgresql.insert(table) if self._connected.dialect.name == "postgresql" else sqlite.insert(table)

    @property
    def _connected(self) -> AsyncEngine:
        if self._engine is None:
            raise RuntimeError("the outbox is not started; run the application with lifespan=autumn.lifespan")
        return self._engine

    # The reader.

    async def claim(self, limit: int) -> list[Entry]:
        """Take up to `limit` rows that are due, oldest first; nobody else gets them for `LEASE_MS`."""
        now = self.now()
        free = (
            sa.select(_rows.c.charge_id)
            .where(_rows.c.state == "due", _rows.c.due_at <= now, _rows.c.lease_until < now)
            .order_by(_rows.c.due_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        claim = (
            _rows.update()
            .where(_rows.c.charge_id.in_(free))
            .values(owner=self.worker_id, lease_until=now + LEASE_MS)
            .returning(*_ENTRY_COLUMNS)
        )
        async with self._connected.begin() as connection:
            return [_entry(row) for row in await connection.execute(claim)]

    async def adopt(self, *, delay: int) -> list[LostWorker]:
        """Make the open charges of workers that died due after `delay` ms, and return those workers.

        Call `forget` for each of them once Autumn's event log was searched for charges that were never written.
        """
        now = self.now()
        lost = sa.select(_workers.c.id).where(_workers.c.seen_at < now - LEASE_MS)
        alive = sa.select(_workers.c.id).where(_workers.c.seen_at >= now - LEASE_MS)
        take_over = (
            _rows.update()
            .where(_rows.c.state == "open", _rows.c.owner.not_in(alive))
            .values(state="due", owner=self.worker_id, due_at=now + delay, lease_until=0)
        )
        async with self._connected.begin() as connection:
            adopted = await connection.execute(take_over)
            workers = await connection.execute(sa.select(_workers).where(_workers.c.id.in_(lost)))
            found = [LostWorker(row.id, row.seen_at, row.complete_to) for row in workers]
        if adopted.rowcount:
            _log.warning("%d charges were open in a process that died; they are being settled", adopted.rowcount)
        return found

    async def forget(self, worker_id: str) -> None:
        """Drop a lost worker whose charges have all been found."""
        async with self._connected.begin() as connection:
            await connection.execute(_workers.delete().where(_workers.c.id == worker_id))

    async def known(self, charge_ids: Sequence[str]) -> set[str]:
        """Return those of `charge_ids` that have a row."""
        query = sa.select(_rows.c.charge_id).where(_rows.c.charge_id.in_(charge_ids))
        async with self._connected.connect() as connection:
            return set((await connection.execute(query)).scalars())

    # For people.

    async def park(self, entry: Entry) -> None:
        """Keep a row for a person to decide; it is never sent again by itself."""
        await self._set(entry.charge_id, state="parked", last_error=entry.last_error, attempts=entry.attempts)

    async def list(self, state: State | None = None, *, limit: int = 100) -> Sequence[tuple[State, Entry]]:
        """Return rows with their state, oldest first."""
        query = sa.select(_rows.c.state, *_ENTRY_COLUMNS).order_by(_rows.c.created_at).limit(limit)
        if state is not None:
            query = query.where(_rows.c.state == state)
        async with self._connected.connect() as connection:
            return [(row.state, _entry(row)) for row in await connection.execute(query)]

    async def count(self) -> dict[State, int]:
        """Return how many rows are in each state."""
        query = sa.select(_rows.c.state, sa.func.count()).group_by(_rows.c.state)
        async with self._connected.connect() as connection:
            counted = dict([tuple(row) for row in await connection.execute(query)])
        return {"open": counted.get("open", 0), "due": counted.get("due", 0), "parked": counted.get("parked", 0)}

    async def retry(self, charge_id: str) -> bool:
        """Make a parked row due now, whatever its age; returns whether there was one.

        Beyond 24 hours Autumn no longer knows the key, so this may do a second time what was done before.
        """
        changed = await self._set(charge_id, state="due", due_at=self.now(), maybe_sent_at=None, lease_until=0)
        self.has_due.set()
        return changed

    async def drop(self, charge_id: str) -> bool:
        """Delete a row unsent; returns whether there was one."""
        async with self._connected.begin() as connection:
            result = await connection.execute(_rows.delete().where(_rows.c.charge_id == charge_id))
            return bool(result.rowcount)

    async def _set(self, charge_id: str, **values: Any) -> bool:
        async with self._connected.begin() as connection:
            result = await connection.execute(_rows.update().where(_rows.c.charge_id == charge_id).values(**values))
            return bool(result.rowcount)


def _entry(row: sa.Row[Any]) -> Entry:
    return Entry(
        charge_id=row.charge_id,
        customer_id=row.customer_id,
        feature_id=row.feature_id,
        entity_id=row.entity_id,
        credits=Decimal(row.credits),
        action=Action(row.action),
        value=Decimal(row.value),
        reason=row.reason,
        created_at=row.created_at,
        attempts=row.attempts,
        maybe_sent_at=row.maybe_sent_at,
        due_at=row.due_at,
        last_error=row.last_error,
    )


def _engine_for(url: str) -> AsyncEngine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_async_engine(parsed, pool_pre_ping=True, pool_size=4, max_overflow=0)
    if parsed.database not in {None, "", ":memory:"}:
        Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(parsed, pool_size=2, max_overflow=0)

    @sa.event.listens_for(engine.sync_engine, "connect")
    def _set_up(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        # FULL, because what is in here is money: NORMAL may lose the last commits when the power goes.
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA busy_timeout=10000")
        cursor.close()

    return engine


async def _create_tables(connection: AsyncConnection) -> None:
    if connection.dialect.name == "postgresql":
        # CREATE TABLE IF NOT EXISTS still fails when two workers start at the same time; the lock makes them queue.
        await connection.execute(sa.text("SELECT pg_advisory_xact_lock(4709115)"))
    await connection.run_sync(_metadata.create_all)
