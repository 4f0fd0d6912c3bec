"""A hundred thousand entries wait: starting takes no longer for it, memory does not grow, and two share the work."""

import time
import tracemalloc

import pytest
import sqlalchemy as sa

from fastapi_autumn.settlement import _tables
from fastapi_autumn.settlement.outbox import Outbox
from settlement.entries import Deliveries, a_refund, sending, until

ROWS = 100_000

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
async def full(url, clock) -> str:
    """A database with all the rows."""
    outbox = Outbox(url, now=clock)
    await outbox.start()
    async with outbox._connected.begin() as connection:
        for _ in range(ROWS // 5000):
            entries = [a_refund(outbox, customer_id=f"customer-{number % 1000}") for number in range(5000)]
            rows = [_tables.row_of(entry, "due", owner=outbox.worker_id) for entry in entries]
            await connection.execute(sa.insert(_tables.rows), rows)
    await outbox.stop(within=60)
    return url


async def test_starts_at_once_in_flat_memory(full, clock):
    """From the start to the first delivery it takes less than two seconds, and a thousand deliveries need no memory."""
    begun = time.monotonic()
    outbox = Outbox(full, now=clock)
    await outbox.start()
    deliveries = Deliveries()
    tracemalloc.start()
    async with sending(outbox, deliveries):
        await until(lambda: deliveries.sent)
        assert time.monotonic() - begun < 2
        await until(lambda: len(deliveries.sent) >= 1000, seconds=60)
        deliveries.sent.clear()
        before, _ = tracemalloc.get_traced_memory()
        await until(lambda: len(deliveries.sent) >= 1000, seconds=60)
        deliveries.sent.clear()
        after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    await outbox.stop(within=10)

    assert after - before < 500_000
    assert peak < 30_000_000


async def test_two_share_the_work_without_a_double(full, open_outbox):
    """Two workers at once deliver thousands of them, none of them twice, and each its part."""
    first, second = await open_outbox(), await open_outbox()
    parts = Deliveries(), Deliveries()
    async with sending(first, parts[0]), sending(second, parts[1]):
        await until(lambda: sum(len(part.sent) for part in parts) >= 3000, seconds=120)
    ids = parts[0].ids + parts[1].ids

    assert len(set(ids)) == len(ids)
    assert min(len(part.sent) for part in parts) > 300
