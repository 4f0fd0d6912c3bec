"""The store in SQLite or PostgreSQL."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from fastapi_autumn._machine import MACHINE, Machine
from fastapi_autumn.errors import ConfigurationError
from fastapi_autumn.settlement._engine import CONNECTIONS, engine_for, inode_of, path_of, read_url, touch
from fastapi_autumn.settlement._migrations import migrate
from fastapi_autumn.settlement._tables import ENTRY_COLUMNS, accounts, charges, entry_of, row_of, workers
from fastapi_autumn.settlement.entry import Doubt, Entry
from fastapi_autumn.settlement.store import (
    NOBODY,
    Account,
    Batch,
    Delivered,
    Ended,
    Opened,
    Row,
    State,
    TakenForDeadError,
    WorkerRow,
)

__all__ = ["SqlStore", "read_url"]

_PAUSES_WHILE_BUSY = (0.05, 0.1, 0.2, 0.4, 0.8)
_ANY = -1
_PER_CUSTOMER = 4
"""Rows in doubt that one customer may have claimed in one go, so that one with thousands does not hold up the rest."""


class SqlStore:
    """See `Store`.

    Args:
        url: A SQLAlchemy URL, `sqlite+aiosqlite:///path` or `postgresql://...`.
        account: Whose rows are written and worked on; default: nobody's, for people who look at all of them.
        recreate_after: Seconds for which a SQLite file that was moved away is waited for, before a new one is made.
        machine: The steady clock.
        connect_args: Handed to the database's driver.

    Raises:
        ConfigurationError: The URL cannot be read, or its driver is missing.
    """

    def __init__(
        self,
        url: str,
        account: Account = NOBODY,
        *,
        recreate_after: float = 30.0,
        machine: Machine = MACHINE,
        connect_args: dict[str, Any] | None = None,
    ) -> None:
        self.account = account
        parsed = read_url(url)
        self._path: Path | None = path_of(parsed)
        self.engine: AsyncEngine = engine_for(parsed, connect_args=connect_args, generation=lambda: self._generation)
        self._recreate_after = recreate_after
        self._machine = machine
        self._connections = CONNECTIONS[self.engine.dialect.name]
        # Held by whoever uses a connection, but for the writer. One is left for it, or its heartbeat would stand in
        # line behind thousands of callers with an Idempotency-Key, and others would take this worker for dead.
        self._free = asyncio.Semaphore(self._connections - 1)
        # Held by whoever writes to SQLite, which has one lock, and lets whoever happens to ask in time have it next.
        self._turn = asyncio.Lock() if self.engine.dialect.name == "sqlite" else contextlib.nullcontext()
        self._inode: tuple[int, int] | None = None
        self._generation = 0
        self._is_open = False
        self._seen_at = machine.steady()
        postgres = self.engine.dialect.name == "postgresql"
        self.insert = postgresql.insert if postgres else sqlite.insert
        self._statements = _Statements(self.insert)

    async def open(self) -> None:
        """Connect, and create or migrate what is missing.

        Raises:
            ConfigurationError: The database cannot be opened, or is newer than this code.
        """
        try:
            if self._path is not None:
                touch(self._path)
            for pause in (*_PAUSES_WHILE_BUSY, None):
                try:
                    await self._reopen()
                except OperationalError as error:
                    # SQLite does not wait for its lock when two processes turn on the write-ahead log together.
                    if pause is None or getattr(error.orig, "sqlite_errorname", "") != "SQLITE_BUSY":
                        raise
                    await asyncio.sleep(pause)
                else:
                    break
            if self._path is not None:
                # All that there will be, at once: a cancellation in the middle of opening one would leave it open.
                async with contextlib.AsyncExitStack() as stack:
                    for _ in range(self._connections):
                        await stack.enter_async_context(self.engine.connect())
        except ConfigurationError:
            await self.engine.dispose()
            raise
        except (SQLAlchemyError, OSError) as error:
            await self.engine.dispose()
            cause = error.orig if isinstance(error, DBAPIError) else error
            raise ConfigurationError(
                f"The outbox cannot be opened ({type(cause).__name__}: {cause}). Check AUTUMN_OUTBOX_URL."
            ) from error

    async def close(self) -> None:
        """Disconnect."""
        await self.engine.dispose()

    async def learn(self, organisation: str) -> None:
        """Note which organisation the key belongs to, so that its earlier keys are the same account."""
        values = {"organisation": organisation}
        self.account = replace(self.account, organisation=organisation)
        this = accounts.c.key_digest == self.account.key_digest
        async with self.begin() as connection:
            await connection.execute(accounts.update().where(this).values(values))

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        """Connect, to read."""
        async with self._free, self.engine.connect() as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """Begin a transaction."""
        async with self._free, self._turn, self.engine.begin() as connection:
            yield connection

    # Writing.

    async def commit(self, batch: Batch) -> None:
        """See `Store.commit`."""
        if not self._is_open or self._has_moved():
            await self._reopen()
        self._is_open = False
        async with self._turn, self.engine.begin() as connection:
            # First, because it decides whether the rest is still this worker's to write.
            await self._beat(connection, batch)
            if batch.former_id is not None:
                obsolete = sa.and_(charges.c.owner == batch.former_id, charges.c.state == "open")
                await connection.execute(charges.delete().where(obsolete))
                # In a database that was restored it is still there, and knows nothing of what has ended since.
                await connection.execute(workers.delete().where(workers.c.id == batch.former_id))
            await self._write(connection, batch)
        self._is_open = True
        self._seen_at = self._machine.steady()

    async def _beat(self, connection: AsyncConnection, batch: Batch) -> None:
        values = {"beat": batch.beat, "seen_at": batch.seen_at, "complete_to": batch.complete_to}
        if not batch.confirmed:
            # Not the first attempt, perhaps: one whose answer was lost may have got through.
            row = {"id": batch.worker_id, "account": self.account.key_digest, "lease_until": 0, **values}
            await connection.execute(self._statements.join, row)
            return
        known = {"worker": batch.worker_id, "confirmed": batch.confirmed}
        if not (await connection.execute(self._statements.beat, known | _new(values))).rowcount:
            raise TakenForDeadError

    async def _write(self, connection: AsyncConnection, batch: Batch) -> None:
        put: list[dict[str, Any]] = []
        over: list[dict[str, Any]] = []
        changed: list[dict[str, Any]] = []
        finished: list[dict[str, Any]] = []
        for charge_id, change in batch.changes.items():
            match change:
                case Opened(entry):
                    put.append(self._row(entry, "open", batch))
                case Ended(entry, owed=True):
                    put.append(self._row(entry, "due", batch))
                case Ended():
                    over.append({"charge": charge_id})
                case Delivered(entry, state, until):
                    claim = {"charge": charge_id, "me": batch.worker_id, "until": until or _ANY}
                    if state is None:
                        finished.append(claim)
                    else:
                        changed.append(_new(self._row(entry, state, batch)) | claim)
        for statement, parameters in (
            (self._statements.put, put),
            (self._statements.change, changed),
            (self._statements.delete, over),
            (self._statements.delete_mine, finished),
        ):
            if parameters:
                await connection.execute(statement, parameters)

    def _row(self, entry: Entry, state: State, batch: Batch) -> dict[str, Any]:
        of_the_store = {
            "account": self.account.key_digest,
            "state": state,
            "owner": batch.worker_id,
            "lease_until": 0,
        }
        return row_of(entry) | of_the_store

    async def leave(self, worker_id: str) -> None:
        """See `Store.leave`."""
        async with self.begin() as connection:
            await connection.execute(workers.delete().where(workers.c.id == worker_id))

    # Delivering.

    async def claim(self, worker_id: str, *, limit: int, doubtful: bool, now: int, until: int) -> list[Entry]:
        """See `Store.claim`."""
        parameters = {"now": now, "least": limit, "this_account": self.account.key_digest}
        async with self.connect() as connection:
            found = (await connection.execute(self._statements.due[doubtful], parameters)).scalars().all()
        if not found:
            return []
        claim = {"me": worker_id, "until": until, "now": now, "found": list(found)}
        async with self.begin() as connection:
            # RETURNING keeps no order.
            claimed = await connection.execute(self._statements.claim, claim)
            return sorted(map(entry_of, claimed), key=lambda entry: (entry.due_at, entry.charge_id))

    async def renew(self, worker_id: str, charge_ids: Sequence[str], *, until: int) -> None:
        """See `Store.renew`."""
        renewal = {"me": worker_id, "until": until, "found": list(charge_ids)}
        async with self.begin() as connection:
            await connection.execute(self._statements.renew, renewal)

    # Workers.

    async def workers(self) -> list[WorkerRow]:
        """See `Store.workers`."""
        query = sa.select(workers).where(workers.c.account.in_(_SAME_ACCOUNT)).order_by(workers.c.id)
        async with self.connect() as connection:
            rows = await connection.execute(query, {"this_account": self.account.key_digest})
            return [WorkerRow(row.id, row.beat, row.complete_to, row.seen_at) for row in rows]

    async def claim_worker(self, worker: WorkerRow, *, now: int, until: int) -> bool:
        """See `Store.claim_worker`."""
        free = sa.and_(workers.c.id == worker.id, workers.c.beat == worker.beat, workers.c.lease_until < now)
        async with self.begin() as connection:
            return bool((await connection.execute(workers.update().where(free).values(lease_until=until))).rowcount)

    async def take_over(self, worker: WorkerRow, *, by: str, unwritten: Sequence[Entry], now: int) -> int | None:
        """See `Store.take_over`."""
        same = sa.and_(workers.c.id == worker.id, workers.c.beat == worker.beat)
        async with self.begin() as connection:
            if not (await connection.execute(workers.delete().where(same))).rowcount:
                return None
            adopted = await self._adopt(connection, charges.c.owner == worker.id, by=by, now=now)
            if unwritten:
                mine = {"account": self.account.key_digest, "state": "due", "owner": by, "lease_until": 0}
                added = [row_of(entry) | mine for entry in unwritten]
                await connection.execute(self.insert(charges).on_conflict_do_nothing(), added)
        return adopted + len(unwritten)

    async def adopt_orphans(self, *, by: str, now: int) -> int:
        """See `Store.adopt_orphans`."""
        orphaned = charges.c.owner.not_in(sa.select(workers.c.id))
        async with self.begin() as connection:
            return await self._adopt(connection, orphaned, by=by, now=now)

    async def _adopt(self, connection: AsyncConnection, whose: sa.ColumnElement[bool], *, by: str, now: int) -> int:
        theirs = sa.and_(charges.c.account.in_(_SAME_ACCOUNT), whose)
        values = {"state": "due", "owner": by, "due_at": now, "lease_until": 0}
        adopted = charges.update().where(charges.c.state == "open", theirs).values(values)
        # A claim for a look-up is long. Not 0, which would say that nobody had begun with the row.
        claimed = sa.and_(charges.c.state == "due", charges.c.lease_until >= now, theirs)
        ended = charges.update().where(claimed).values(lease_until=now - 1)
        this_account = {"this_account": self.account.key_digest}
        await connection.execute(ended, this_account)
        return (await connection.execute(adopted, this_account)).rowcount

    # For people.

    async def list(self, state: State | None = None, *, limit: int = 100, everybody: bool = False) -> Sequence[Row]:
        """See `Store.list`."""
        theirs = charges.join(accounts, accounts.c.key_digest == charges.c.account)
        columns = [charges.c.state, charges.c.account, *ENTRY_COLUMNS, *accounts.c]
        query = sa.select(*columns).select_from(theirs).order_by(charges.c.created_at, charges.c.charge_id).limit(limit)
        if state is not None:
            query = query.where(charges.c.state == state)
        if not everybody:
            query = query.where(charges.c.account.in_(_SAME_ACCOUNT))
        async with self.connect() as connection:
            rows = (await connection.execute(query, {"this_account": self.account.key_digest})).all()
        return [
            Row(
                row.state,
                entry_of(row),
                Account(row.account, row.origin or "", row.environment or "", row.organisation),
            )
            for row in rows
        ]

    async def count(self, *, everybody: bool = False) -> dict[State, int]:
        """See `Store.count`."""
        query = sa.select(charges.c.state, sa.func.count()).group_by(charges.c.state)
        if not everybody:
            query = query.where(charges.c.account.in_(_SAME_ACCOUNT))
        async with self.connect() as connection:
            rows = await connection.execute(query, {"this_account": self.account.key_digest})
            counted = dict([tuple(row) for row in rows])
        return {"open": counted.get("open", 0), "due": counted.get("due", 0), "shortfall": counted.get("shortfall", 0)}

    async def next_due_at(self) -> int | None:
        """See `Store.next_due_at`."""
        query = sa.select(sa.func.min(charges.c.due_at)).where(
            charges.c.state == "due", charges.c.account.in_(_SAME_ACCOUNT)
        )
        async with self.connect() as connection:
            found: int | None = (await connection.execute(query, {"this_account": self.account.key_digest})).scalar()
            return found

    async def retry(self, charge_id: str, *, now: int) -> bool:
        """See `Store.retry`."""
        kept = sa.and_(charges.c.charge_id == charge_id, charges.c.state == "shortfall")
        values = {"state": "due", "due_at": now, "doubt": Doubt.UNKNOWN.value, "lease_until": 0, "attempts": 0}
        async with self.begin() as connection:
            return bool((await connection.execute(charges.update().where(kept).values(values))).rowcount)

    async def drop(self, charge_id: str) -> bool:
        """See `Store.drop`."""
        async with self.begin() as connection:
            return bool((await connection.execute(charges.delete().where(charges.c.charge_id == charge_id))).rowcount)

    # The file.

    def _has_moved(self) -> bool:
        # SQLite goes on writing into a file that was deleted or renamed, without an error.
        return self._path is not None and (not self._path.exists() or inode_of(self._path) != self._inode)

    async def _reopen(self) -> None:
        if self._path is not None and self._machine.steady() - self._seen_at > self._recreate_after:
            # What has not come back for so long will not; better an empty outbox than none.
            touch(self._path)
        self._generation += 1
        async with self.begin() as connection:
            await migrate(connection)
            account = self.account
            row = {
                "key_digest": account.key_digest,
                "origin": account.origin,
                "environment": account.environment,
                "organisation": account.organisation,
            }
            if account != NOBODY:
                await connection.execute(self.insert(accounts).on_conflict_do_nothing(), row)
            known = sa.select(accounts.c.organisation).where(accounts.c.key_digest == account.key_digest)
            self.account = replace(account, organisation=(await connection.execute(known)).scalar())
        if self._path is not None:
            self._inode = inode_of(self._path)
        self._is_open = True
        self._seen_at = self._machine.steady()


def _new(values: dict[str, Any]) -> dict[str, Any]:
    """Name parameters that set a column: a parameter with the column's own name would compare with it."""
    return {f"new_{name}": value for name, value in values.items() if name not in {"charge_id", "owner"}}


_ours = accounts.alias("ours")
# The keys of one organisation are one account, whichever of them wrote a row.
_SAME_ACCOUNT = sa.union(
    sa.select(sa.bindparam("this_account", type_=sa.Text)),
    sa.select(accounts.c.key_digest)
    .join(
        _ours,
        sa.and_(
            _ours.c.origin == accounts.c.origin,
            _ours.c.environment == accounts.c.environment,
            _ours.c.organisation == accounts.c.organisation,
        ),
    )
    .where(_ours.c.key_digest == sa.bindparam("this_account", type_=sa.Text)),
)


_doubt_after_a_lost_claim = sa.case(
    (sa.and_(charges.c.lease_until > 0, charges.c.doubt == Doubt.NONE.value), Doubt.UNKNOWN.value),
    else_=charges.c.doubt,
)


class _Statements:
    """What runs often, built once: SQLAlchemy spends more time on building a statement than SQLite on running it."""

    def __init__(self, insert: Any) -> None:
        charge = charges.c.charge_id == sa.bindparam("charge")
        # Whoever writes a row ends all claims on it, one of its own too.
        mine = sa.and_(charges.c.owner == sa.bindparam("me"), charges.c.lease_until > 0)
        until = sa.bindparam("until", type_=sa.BigInteger)
        this_claim = sa.or_(until == _ANY, charges.c.lease_until == until)
        columns = [column.name for column in charges.columns]
        new = insert(charges)
        self.put = new.on_conflict_do_update(
            index_elements=["charge_id"], set_={name: new.excluded[name] for name in columns if name != "charge_id"}
        )
        self.change = (
            charges.update()
            .where(charge, mine, this_claim)
            .values(
                {name: sa.bindparam(f"new_{name}") for name in columns if name not in {"charge_id", "owner", "unmoved"}}
            )
        )
        self.delete = charges.delete().where(charge)
        self.delete_mine = charges.delete().where(charge, mine, this_claim)
        joined = insert(workers)
        self.join = joined.on_conflict_do_update(
            index_elements=["id"], set_={name: joined.excluded[name] for name in ("beat", "seen_at", "complete_to")}
        )
        # Ahead of what this process can have written is a twin: a clone of it, or what it was before a snapshot of its
        # memory was put back. Both number charges as this one does.
        written = workers.c.beat.between(sa.bindparam("confirmed"), sa.bindparam("new_beat", type_=sa.BigInteger) - 1)
        known = sa.and_(workers.c.id == sa.bindparam("worker"), written)
        self.beat = (
            workers.update()
            .where(known)
            .values({name: sa.bindparam(f"new_{name}") for name in ("beat", "seen_at", "complete_to")})
        )
        now = sa.bindparam("now", type_=sa.BigInteger)
        is_due = sa.and_(charges.c.state == "due", charges.c.due_at <= now, charges.c.lease_until < now)
        self.due = {doubtful: self._due(is_due, doubtful=doubtful) for doubtful in (False, True)}
        self.claim = (
            charges.update()
            .where(charges.c.charge_id.in_(sa.bindparam("found", expanding=True)), is_due)
            .values(owner=sa.bindparam("me"), lease_until=sa.bindparam("until"), doubt=_doubt_after_a_lost_claim)
            .returning(*ENTRY_COLUMNS)
        )
        still_mine = sa.and_(charges.c.state == "due", mine)
        self.renew = (
            charges.update()
            .where(charges.c.charge_id.in_(sa.bindparam("found", expanding=True)), still_mine)
            .values(lease_until=sa.bindparam("until"))
        )

    def _due(self, is_due: sa.ColumnElement[bool], *, doubtful: bool) -> sa.Select[Any]:
        if not doubtful:
            plain = sa.select(charges.c.charge_id).where(
                is_due, charges.c.doubt == Doubt.NONE.value, charges.c.account.in_(_SAME_ACCOUNT)
            )
            return plain.order_by(charges.c.due_at).limit(sa.bindparam("least", type_=sa.Integer))
        rank = sa.func.row_number().over(partition_by=charges.c.customer_id, order_by=charges.c.due_at)
        candidates = (
            sa.select(charges.c.charge_id, charges.c.due_at, rank.label("place"))
            .where(is_due, charges.c.doubt != Doubt.NONE.value, charges.c.account.in_(_SAME_ACCOUNT))
            .subquery()
        )
        query = sa.select(candidates.c.charge_id).limit(sa.bindparam("least", type_=sa.Integer))
        return query.where(candidates.c.place <= _PER_CUSTOMER).order_by(candidates.c.place, candidates.c.due_at)
