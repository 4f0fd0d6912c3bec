"""Opening the outbox's database: SQLite or PostgreSQL, with an end to every wait."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from fastapi_autumn.errors import ConfigurationError

__all__ = ["CONNECTIONS", "engine_for", "inode_of", "path_of", "read_url", "touch"]

CONNECTIONS = {"sqlite": 2, "postgresql": 4}
"""How many a process has, by the kind of its database."""
_DRIVERS = {"postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg", "sqlite": "sqlite+aiosqlite"}


def read_url(text: str) -> URL:
    """Read an address as people are handed it: `postgres://...` and `postgresql://...` mean asyncpg.

    Raises:
        ConfigurationError: It is no address of a database, or of one of another kind.
    """
    try:
        url = make_url(text)
    except ArgumentError:
        raise ConfigurationError(
            "AUTUMN_OUTBOX_URL is no database address. Write sqlite+aiosqlite:///.autumn/outbox.db or "
            "postgresql://user:password@host/name."
        ) from None
    url = url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))
    if url.get_backend_name() not in CONNECTIONS:
        raise ConfigurationError(f"AUTUMN_OUTBOX_URL has to be SQLite or PostgreSQL, not {url.get_backend_name()}.")
    if url.get_backend_name() == "postgresql" and "sslmode" in url.query:
        # libpq's name, which hosting platforms append; asyncpg calls it ssl.
        query = dict(url.query)
        url = url.set(query={**query, "ssl": query.pop("sslmode")}).difference_update_query(["sslmode"])
    return url


def engine_for(
    url: URL, *, connect_args: dict[str, Any] | None = None, generation: Callable[[], int] = lambda: 0
) -> AsyncEngine:
    """Make the engine. Every wait has an end: a database that hangs is treated like one that refuses.

    When `generation` returns another number than before, each connection is opened anew before it is used again.
    (`dispose` would lose one that is in use: it returns to a pool that nobody closes.)

    Raises:
        ConfigurationError: The database's driver is not installed.
    """
    try:
        engine = _engine_for(url, connect_args or {})
    except ImportError as error:
        raise ConfigurationError(
            f"AUTUMN_OUTBOX_URL needs the package {error.name}. For PostgreSQL: pip install 'fastapi-autumn[postgres]'."
        ) from error

    @sa.event.listens_for(engine.sync_engine, "connect")
    def _date(_connection: Any, record: Any) -> None:
        record.info["generation"] = generation()

    @sa.event.listens_for(engine.sync_engine, "checkout")
    def _refuse_the_outdated(_connection: Any, record: Any, _proxy: Any) -> None:
        if record.info["generation"] != generation():
            raise DisconnectionError

    return engine


def _engine_for(url: URL, connect_args: dict[str, Any]) -> AsyncEngine:
    if url.get_backend_name() == "postgresql":
        limits = {"timeout": 5, "command_timeout": 10}
        return create_async_engine(
            url,
            pool_pre_ping=True,
            pool_size=CONNECTIONS["postgresql"],
            max_overflow=0,
            connect_args={**limits, **connect_args},
        )
    path = path_of(url)
    if path is not None:
        # Not "rwc": while the file is away, a connection would put an empty one in its place.
        url = url.set(database=path.resolve().as_uri(), query={**url.query, "mode": "rw", "uri": "true"})
    # The pool is named because older versions of SQLAlchemy keep no connection to a file.
    engine = create_async_engine(
        url,
        poolclass=sa.AsyncAdaptedQueuePool,
        pool_size=CONNECTIONS["sqlite"],
        max_overflow=0,
        connect_args=connect_args,
    )

    @sa.event.listens_for(engine.sync_engine, "connect")
    def _set_up(connection: Any, _record: Any) -> None:
        try:
            cursor = connection.cursor()
            cursor.execute("PRAGMA busy_timeout=2000")
            cursor.execute("PRAGMA journal_mode=WAL")
            # FULL, because what is in here is money: NORMAL may lose the last commits when the power goes.
            cursor.execute("PRAGMA synchronous=FULL")
            cursor.close()
        except BaseException:
            # Pools of SQLAlchemy before 2.1 drop a connection that could not be set up, and do not close it.
            connection.close()
            raise

    return engine


def path_of(url: URL) -> Path | None:
    """Return the database's file, or None where it has none."""
    if url.get_backend_name() != "sqlite" or url.database in {None, "", ":memory:"}:
        return None
    return Path(str(url.database))


def touch(path: Path) -> None:
    """Create the file if it is missing, readable by nobody else: customers' ids are in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A file that is there must not be opened here: closing it again would drop all locks that this process has on it,
    # and SQLite's connections would damage it.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def inode_of(path: Path) -> tuple[int, int]:
    """Return what tells a file from another one under its name."""
    status = path.stat()
    return status.st_dev, status.st_ino
