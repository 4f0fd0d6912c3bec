"""Whose rows are whose, where several services, an emulator and several keys share one database."""

from pathlib import Path

import pytest

from fastapi_autumn import Autumn, AutumnSettings
from fastapi_autumn.catalog import Catalog
from fastapi_autumn.catalog.templates import TEMPLATES
from fastapi_autumn.emulator import Emulator, Fault
from fastapi_autumn.settlement.sql import SqlStore
from fastapi_autumn.transports import AsgiTransport
from service import until

OLD_KEY, NEW_KEY, LIVE_KEY = "am_sk_test_old_and_leaked", "am_sk_test_new_and_safe", "am_sk_live_real_money"
CATALOG = Catalog.from_source(TEMPLATES["credits"], Path("autumn_config.py"))


@pytest.fixture
def autumn_of(tmp_path, monkeypatch):
    """Make another service on the same database."""
    monkeypatch.chdir(tmp_path)

    def make(*, emulator=None, key=None, **settings):
        values = {
            "outbox_url": f"sqlite+aiosqlite:///{tmp_path}/outbox.db",
            "event_delay": 0.0,
            "shutdown_timeout": 0.3,
            "max_retries": 0,
        }
        if key is None:
            values |= {"emulator": True, "emulator_path": tmp_path / emulator}
            return Autumn(AutumnSettings(_env_file=None, **values | settings), prices={"large": 5})
        transport = AsgiTransport(emulator, timeout=5)
        values["secret_key"] = key
        return Autumn(AutumnSettings(_env_file=None, **values | settings), prices={"large": 5}, transport=transport)

    return make


async def leave_a_refund(autumn, emulator):
    """Have a call fail while Autumn cannot be told, and stop."""
    emulator.faults.add("balances.track", Fault(kind="refuse"))
    with pytest.raises(ValueError, match="model"):
        async with autumn.running(), autumn.charge("ada", "large"):
            raise ValueError("model")
    emulator.faults.clear()


def used(emulator):
    return emulator.call("customers.get", {"customer_id": "ada"})["balances"]["ai_credits"]["usage"]


async def everything(tmp_path):
    store = SqlStore(f"sqlite+aiosqlite:///{tmp_path}/outbox.db")
    await store.open()
    rows = await store.list(everybody=True)
    await store.close()
    return rows


async def test_a_refund_is_never_delivered_to_another_autumn(tmp_path, autumn_of):
    """One emulator leaves a refund; a service of another one on the same file leaves it alone; its own delivers it."""
    first, second = autumn_of(emulator="first.db"), autumn_of(emulator="second.db")
    await leave_a_refund(first, first.emulator)
    assert used(first.emulator) == 5
    async with second.running():
        async with second.charge("ada", "large"):
            pass
        await second.settled()
        assert await second.outbox.store.count() == {"open": 0, "due": 0, "shortfall": 0}
    assert used(second.emulator) == 5
    (row,) = await everything(tmp_path)
    assert (row.state, row.account.environment) == ("due", "emulator")
    assert row.account.origin.endswith("first.db")

    async with first.running():
        await first.settled()
    assert used(first.emulator) == 0
    assert await everything(tmp_path) == []


async def test_rows_outlive_a_rotation_of_the_key(tmp_path, autumn_of):
    """What was left under a key that is gone is delivered with the organisation's next one."""
    emulator = Emulator(":memory:", catalog=CATALOG)
    emulator.add_key(OLD_KEY)
    old = autumn_of(emulator=emulator, key=OLD_KEY)
    async with old.running():
        await until(lambda: old.outbox.store.account.organisation is not None)
    await leave_a_refund(old, emulator)
    emulator.revoke_key(OLD_KEY)
    emulator.add_key(NEW_KEY)
    new = autumn_of(emulator=emulator, key=NEW_KEY)
    async with new.running():

        async def is_empty():
            return not await everything(tmp_path)

        await until(is_empty)

    assert used(emulator) == 0
    emulator.close()


async def test_sandbox_and_live_are_apart(tmp_path, autumn_of):
    """A live service delivers nothing of a sandbox of the same organisation."""
    emulator = Emulator(":memory:", catalog=CATALOG)
    for key in (OLD_KEY, LIVE_KEY):
        emulator.add_key(key)
    sandbox, live = autumn_of(emulator=emulator, key=OLD_KEY), autumn_of(emulator=emulator, key=LIVE_KEY)
    await leave_a_refund(sandbox, emulator)
    async with live.running():
        await until(lambda: live.outbox.store.account.organisation is not None)
        await live.settled()

    (row,) = await everything(tmp_path)
    assert (row.state, row.account.environment) == ("due", "sandbox")
    assert used(emulator) == 5
    emulator.close()


async def test_the_key_is_not_in_the_database(tmp_path, autumn_of):
    """A digest tells keys apart; the key itself is in no file."""
    emulator = Emulator(":memory:", catalog=CATALOG)
    emulator.add_key(OLD_KEY)
    await leave_a_refund(autumn_of(emulator=emulator, key=OLD_KEY), emulator)

    (row,) = await everything(tmp_path)
    assert OLD_KEY not in repr(row)
    assert b"leaked" not in (tmp_path / "outbox.db").read_bytes()
    emulator.close()


async def test_an_organisation_that_cannot_be_learnt_stops_nothing(tmp_path, autumn_of, caplog):
    """Only a rotation of the key needs it, so a service serves without, and asks again later."""
    emulator = Emulator(":memory:", catalog=CATALOG)
    emulator.add_key(OLD_KEY)
    emulator.faults.add("organization.me", Fault(kind="fail", status=500))
    autumn = autumn_of(emulator=emulator, key=OLD_KEY)
    with caplog.at_level("INFO", logger="fastapi_autumn"):
        async with autumn.running(), autumn.charge("ada", "large"):
            await until(lambda: "organisation of the key is not known yet" in caplog.text)

    assert used(emulator) == 5
    assert autumn.runtime is None
    emulator.close()
