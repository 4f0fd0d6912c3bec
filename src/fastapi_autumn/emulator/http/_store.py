"""The emulator's file: SQLite, used directly and synchronously.

Every request is one short transaction, so several workers (processes) can share the file: SQLite lets one of them
write at a time. A customer is one JSON document with everything that belongs to it. Amounts in it are strings, so
that no digit is lost.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from fastapi_autumn._machine import MACHINE, Machine
from fastapi_autumn.emulator._document import Document

Row: TypeAlias = tuple[Any, ...]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS state (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    clock_offset INTEGER NOT NULL DEFAULT 0,
    catalog_revision INTEGER NOT NULL DEFAULT 0,
    faults_revision INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS features (seq INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, doc TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS plans (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL, version INTEGER NOT NULL, doc TEXT NOT NULL, UNIQUE (id, version)
);
CREATE TABLE IF NOT EXISTS customers (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE, email TEXT, name TEXT,
    created_at INTEGER NOT NULL, doc TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS customers_by_time ON customers (created_at, seq);
CREATE TABLE IF NOT EXISTS customer_plans (
    customer INTEGER NOT NULL, plan_id TEXT NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (plan_id, version, customer)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL, timestamp INTEGER NOT NULL, customer INTEGER NOT NULL,
    entity_id TEXT, feature_id TEXT NOT NULL, value TEXT NOT NULL, properties TEXT NOT NULL, deductions TEXT
);
CREATE INDEX IF NOT EXISTS events_by_time ON events (timestamp, seq);
CREATE INDEX IF NOT EXISTS events_by_customer ON events (customer, timestamp, seq);
CREATE TABLE IF NOT EXISTS event_log (only INTEGER PRIMARY KEY, first_waiting INTEGER, last_at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS messages (seq INTEGER PRIMARY KEY, doc TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS locks (
    id TEXT PRIMARY KEY, customer INTEGER NOT NULL, expires_at INTEGER, receipt TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS locks_by_expiry ON locks (expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS claims (kind TEXT, key TEXT, expires_at INTEGER NOT NULL, PRIMARY KEY (kind, key));
CREATE TABLE IF NOT EXISTS keys (key TEXT PRIMARY KEY, env TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS tickets (kind TEXT, id TEXT, doc TEXT NOT NULL, PRIMARY KEY (kind, id));
CREATE TABLE IF NOT EXISTS faults (seq INTEGER PRIMARY KEY AUTOINCREMENT, doc TEXT NOT NULL, times INTEGER);
CREATE TABLE IF NOT EXISTS fault_counts (kind TEXT PRIMARY KEY, count INTEGER NOT NULL);
INSERT OR IGNORE INTO state (only) VALUES (1);
"""

_TABLES = (
    "features", "plans", "customers", "customer_plans", "events", "event_log", "messages", "locks",
    "claims", "keys", "tickets", "faults", "fault_counts",
)  # fmt: skip


_PATIENCE = 30
"""How many seconds a worker waits for its turn to write."""


class State(NamedTuple):
    """What every request has to know before it starts; one row, so that reading it costs microseconds."""

    clock_offset: int
    catalog_revision: int
    faults_revision: int
    next_lock_expiry: int | None


class Store:
    """One connection to the emulator's file, or to a database in memory that only this process sees."""

    def __init__(self, path: str | Path, machine: Machine = MACHINE) -> None:
        self.machine = machine
        if str(path) != ":memory:":
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            # Only its owner reads it: keys are in it, and who did what. SQLite gives its other files the same rights.
            Path(path).touch(mode=0o600)
        self.lock = threading.RLock()
        """Held for the length of a request, for callers on several threads: they share one connection."""
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_PATIENCE)
        # An emulator may live as long as the process; newer Pythons warn of a connection that nobody closed.
        weakref.finalize(self, self._db.close)
        _use_write_ahead_log(self._db, machine)
        # The journal protects against a killed process. Only a power cut could lose the last writes, and what is
        # emulated here is not worth an fsync per request.
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.executescript(_SCHEMA)

    def new_id(self, prefix: str) -> str:
        """Make an id that looks like Autumn's."""
        return f"{prefix}_{self.machine.new_id()}"

    def new_secret(self) -> str:
        """Make a word that nobody can guess: 180 bits at the least."""
        return "".join(self.machine.new_id() for _ in range(3))

    def close(self) -> None:
        """Close the connection; the file stays."""
        self._db.close()

    def clear(self) -> None:
        """Forget everything."""
        with self.transaction():
            for table in _TABLES:
                self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - the names are the constant above
            self._db.execute(
                "UPDATE state SET clock_offset = 0, catalog_revision = catalog_revision + 1, "
                "faults_revision = faults_revision + 1"
            )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Take the write lock at once, commit at the end, and undo everything if an exception leaves the block."""
        with self.lock:
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def part(self) -> Iterator[None]:
        """Make a part of the transaction that can fail by itself: an exception undoes only what is in the block."""
        self._db.execute("SAVEPOINT part")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK TO part")
            raise
        finally:
            self._db.execute("RELEASE part")

    def rows(self, sql: str, *values: Any) -> list[Row]:
        """Run a statement and return its rows."""
        return self._db.execute(sql, values).fetchall()

    def row(self, sql: str, *values: Any) -> Row | None:
        """Run a statement and return its first row."""
        row: Row | None = self._db.execute(sql, values).fetchone()
        return row

    def run(self, sql: str, *values: Any) -> int:
        """Run a statement that writes, and return how many rows it changed."""
        return self._db.execute(sql, values).rowcount

    def insert(self, sql: str, *values: Any) -> int:
        """Run an INSERT and return the number of the new row."""
        return self._db.execute(sql, values).lastrowid or 0

    def state(self) -> State:
        """Return the clock's offset, the revisions of catalog and faults, and when the next lock expires."""
        row = self._db.execute(
            "SELECT clock_offset, catalog_revision, faults_revision, "
            "(SELECT min(expires_at) FROM locks WHERE expires_at IS NOT NULL) FROM state"
        ).fetchone()
        return State(*row)

    def move_clock(self, milliseconds: int) -> None:
        """Add to the clock's offset."""
        self._db.execute("UPDATE state SET clock_offset = clock_offset + ?", (milliseconds,))

    def touch(self, what: str) -> None:
        """Tell all workers that the `catalog` or the `faults` changed."""
        column = {"catalog": "catalog_revision", "faults": "faults_revision"}[what]
        self._db.execute(f"UPDATE state SET {column} = {column} + 1")  # noqa: S608 - one of two constants

    def claim(self, kind: str, key: str, *, now: int, until: int) -> bool:
        """Claim a key, such as an idempotency key; False if somebody holds it."""
        self._db.execute("DELETE FROM claims WHERE kind = ? AND key = ? AND expires_at <= ?", (kind, key, now))
        return self.run("INSERT OR IGNORE INTO claims VALUES (?, ?, ?)", kind, key, until) == 1

    def release(self, kind: str, key: str) -> None:
        """Give a claim up."""
        self._db.execute("DELETE FROM claims WHERE kind = ? AND key = ?", (kind, key))

    def is_claimed(self, kind: str, key: str, *, now: int) -> bool:
        """Tell whether a claim on this key stands."""
        return (
            self.row("SELECT 1 FROM claims WHERE kind = ? AND key = ? AND expires_at > ?", kind, key, now) is not None
        )

    def put_message(self, kind: str, data: Document, *, occurred_at: int | None = None) -> None:
        """Keep what Autumn would send to webhooks."""
        head: Document = {"type": kind, "data": data}
        if occurred_at is not None:
            head = {"id": self.new_id("evt"), "occurred_at": occurred_at, **head}
        self._db.execute("INSERT INTO messages (doc) VALUES (?)", (json.dumps(head),))

    def messages(self) -> list[Document]:
        """Return what Autumn would have sent, the oldest first."""
        return [json.loads(doc) for (doc,) in self.rows("SELECT doc FROM messages ORDER BY seq")]

    def put_ticket(self, kind: str, identifier: str, document: Document) -> None:
        """Keep a small document under an id: a check-out session, a sign-in code."""
        self._db.execute("INSERT OR REPLACE INTO tickets VALUES (?, ?, ?)", (kind, identifier, json.dumps(document)))

    def ticket(self, kind: str, identifier: str) -> Document | None:
        """Return the document that was kept under this id."""
        row = self.row("SELECT doc FROM tickets WHERE kind = ? AND id = ?", kind, identifier)
        return json.loads(row[0]) if row else None

    def take_ticket(self, kind: str, identifier: str) -> Document | None:
        """Return the document under this id and forget it: a code works once."""
        found = self.ticket(kind, identifier)
        self._db.execute("DELETE FROM tickets WHERE kind = ? AND id = ?", (kind, identifier))
        return found


def _use_write_ahead_log(database: sqlite3.Connection, machine: Machine) -> None:
    """Switch a new file over. SQLite does not wait for its turn here, so workers that start together have to."""
    deadline = machine.steady() + _PATIENCE
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if machine.steady() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
