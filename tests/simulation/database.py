"""The database's machine: a driver like aiosqlite over SQLite in memory, in virtual time, with faults.

SQLAlchemy and SQLite are the real ones. Only the driver's thread is replaced: a statement takes a moment of virtual
time, waits for locks in virtual time, and fails when the plan says so.
"""

import itertools
import sqlite3
from collections.abc import Callable
from typing import Any, Self

from simulation.loop import current
from simulation.memory import Trouble
from simulation.world import World

__all__ = ["Database"]

_BUSY_SECONDS = 2.0
_SERIAL = itertools.count()


class Database(Trouble):
    """One database, which all workers share.

    Args:
        world: Where it is.
        faults: Commits that go wrong once: `{"fault", "worker", "at"}`.
        weather: What lasts for a while: `{"fault", "worker" or None, "at", "for"}`.
    """

    is_sql = True

    def __init__(self, world: World, *, faults: list[dict[str, Any]], weather: list[dict[str, Any]]) -> None:
        super().__init__(world, faults=faults, weather=weather)
        self.uri = f"file:/simulated-{next(_SERIAL)}?vfs=memdb"
        self.keeper = sqlite3.connect(self.uri, uri=True, timeout=0, isolation_level=None)

    def connect(self, *_: Any, **__: Any) -> Any:
        """Stand in for `aiosqlite.connect`."""
        return _Connecting(self)

    def rows(self, sql: str) -> list[Any]:
        """Look from outside, as soon as nobody holds the lock; no rows where there is no table yet."""
        while True:
            try:
                return self.keeper.execute(sql).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return []
                if getattr(error, "sqlite_errorname", "") not in ("SQLITE_BUSY", "SQLITE_LOCKED"):
                    raise
                self.world.run(self.world.now + 0.02)

    def arm_restore(self, at: float, age: float) -> None:
        """Copy the database at one time, and put the copy back at another."""
        copy: dict[str, list[Any]] = {}

        def save() -> None:
            self.saved_at = self.world.now
            for (table,) in self.rows("SELECT name FROM sqlite_master WHERE type = 'table'"):
                copy[table] = self.rows(f"SELECT * FROM {table}")

        def restore() -> None:
            try:
                self.keeper.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                self.world.at(0.002, restore)
                return
            for table, found in copy.items():
                self.keeper.execute(f"DELETE FROM {table}")
                for row in found:
                    self.keeper.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(row))})", row)
            self.keeper.execute("COMMIT")
            self.restored()

        self.world.at(max(0.0, at - age), save)
        self.world.at(at, restore)

    def at_rest(self, alive: int) -> bool:
        """Whether nothing is left to do: no row but those for people, and only workers that live."""
        if self.rows("SELECT 1 FROM autumn_charges WHERE state != 'shortfall' LIMIT 1"):
            return False
        return len(self.rows("SELECT id FROM autumn_charge_workers")) <= alive

    def next_due(self) -> int | None:
        """Return when the next row is due, in ms."""
        found = self.rows("SELECT min(due_at) FROM autumn_charges WHERE state = 'due'")
        return found[0][0] if found else None

    def rows_left(self) -> list[tuple[str, str, str]]:
        """Return what is left, as state, charge and what the row says about it."""
        return self.rows("SELECT state, charge_id, doubt || ' ' || coalesce(last_error, '') FROM autumn_charges")

    def close(self) -> None:
        self.keeper.close()


class _Connecting:
    def __init__(self, database: Database) -> None:
        self.database = database

    def __await__(self) -> Any:
        connection = _DriverConnection(self.database, current())
        yield from connection.do(connection.open).__await__()
        return connection


class _DriverConnection:
    """What SQLAlchemy's dialect for aiosqlite asks of a connection."""

    def __init__(self, database: Database, loop: Any) -> None:
        self.database = database
        self.loop = loop
        self.real: sqlite3.Connection | None = None
        self.off = False

    @property
    def _connection(self) -> Any:
        return self.real

    def open(self) -> None:
        self.real = sqlite3.connect(self.database.uri, uri=True, timeout=0, check_same_thread=False)
        self.loop.connections.append(self)

    def power_off(self) -> None:
        """The process is gone, and SQLite's locks with it."""
        self.off = True
        self.stop()

    def do(self, work: Callable[[], Any], *, commit: bool = False) -> Any:
        """Do something in the driver's "thread" and return the future of its result."""
        loop, database, world = self.loop, self.database, self.database.world
        future = loop.create_future()
        deadline = world.now + _BUSY_SECONDS

        def answer(result: Any) -> None:
            if loop.dead or future.done():
                return
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

        def refuse(what: str, message: str) -> None:
            database.trouble(loop, what)
            world.at(0.001, answer, sqlite3.OperationalError(message))

        def attempt() -> None:
            if self.off:
                return
            if database.is_in("cut", loop):
                if self.real is not None:
                    # What a connection that is lost had begun is undone at the other end, and its locks go.
                    self.real.rollback()
                refuse("cut off", "disk I/O error")
                return
            fault = None
            if commit and self.real is not None and self.real.in_transaction:
                if database.is_in("locked", loop):
                    if world.now < deadline:
                        world.at(0.05, attempt)
                        return
                    refuse("locked", "database is locked")
                    return
                fault = database.take(loop)
            if fault == "lost_commit":
                self.real.rollback()
                refuse("commit lost", "disk I/O error")
                return
            try:
                result = work()
            except sqlite3.OperationalError as error:
                if getattr(error, "sqlite_errorname", "") == "SQLITE_BUSY" and world.now < deadline:
                    world.at(0.002, attempt)
                    return
                world.at(0.0003, answer, error)
                return
            except Exception as error:  # noqa: BLE001 - a driver hands on whatever it is
                world.at(0.0003, answer, error)
                return
            if fault == "commit_answer_lost":
                refuse("commit done, its answer lost", "disk I/O error")
                return
            if commit:
                world.moment("committed", loop.worker)
            world.at(database.delay(loop), answer, result)

        if not loop.dead:
            world.at(database.delay(loop), attempt)
        return future

    def cursor(self) -> Any:
        return _Cursor(self)

    async def commit(self) -> None:
        await self.do(lambda: self.real.commit(), commit=True)  # noqa: PLW0108 - it may be gone by then

    async def rollback(self) -> None:
        await self.do(lambda: self.real and self.real.rollback())

    async def close(self) -> None:
        self.stop()

    def stop(self) -> None:
        if self.real is not None:
            self.real.close()
            self.real = None

    async def create_function(self, *args: Any, **options: Any) -> None:
        self.real.create_function(*args, **options)


class _Cursor:
    """What SQLAlchemy's dialect asks of a cursor."""

    arraysize = 1

    def __init__(self, connection: _DriverConnection) -> None:
        self.connection = connection
        self.real: Any = None
        self.found: list[Any] = []

    async def __aenter__(self) -> Self:
        return self

    @property
    def description(self) -> Any:
        return self.real and self.real.description

    @property
    def rowcount(self) -> int:
        return self.real.rowcount if self.real else -1

    @property
    def lastrowid(self) -> Any:
        return self.real.lastrowid

    async def execute(self, sql: str, parameters: Any = ()) -> "_Cursor":
        if sql.startswith("PRAGMA busy_timeout"):
            # Or else SQLite waits in real time; this driver waits in the world's.
            sql = "PRAGMA busy_timeout=0"

        def work() -> None:
            self.real = self.connection.real.execute(sql, parameters)
            self.found = self.real.fetchall() if self.real.description else []

        await self.connection.do(work)
        return self

    async def executemany(self, sql: str, many: Any) -> "_Cursor":
        def work() -> None:
            self.real = self.connection.real.executemany(sql, many)

        await self.connection.do(work)
        return self

    async def fetchall(self) -> list[Any]:
        return self.found

    async def close(self) -> None:
        """Do nothing."""
