"""Time: the calendar of resets, and a clock that all workers share."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import httpx
import pytest

from emulator.conftest import CATALOG, START, EmulatorClient
from fastapi_autumn.emulator import Emulator
from fastapi_autumn.emulator.books._clock import DAY, add_interval, next_after


def at(text):
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1_000)


@pytest.mark.parametrize(
    ("start", "interval", "count", "end"),
    [
        ("2024-01-31T10:00", "month", 1, "2024-02-29T10:00"),
        ("2023-01-31T10:00", "month", 1, "2023-02-28T10:00"),
        ("2024-11-30T00:00", "quarter", 1, "2025-02-28T00:00"),
        ("2024-02-29T00:00", "year", 1, "2025-02-28T00:00"),
        ("2024-08-31T00:00", "semi_annual", 1, "2025-02-28T00:00"),
        ("2024-12-31T23:59", "week", 2, "2025-01-14T23:59"),
        ("2024-03-31T00:00", "month", -1, "2024-02-29T00:00"),
    ],
)
def test_intervals_end_on_the_same_day_or_the_last_one(start, interval, count, end):
    """A month that has no such day ends on its last one."""
    assert add_interval(at(start), interval, count) == at(end)


def test_a_short_month_does_not_move_the_ones_after_it():
    """Counted from the 31st, the reset after February's 29th is on March 31st."""
    assert next_after(at("2024-01-31T10:00"), "month", 1, at("2024-03-01T00:00")) == at("2024-03-31T10:00")


def test_an_anchor_in_the_future_is_counted_back_from():
    """A trial that ends in a week resets weekly balances then, and daily ones every day until then."""
    assert next_after(7 * DAY, "week", 1, 0) == 7 * DAY
    assert next_after(7 * DAY, "day", 1, 0) == DAY


async def test_a_balance_resets_when_its_month_is_over(autumn, emulator):
    """Advancing the clock past the reset grants anew; the next reset is a month later."""
    await autumn.ok("balances.track", customer_id="ann", feature_id="usage", value=20)
    emulator.clock.advance(days=31)
    shown = (await autumn.ok("customers.get", customer_id="ann"))["balances"]["credits"]
    assert shown["remaining"] == 50
    assert shown["next_reset_at"] == add_interval(START, "month", 2)


async def test_workers_share_time_customers_and_catalog(tmp_path):
    """Two emulators on one file see one clock, one catalog and one balance."""
    path, now = tmp_path / "deep" / "emulator.db", lambda: START
    one, two = Emulator(path, catalog=CATALOG, clock=now), Emulator(path, catalog=CATALOG, clock=now)
    async with EmulatorClient(one) as first, EmulatorClient(two) as second:
        await first.ok("customers.get_or_create", customer_id="ann")
        await second.ok("balances.track", customer_id="ann", feature_id="usage", value=20)
        assert await first.remaining() == 30
        one.clock.advance(days=40)
        assert two.clock.now() == START + 40 * DAY
        assert await second.remaining() == 50
        await first.ok("features.create", feature_id="late", name="Late", type="boolean")
        assert (await second.ok("features.get", feature_id="late"))["id"] == "late"
    one.close()
    two.close()


async def test_everything_survives_a_restart(tmp_path):
    """A new emulator on an old file goes on where the old one stopped, and does not seed again."""
    path = tmp_path / "emulator.db"
    before = Emulator(path, catalog=CATALOG)
    async with EmulatorClient(before) as client:
        await client.ok("customers.get_or_create", customer_id="ann")
        await client.ok("plans.update", plan_id="pro", name="Professional")
    before.close()
    after = Emulator(path, catalog=CATALOG)
    async with EmulatorClient(after) as client:
        assert await client.remaining() == 50
        assert (await client.ok("plans.get", plan_id="pro"))["name"] == "Professional"
    after.close()


def test_callers_on_several_threads_take_turns(emulator):
    """Threads with event loops of their own share one emulator: every use is counted once."""

    def use():
        async def run():
            async with EmulatorClient(emulator) as client:
                for _ in range(10):
                    await client.ok("balances.track", customer_id="ann", feature_id="usage")

        asyncio.run(run())

    async def prepare():
        async with EmulatorClient(emulator) as client:
            await client.ok("customers.get_or_create", customer_id="ann")

    asyncio.run(prepare())
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: use(), range(4)))

    async def left():
        async with EmulatorClient(emulator) as client:
            return await client.remaining()

    assert asyncio.run(left()) == 10


def test_the_clock_moves_forward_only(emulator):
    """A negative step would undo resets that have happened, so it is refused."""
    with pytest.raises(ValueError, match="forward"):
        emulator.clock.advance(days=-1)


async def test_another_process_drives_it_over_http(emulator, autumn):
    """The control routes need no key: time, faults, seeding, a reset and what there is."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(emulator), base_url="http://autumn") as other:
        assert (await other.get("/emulator/health")).json() == {
            "status": "ok", "now": START, "customers": 1, "events": 0,
        }  # fmt: skip
        assert (await other.post("/emulator/clock", json={"days": 1, "hours": 1})).json()[
            "now"
        ] == START + 25 * DAY // 24
        assert (await other.post("/emulator/clock", json={"days": -1})).status_code == 400
        feature = {"feature_id": "extra", "name": "Extra", "type": "boolean"}
        await other.post("/emulator/seed", json={"features": [feature]})
        assert (await autumn.ok("features.get", feature_id="extra"))["type"] == "boolean"
        await other.post("/emulator/reset")
    assert (await autumn.call("customers.get", customer_id="ann")).status_code == 404
    assert emulator.clock.now() == START
