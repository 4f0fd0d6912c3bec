"""The outbox's two tables, and how their database is opened."""

from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.schema import CreateIndex, CreateTable

from fastapi_autumn.settlement._entry import Entry
from fastapi_autumn.settlement._outcome import Action

__all__ = [
    "ENTRY_COLUMNS",
    "State",
    "create_tables",
    "engine_for",
    "entry_of",
    "inode_of",
    "insert_into",
    "path_of",
    "row_of",
    "rows",
    "workers",
]

State = Literal["open", "due", "parked"]

_metadata = sa.MetaData()

# Ids and amounts are texts without a limit: a row that does not fit would hold up all that are committed with it.
rows = sa.Table(
    "autumn_outbox",
    _metadata,
    sa.Column("charge_id", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("customer_id", sa.Text, nullable=False),
    sa.Column("feature_id", sa.Text, nullable=False),
    sa.Column("entity_id", sa.Text),
    sa.Column("credits", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("maybe_sent_at", sa.BigInteger),
    sa.Column("look_first", sa.Boolean, nullable=False),
    sa.Column("due_at", sa.BigInteger, nullable=False),
    sa.Column("lease_until", sa.BigInteger, nullable=False),
    sa.Column("last_error", sa.Text),
    sa.Index("autumn_outbox_due", "state", "due_at"),
)

workers = sa.Table(
    "autumn_workers",
    _metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("seen_at", sa.BigInteger, nullable=False),
    sa.Column("complete_to", sa.BigInteger, nullable=False),
    sa.Column("lease_until", sa.BigInteger, nullable=False),
)

ENTRY_COLUMNS = [column for column in rows.columns if column.name not in {"state", "owner", "lease_until"}]


def entry_of(row: sa.Row[Any]) -> Entry:
    """Read an entry."""
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
        look_first=row.look_first,
        due_at=row.due_at,
        last_error=row.last_error,
    )


def row_of(entry: Entry, state: State, *, owner: str) -> dict[str, Any]:
    """Write an entry as a row that nobody has claimed."""
    return {
        "charge_id": entry.charge_id,
        "state": state,
        "owner": owner,
        "customer_id": entry.customer_id,
        "feature_id": entry.feature_id,
        "entity_id": entry.entity_id,
        "credits": str(entry.credits),
        "action": entry.action.value,
        "value": str(entry.value),
        "reason": _storable(entry.reason),
        "created_at": entry.created_at,
        "attempts": entry.attempts,
        "maybe_sent_at": entry.maybe_sent_at,
        "look_first": entry.look_first,
        "due_at": entry.due_at,
        "lease_until": 0,
        "last_error": None if entry.last_error is None else _storable(entry.last_error),
    }


def _storable(text: str) -> str:
    """What comes from applications and servers may hold what no database takes: NUL, half a surrogate pair."""
    return text.replace("\0", "").encode(errors="replace").decode()


def insert_into(table: sa.Table, engine: AsyncEngine) -> sqlite.Insert | postgresql.Insert:
    """Return an INSERT that knows ON CONFLICT."""
    return postgresql.insert(table) if engine.dialect.name == "postgresql" else sqlite.insert(table)


def engine_for(url: URL) -> AsyncEngine:
    """Make the engine. Every wait has an end: a database that hangs is as good as one that refuses."""
    if url.get_backend_name() != "sqlite":
        limits = {"timeout": 5, "command_timeout": 10}
        return create_async_engine(url, pool_pre_ping=True, pool_size=4, max_overflow=0, connect_args=limits)
    path = path_of(url)
    if path is not None:
        # Not "rwc": while the file is away, a connection would put an empty one in its place.
        url = url.set(database=path.resolve().as_uri(), query={**url.query, "mode": "rw", "uri": "true"})
    # The pool is named because older versions of SQLAlchemy keep no connection to a file.
    engine = create_async_engine(url, poolclass=sa.AsyncAdaptedQueuePool, pool_size=2, max_overflow=0)

    @sa.event.listens_for(engine.sync_engine, "connect")
    def _set_up(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout=2000")
        cursor.execute("PRAGMA journal_mode=WAL")
        # FULL, because what is in here is money: NORMAL may lose the last commits when the power goes.
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()

    return engine


def path_of(url: URL) -> Path | None:
    """Return the database's file, or None where it has none."""
    if url.get_backend_name() != "sqlite" or url.database in {None, "", ":memory:"}:
        return None
    return Path(str(url.database))


def inode_of(path: Path) -> tuple[int, int]:
    """Return what tells a file from another one under its name."""
    status = path.stat()
    return status.st_dev, status.st_ino


async def create_tables(connection: AsyncConnection) -> None:
    """Create what is missing; any number of workers may do so at the same time."""
    if connection.dialect.name == "postgresql":
        # CREATE TABLE IF NOT EXISTS still fails when two do it at the same time; the lock makes them queue.
        await connection.execute(sa.text("SELECT pg_advisory_xact_lock(4709115)"))
    for table in _metadata.sorted_tables:
        await connection.execute(CreateTable(table, if_not_exists=True))
        for index in table.indexes:
            await connection.execute(CreateIndex(index, if_not_exists=True))
