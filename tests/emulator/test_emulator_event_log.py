"""The event log's delay, which is off unless it is asked for."""

import pytest

from emulator.conftest import CATALOG, EmulatorClient, Time
from fastapi_autumn.emulator import Emulator


@pytest.fixture
async def late():
    """An emulator whose event log waits as Autumn's does, with its clock and a client."""
    time = Time()
    emulator = Emulator(":memory:", catalog=CATALOG, clock=time, event_quiet_ms=350)
    async with EmulatorClient(emulator) as client:
        await client.ok("customers.get_or_create", customer_id="ann")
        yield client, time
    emulator.close()


async def seen(client):
    """Count the events that the aggregate shows."""
    body = {"customer_id": "ann", "feature_id": "usage", "range": "24h"}
    return (await client.ok("events.aggregate", **body))["total"].get("usage", {}).get("count", 0)


async def test_events_are_seen_once_it_was_quiet(late):
    """350 ms after the last one all of them are there, and not before."""
    client, time = late
    for _ in range(3):
        await client.ok("balances.track", customer_id="ann", feature_id="usage")
        time.now += 300
    assert await seen(client) == 0
    assert (await client.ok("events.list", customer_id="ann"))["list"] == []
    time.now += 50
    assert await seen(client) == 3
    await client.ok("balances.track", customer_id="ann", feature_id="usage")
    assert await seen(client) == 3


async def test_steady_traffic_hides_events_until_there_are_two_hundred(late):
    """An event every 0.3 seconds: the first one is seen after a minute."""
    client, time = late
    for _ in range(199):
        await client.ok("balances.track", customer_id="ann", feature_id="usage", value=0.1)
        time.now += 300
    assert await seen(client) == 0
    await client.ok("balances.track", customer_id="ann", feature_id="usage", value=0.1)
    assert await seen(client) == 200


async def test_events_are_seen_at_once_by_default(autumn):
    """Tests see what was done."""
    await autumn.ok("balances.track", customer_id="ann", feature_id="usage")
    assert await seen(autumn) == 1
