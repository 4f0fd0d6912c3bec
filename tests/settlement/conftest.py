"""An outbox on each database, with a clock that stands still until it is moved."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from fastapi_autumn.settlement.outbox import Outbox
from postgres import Postgres
from settlement.entries import Clock

Open = Callable[..., Awaitable[Outbox]]


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
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def open_outbox(url: str, clock: Clock) -> AsyncIterator[Open]:
    """Open another outbox on the same database; all are stopped at the end."""
    opened = []

    async def opening(*, lease: float = 30.0, **arguments: str) -> Outbox:
        outbox = Outbox(arguments.get("url", url), lease=lease, now=clock)
        await outbox.start()
        opened.append(outbox)
        return outbox

    yield opening
    for outbox in opened:
        await outbox.stop(within=2)


@pytest.fixture
async def outbox(open_outbox: Open) -> Outbox:
    return await open_outbox()
