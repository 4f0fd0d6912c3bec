"""The outbox's database is locked, full, read-only, gone: nothing is lost, it is told, and it is written when back."""

import asyncio
import logging
import shutil
import sqlite3

import pytest
import sqlalchemy as sa
from fastapi import HTTPException
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError

from fastapi_autumn import ModelCharge
from fastapi_autumn.settlement.outbox import Outbox
from fastapi_autumn.settlement.sender import Result, Sender
from fastapi_autumn.settlement.sql import SqlStore
from service import Service
from settlement.entries import SANDBOX, a_charge, a_refund, rows, until


class Ask(BaseModel):
    model: str
    fails: bool = False


@pytest.fixture
def path(tmp_path):
    return tmp_path / "outbox.db"


async def outbox_at(address, *, lease=1.0):
    outbox = Outbox(SqlStore(address, SANDBOX, recreate_after=lease), lease=lease)
    await outbox.start()
    return outbox


@pytest.fixture
async def sqlite(path):
    outbox = await outbox_at(f"sqlite+aiosqlite:///{path}")
    yield outbox
    await outbox.stop(within=5)


async def kept_in_memory(outbox, caplog):
    """Wait until a commit has failed, with something to write."""
    caplog.clear()
    with caplog.at_level(logging.ERROR, logger="fastapi_autumn.outbox"):
        await until(lambda: "cannot be written" in caplog.text)
    assert outbox.unwritten


def put(outbox):
    outbox.end(a_refund(outbox), owed=True)


async def test_full(sqlite, caplog):
    """A full database keeps everything in memory, says so, and has it all when there is room."""
    engine = sqlite.store.engine.sync_engine
    pages = {"count": 1}
    sa.event.listen(engine, "connect", lambda c, _: c.execute(f"PRAGMA max_page_count = {pages['count']}"))
    sqlite.store._is_open = False
    refunds = [a_refund(sqlite) for _ in range(500)]
    for refund in refunds:
        sqlite.end(refund, owed=True)
    await kept_in_memory(sqlite, caplog)
    pages["count"] = 1_000_000
    await sqlite.flush()

    assert set(await rows(sqlite.store)) == {refund.charge_id for refund in refunds}


async def test_read_only(sqlite, caplog):
    """A database that turns read-only keeps everything in memory until it can be written again."""
    listening = (sqlite.store.engine.sync_engine, "connect", lambda c, _: c.execute("PRAGMA query_only = ON"))
    sa.event.listen(*listening)
    sqlite.store._is_open = False
    put(sqlite)
    await kept_in_memory(sqlite, caplog)
    sa.event.remove(*listening)
    await sqlite.flush()

    assert len(await rows(sqlite.store)) == 1


async def test_locked_by_another_process(sqlite, path, caplog):
    """A lock that somebody else holds for longer than a writer waits is survived."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    put(sqlite)
    await kept_in_memory(sqlite, caplog)
    other.close()
    await sqlite.flush()

    assert len(await rows(sqlite.store)) == 1


async def test_moved_away_and_back(path, caplog):
    """While the file is away nothing is put in its place, so that what it holds is there when it comes back."""
    outbox = await outbox_at(f"sqlite+aiosqlite:///{path}", lease=60)
    put(outbox)
    await outbox.flush()
    away = path.with_name("away.db")
    path.rename(away)
    put(outbox)
    await kept_in_memory(outbox, caplog)
    assert not path.exists()
    away.rename(path)
    await outbox.flush()

    assert len(await rows(outbox.store)) == 2
    await outbox.stop(within=5)


async def test_deleted_for_good(sqlite, path, caplog):
    """A file that was deleted is made anew after a lease; SQLite alone would go on writing into the deleted one."""
    charge, name = a_charge(sqlite), sqlite.worker_id
    sqlite.open(charge)
    await sqlite.flush()
    for file in path.parent.glob("outbox.db*"):
        file.unlink()
    put(sqlite)
    await kept_in_memory(sqlite, caplog)
    await sqlite.flush()

    assert path.exists()
    assert {state for state, _ in (await rows(sqlite.store)).values()} == {"open", "due"}
    # Nobody there knows it, so it begins again under another name.
    assert sqlite.worker_id != name


async def test_the_folder_vanishes(tmp_path, caplog):
    """A volume that is unmounted and mounted again is no reason to lose anything."""
    folder = tmp_path / "volume"
    outbox = await outbox_at(f"sqlite+aiosqlite:///{folder}/outbox.db", lease=60)
    put(outbox)
    await outbox.flush()
    shutil.move(folder, tmp_path / "elsewhere")
    put(outbox)
    await kept_in_memory(outbox, caplog)
    shutil.move(tmp_path / "elsewhere", folder)
    await outbox.flush()

    assert len(await rows(outbox.store)) == 2
    await outbox.stop(within=5)


@pytest.mark.postgres
async def test_postgresql_stops_and_starts(postgres, caplog):
    """A restart of PostgreSQL is survived by the writer and by the sender, while it is down and while it starts."""
    outbox = await outbox_at(await postgres.create("restarted"), lease=2.0)
    sent = []

    async def deliver(entry):
        sent.append(entry)
        return Result(entry, None)

    sender = Sender(outbox, deliver)
    sender.start()
    await asyncio.to_thread(postgres.stop)
    try:
        put(outbox)
        await kept_in_memory(outbox, caplog)
    finally:
        await asyncio.to_thread(postgres.start)
    await until(lambda: len(sent) == 1)
    await sender.stop(within=10)
    await outbox.flush()

    assert await rows(outbox.store) == {}
    await outbox.stop(within=5)


async def test_a_result_that_cannot_be_written_is_kept(sqlite, path, caplog):
    """What became of a row while the database is away is not forgotten: it is written when it is back."""
    put(sqlite)
    await sqlite.flush()
    now = sqlite.now()
    (claimed,) = await sqlite.store.claim(sqlite.worker_id, limit=1, doubtful=False, now=now, until=now + 600_000)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    sqlite.delivered(claimed, "shortfall")
    await kept_in_memory(sqlite, caplog)
    other.close()
    await sqlite.flush()

    assert [state for state, _ in (await rows(sqlite.store)).values()] == ["shortfall"]


@pytest.mark.parametrize("charging", ["deduct", "hold"])
async def test_customers_notice_nothing(tmp_path, charging, caplog):
    """With the outbox's file gone, calls are answered and charged as ever, and refunds arrive once it is back."""
    service = Service(tmp_path, charging=charging, outbox_lease=60)

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
    async with asyncio.timeout(60):
        async with service.calling() as client:
            other.execute("BEGIN EXCLUSIVE")
            await client.post("/ai/chat", json={"model": "large"})
        other.close()

    assert "1 charges are only in Autumn's event log" in caplog.text


async def test_a_shutdown_that_cannot_claim_stops_the_rest(tmp_path, caplog):
    """A database that fails while the last refunds are claimed keeps nothing from being written and closed."""
    service = Service(tmp_path, emulator_path=tmp_path / "emulator.db")

    async def locked(*_, **__):
        raise OperationalError("UPDATE", {}, sqlite3.OperationalError("database is locked"))

    async with service.autumn.running() as runtime:
        runtime.outbox.store.claim = locked
        with pytest.raises(ValueError, match="model"):
            async with service.autumn.charge("ada", "large"):
                raise ValueError("model")

    assert "could not be delivered from (OperationalError)" in caplog.text
    assert "could not be written" not in caplog.text
    assert runtime.outbox._writer.done()
    again = Service(tmp_path, emulator_path=tmp_path / "emulator.db")
    async with again.autumn.running():
        assert await again.used() == 0
