"""The connections to the outbox's database."""

import asyncio
import contextlib
import sqlite3

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from fastapi_autumn.settlement._engine import engine_for, path_of, read_url, touch
from fastapi_autumn.settlement.sql import SqlStore
from fastapi_autumn.settlement.store import Batch
from settlement.entries import SANDBOX


async def test_a_connection_that_cannot_be_set_up_is_closed(tmp_path):
    """A file that somebody else holds locked is refused, and nothing of the attempt stays open."""
    file = tmp_path / "outbox.db"
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as holder:
        holder.execute("CREATE TABLE held (x)")
        holder.execute("BEGIN EXCLUSIVE")
        engine = engine_for(read_url(f"sqlite:///{file}"))
        with pytest.raises(sa.exc.OperationalError, match="locked"):
            await engine.connect()
        await engine.dispose()


async def test_a_connection_in_use_while_the_others_are_renewed_is_closed(url):
    """A new generation opens its own connections; one of the old ones ends its work and is then closed too."""
    generation = 0
    engine = engine_for(read_url(url), generation=lambda: generation)
    if "sqlite" in url:
        touch(path_of(read_url(url)))
    async with engine.connect() as old, engine.connect() as idle:
        first = {await identity(old), await identity(idle)}
        await idle.close()
        generation += 1
        async with engine.connect() as new:
            assert await identity(new) not in first
        assert await old.scalar(sa.text("SELECT 1")) == 1
    async with engine.connect() as new, engine.connect() as another:
        assert not {await identity(new), await identity(another)} & first
    await engine.dispose()


async def test_a_crowd_does_not_keep_the_heartbeat_waiting(url):
    """One connection is left to the writer, because others see by its commits that this worker lives."""
    store = SqlStore(url, SANDBOX)
    await store.open()
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(store._connections - 1):
            await stack.enter_async_context(store.connect())
        crowd = [asyncio.create_task(store.list()) for _ in range(50)]
        await asyncio.sleep(0)
        await store.commit(Batch("worker", 1, 0, 0, 0, {}))
        assert not any(one.done() for one in crowd)
    await asyncio.gather(*crowd)
    await store.close()


async def identity(connection: AsyncConnection) -> object:
    # The connection itself, kept: the `id` of one that was closed may be given to the next.
    return (await connection.get_raw_connection()).driver_connection
