"""An event loop that is torn down: whoever ends it cancels all of its tasks at once, and then the last charges close.

`asyncio.run` does so when its coroutine returns; uvicorn does when it is interrupted while the application starts.
"""

import asyncio
import sqlite3

import pytest

from fastapi_autumn import Autumn, AutumnSettings
from fastapi_autumn.emulator import Emulator


@pytest.mark.parametrize("seconds", [0, 0.05, 0.4], ids=["at once", "before a commit", "after a commit"])
def test_an_open_charge_is_given_back(tmp_path, seconds):
    """What was open is given back and written before the loop ends, without waiting for tasks that are gone."""
    database = tmp_path / "outbox.db"
    settings = AutumnSettings(
        emulator=True,
        emulator_path=str(tmp_path / "emulator.db"),
        outbox_url=f"sqlite+aiosqlite:///{database}",
        shutdown_timeout=3600,  # whoever waited for tasks that are gone would wait for so long
    )

    async def main():
        autumn, is_open = Autumn(settings, prices={"large": 5}), asyncio.Event()

        async def call():
            async with autumn.charge("ada", "large"):
                is_open.set()
                await asyncio.sleep(3600)

        async def serve():
            async with autumn.running(), asyncio.TaskGroup() as calls:
                calls.create_task(call())

        serving = asyncio.create_task(serve())
        await is_open.wait()
        await asyncio.sleep(seconds)
        return serving

    assert asyncio.run(main()).cancelled()

    emulator = Emulator(tmp_path / "emulator.db")
    balance = emulator.call("customers.get", {"customer_id": "ada"})["balances"]["ai_credits"]
    emulator.close()
    assert balance["usage"] == 0
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT * FROM autumn_charges").fetchall() == []
        assert connection.execute("SELECT * FROM autumn_charge_workers").fetchall() == []
    connection.close()
