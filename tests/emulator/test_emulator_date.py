"""What time it is at the emulator, as its answers say."""

from email.utils import parsedate_to_datetime

import httpx

from fastapi_autumn import Autumn, AutumnSettings
from fastapi_autumn.emulator import EMULATOR_KEY, Emulator


async def test_an_answer_is_dated_by_the_emulators_clock():
    """A clock that was moved shows in `Date`, as it does in the events."""
    emulator = Emulator(":memory:", clock=lambda: 1_800_000_000_000)
    emulator.clock.advance(days=30)
    transport = httpx.ASGITransport(app=emulator)
    async with httpx.AsyncClient(transport=transport, base_url="http://emulator") as client:
        headers = {"authorization": f"Bearer {EMULATOR_KEY}"}
        answer = await client.post("/v1/customers.list", json={}, headers=headers)
    emulator.close()

    assert parsedate_to_datetime(answer.headers["date"]).timestamp() == 1_800_000_000 + 30 * 86_400


async def test_a_hold_outlives_a_clock_that_was_moved(tmp_path):
    """A service learns the emulator's time, so a hold under a clock that is a month ahead has not ended already."""
    settings = AutumnSettings(
        _env_file=None,
        emulator=True,
        emulator_path=":memory:",
        outbox_url=f"sqlite+aiosqlite:///{tmp_path}/outbox.db",
        charging="hold",
    )
    autumn = Autumn(settings, prices={"large": 5})
    autumn.emulator.clock.advance(days=30)
    async with autumn.running() as runtime:
        async with autumn.charge("ada", "large"):
            pass
        await autumn.settled()

        assert (await runtime.client.customers.get("ada")).balances["ai_credits"].usage == 5
        assert await runtime.outbox.store.list() == []
