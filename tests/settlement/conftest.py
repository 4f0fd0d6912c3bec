"""Stores and outboxes on each kind of database, with clocks that stand still until they are moved."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastapi_autumn.settlement.outbox import Outbox
from fastapi_autumn.settlement.sql import SqlStore
from fastapi_autumn.settlement.store import Account, Store
from memory_store import MemoryDatabase, MemoryStore
from postgres import Postgres
from settlement.entries import SANDBOX, FakeMachine

NewStore = Callable[..., Awaitable[Store]]
NewOutbox = Callable[..., Awaitable[Outbox]]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL, for all tests of this process."""
    server = Postgres()
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/outbox.db"
    server: Postgres = request.getfixturevalue("postgres")
    return await server.create(f"test-{uuid.uuid4().hex}")


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine()


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
async def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[NewStore]:
    """Open another store on the same database; all are closed at the end."""
    opened: list[Store] = []
    if request.param == "memory":
        database = MemoryDatabase()

        def make(account: Account) -> Store:
            return MemoryStore(database, account)

    else:
        address = f"sqlite+aiosqlite:///{tmp_path}/outbox.db"
        if request.param == "postgresql":
            server: Postgres = request.getfixturevalue("postgres")
            address = await server.create(f"test-{uuid.uuid4().hex}")

        def make(account: Account) -> Store:
            return SqlStore(address, account)

    async def opening(account: Account = SANDBOX) -> Store:
        store = make(account)
        await store.open()
        opened.append(store)
        return store

    yield opening
    for store in opened:
        await store.close()


@pytest.fixture
async def store(new_store: NewStore) -> Store:
    return await new_store()


@pytest.fixture
def memory() -> MemoryDatabase:
    """A database in memory, for what does not depend on the kind of database."""
    return MemoryDatabase()


@pytest.fixture
async def open_outbox(memory: MemoryDatabase, machine: FakeMachine) -> AsyncIterator[NewOutbox]:
    """Start another outbox on the database in memory; all are stopped at the end."""
    opened: list[Outbox] = []

    async def opening(store: Store | None = None, **options: Any) -> Outbox:
        outbox = Outbox(store or MemoryStore(memory, SANDBOX), **{"machine": machine} | options)
        await outbox.start()
        opened.append(outbox)
        return outbox

    yield opening
    for outbox in opened:
        if outbox._writer is not None and not outbox._writer.done():
            await outbox.stop(within=2)
    # A store that a test has slowed down may still be at it.
    await asyncio.sleep(0)


@pytest.fixture
async def outbox(open_outbox: NewOutbox) -> Outbox:
    return await open_outbox()
