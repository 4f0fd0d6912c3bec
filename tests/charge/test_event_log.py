"""Asking Autumn's event log no faster than Autumn allows."""

import asyncio

from charge.bench import bench_of
from fastapi_autumn.charge import _event_log
from fastapi_autumn.charge._event_log import EventLog, Shown
from settlement.entries import an_entry


async def test_look_ups_queue(monkeypatch):
    """Autumn answers 25 sums a second for the organisation, and five pages for one customer: each waits its turn."""
    monkeypatch.setattr(_event_log, "_SECONDS_BETWEEN_SUMS", 0.1)
    monkeypatch.setattr(_event_log, "_SECONDS_BETWEEN_PAGES", 0.25)
    pauses = []
    sleep = asyncio.sleep

    async def note(seconds):
        pauses.append(seconds)
        await sleep(0)

    async with bench_of() as bench:
        log = EventLog(bench.client, now=bench.machine.wall_ms)
        with monkeypatch.context() as patch:
            patch.setattr(_event_log.asyncio, "sleep", note)
            begun = asyncio.get_running_loop().time()
            for number in range(4):
                await log.sum_of(an_entry(f"w-{number}"))
            await log.shown_for(an_entry(due_at=0))
            took = asyncio.get_running_loop().time() - begun

    # Each is let in a turn after the one before; the first page is in another line.
    assert pauses[0] == pauses[4] == 0
    for turn, pause in enumerate(pauses[:4]):
        assert turn * 0.1 - took <= pause <= turn * 0.1 + 1e-6


async def test_lines_that_nobody_waits_in_are_forgotten(monkeypatch):
    """A process that has looked up thousands of customers remembers only those whose turn is still to come."""
    monkeypatch.setattr(_event_log, "_EVENTS_A_PAGE", 5)
    async with bench_of() as bench:
        log = EventLog(bench.client, now=bench.machine.wall_ms)
        for number in range(50):
            await log._turn(f"pages of {number}", 0.0)

    assert len(log._turns) < 10


async def test_readings_are_forgotten_too(monkeypatch):
    """A reading holds the sums of one customer's charges; only those of the last few customers are kept."""
    monkeypatch.setattr(_event_log, "_CUSTOMERS_REMEMBERED", 3)
    monkeypatch.setattr(_event_log, "_SECONDS_BETWEEN_PAGES", 0.0)
    async with bench_of() as bench:
        log = EventLog(bench.client, now=bench.machine.wall_ms)
        for number in range(9):
            bench.line.emulator.call("customers.get_or_create", {"customer_id": f"c{number}"})
            assert await log.shown_for(an_entry(customer_id=f"c{number}", due_at=0)) == Shown()

    assert list(log._readings) == ["c6", "c7", "c8"]
