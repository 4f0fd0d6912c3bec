"""The outbox's database is locked, full, read-only, gone: nothing is lost, it is told, and it is written when back."""

import asyncio
import logging
import shutil
import sqlite3
from dataclasses import replace

import pytest
import sqlalchemy as sa
from fastapi import HTTPException
from pydantic import BaseModel

from fastapi_autumn import ModelCharge
from fastapi_autumn.settlement.outbox import Outbox
from service import Service
from settlement.entries import Deliveries, a_charge, a_refund, sending, until, written


class Ask(BaseModel):
    model: str
    fails: bool = False


@pytest.fixture
def path(tmp_path):
    return tmp_path / "outbox.db"


@pytest.fixture
async def sqlite(path):
    outbox = Outbox(f"sqlite+aiosqlite:///{path}", lease=1.0)
    await outbox.start()
    yield outbox
    await outbox.stop(within=5)


def make_full(outbox: Outbox) -> None:
    """Let the database have no page more than it has."""

    def limit(connection, _record) -> None:
        connection.execute("PRAGMA max_page_count = 1")

    sa.event.listen(outbox._connected.sync_engine, "connect", limit)
    outbox._is_open = False


async def make_roomy(outbox: Outbox) -> None:
    sa.event.listen(outbox._connected.sync_engine, "connect", lambda c, _: c.execute("PRAGMA max_page_count = 1000000"))


async def kept_in_memory(outbox: Outbox, caplog) -> None:
    with caplog.at_level(logging.ERROR, logger="fastapi_autumn.outbox"):
        await until(lambda: "cannot be written" in caplog.text)
    assert outbox.unwritten


async def test_full(sqlite, caplog):
    """A full database keeps everything in memory, says so, and has it all when there is room."""
    make_full(sqlite)
    refunds = [a_refund(sqlite) for _ in range(500)]
    for refund in refunds:
        sqlite.put(refund)
    await kept_in_memory(sqlite, caplog)
    await make_roomy(sqlite)
    await sqlite.flush()

    assert set(await written(sqlite)) == {refund.charge_id for refund in refunds}


async def test_read_only(sqlite, caplog):
    """A database that turns read-only keeps everything in memory until it can be written again."""
    await sqlite.flush()
    listeners = [(sqlite._connected.sync_engine, "connect", lambda c, _: c.execute("PRAGMA query_only = ON"))]
    sa.event.listen(*listeners[0])
    sqlite._is_open = False
    sqlite.put(a_refund(sqlite))
    await kept_in_memory(sqlite, caplog)
    sa.event.remove(*listeners[0])
    await sqlite.flush()

    assert len(await written(sqlite)) == 1


async def test_locked_by_another_process(sqlite, path, caplog):
    """A lock that somebody else holds for longer than a writer waits is survived."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    sqlite.put(a_refund(sqlite))
    await kept_in_memory(sqlite, caplog)
    other.execute("ROLLBACK")
    other.close()
    await sqlite.flush()

    assert len(await written(sqlite)) == 1


async def test_moved_away_and_back(sqlite, path, caplog):
    """While the file is away nothing is put in its place, so that what it holds is there when it comes back."""
    sqlite.put(a_refund(sqlite))
    await sqlite.flush()
    away = path.with_name("away.db")
    path.rename(away)
    sqlite.put(a_refund(sqlite))
    await kept_in_memory(sqlite, caplog)
    assert not path.exists()
    away.rename(path)
    await sqlite.flush()

    assert len(await written(sqlite)) == 2


async def test_deleted_for_good(sqlite, path, caplog):
    """A file that was deleted is made anew after a lease; SQLite alone would go on writing into the deleted one."""
    charge = a_charge(sqlite)
    sqlite.open(charge)
    await sqlite.flush()
    for file in path.parent.glob("outbox.db*"):
        file.unlink()
    sqlite.put(a_refund(sqlite))
    await kept_in_memory(sqlite, caplog)
    await sqlite.flush()

    states = {state for state, _ in (await written(sqlite)).values()}
    assert path.exists()
    assert states == {"open", "due"}


async def test_the_folder_vanishes(tmp_path, caplog):
    """A volume that is unmounted and mounted again is no reason to lose anything."""
    folder = tmp_path / "volume"
    outbox = Outbox(f"sqlite+aiosqlite:///{folder}/outbox.db", lease=1.0)
    await outbox.start()
    outbox.put(a_refund(outbox))
    await outbox.flush()
    shutil.move(folder, tmp_path / "elsewhere")
    outbox.put(a_refund(outbox))
    await kept_in_memory(outbox, caplog)
    await asyncio.sleep(1.5)
    shutil.move(tmp_path / "elsewhere", folder)
    await outbox.flush()

    assert len(await written(outbox)) == 2
    await outbox.stop(within=5)


@pytest.mark.postgres
async def test_postgresql_stops_and_starts(postgres, caplog):
    """A restart of PostgreSQL is survived by the writer and by the sender, while it is down and while it starts."""
    url = await postgres.create("restarted")
    outbox = Outbox(url, lease=2.0)
    await outbox.start()
    deliveries = Deliveries()
    async with sending(outbox, deliveries):
        await asyncio.to_thread(postgres.stop)
        try:
            outbox.put(a_refund(outbox))
            await kept_in_memory(outbox, caplog)
        finally:
            await asyncio.to_thread(postgres.start)
        await until(lambda: len(deliveries.sent) == 1, seconds=20)
        await outbox.flush()

    assert await written(outbox) == {}
    await outbox.stop(within=5)


async def test_lost_at_the_end_is_told(sqlite, path, caplog):
    """A stop while the database is away takes no longer than it may, and says how much is lost."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    sqlite.put(a_refund(sqlite))
    async with asyncio.timeout(4):
        await sqlite.stop(within=0.2)
    other.close()

    assert "1 charges are lost to this process" in caplog.text


async def test_a_result_that_cannot_be_written_is_kept(sqlite, path, caplog):
    """An entry that is delivered while the database is away is not forgotten: it is deleted when it is back."""
    sqlite.put(a_refund(sqlite))
    await sqlite.flush()
    (claimed,) = await sqlite.claim(1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    sqlite.park(replace(claimed, last_error="refused for good"))
    await kept_in_memory(sqlite, caplog)
    other.close()
    await sqlite.flush()

    ((state, entry),) = (await written(sqlite)).values()
    assert (state, entry.last_error) == ("parked", "refused for good")


@pytest.mark.parametrize("settlement", ["deduct", "hold"])
async def test_customers_notice_nothing(tmp_path, settlement, caplog):
    """With the outbox's file gone, calls are answered and charged as ever, and refunds arrive once it is back."""
    service = Service(tmp_path, settlement=settlement, outbox_lease=60)

    @service.app.post("/ai/chat")
    async def chat(ask: Ask, charge: ModelCharge) -> str:
        if ask.fails:
            raise HTTPException(502)
        return "served"

    path, away = tmp_path / "outbox.db", tmp_path / "away.db"
    async with service.calling() as client:
        await client.post("/ai/chat", json={"model": "large"})
        path.rename(away)
        served = [await client.post("/ai/chat", json={"model": "large"}) for _ in range(3)]
        failed = [await client.post("/ai/chat", json={"model": "large", "fails": True}) for _ in range(3)]
        assert [response.status_code for response in served + failed] == [200] * 3 + [502] * 3
        await until(lambda: "cannot be written" in caplog.text)
        away.rename(path)

        assert await service.used() == 20


async def test_a_shutdown_while_it_is_away_ends(tmp_path, caplog):
    """A service whose outbox cannot be written stops all the same, in bounded time, and says what that means."""
    service = Service(tmp_path, shutdown_timeout=0.3)

    @service.app.post("/ai/chat")
    async def chat(ask: Ask, charge: ModelCharge) -> str:
        raise HTTPException(502)

    other = sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)
    async with asyncio.timeout(15):
        async with service.calling() as client:
            other.execute("BEGIN EXCLUSIVE")
            await client.post("/ai/chat", json={"model": "large"})
        other.close()

    assert "are lost to this process" in caplog.text
