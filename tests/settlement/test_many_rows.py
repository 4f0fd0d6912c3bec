"""A hundred thousand rows wait: memory does not grow with them, a claim does not read them, and two share the work."""

import tracemalloc

import pytest
import sqlalchemy as sa

from fastapi_autumn.settlement import _tables
from fastapi_autumn.settlement.entry import Doubt
from fastapi_autumn.settlement.outbox import Outbox
from fastapi_autumn.settlement.sender import Result, Sender
from fastapi_autumn.settlement.sql import SqlStore
from settlement.entries import SANDBOX, FakeMachine, an_entry, until

ROWS = 100_000
DOUBLINGS = "abcde"  # the database makes most of the rows itself, which takes it a moment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
async def full(url):
    """A database with all the rows, a tenth of them in doubt and of one customer."""
    store = SqlStore(url, SANDBOX)
    await store.open()
    of_the_store = {"account": SANDBOX.key_digest, "state": "due", "owner": "gone", "lease_until": 0}
    entries = [
        an_entry(
            f"w-{number}",
            customer_id="busy" if number % 10 == 0 else f"customer-{number % 1000}",
            doubt=Doubt.SEALED if number % 10 == 0 else Doubt.NONE,
        )
        for number in range(ROWS >> len(DOUBLINGS))
    ]
    table = _tables.charges
    async with store.engine.begin() as connection:
        await connection.execute(sa.insert(table), [_tables.row_of(entry) | of_the_store for entry in entries])
        for suffix in DOUBLINGS:
            same = {column.name: column for column in table.c} | {"charge_id": table.c.charge_id + suffix}
            await connection.execute(sa.insert(table).from_select(list(same), sa.select(*same.values())))
    await store.close()
    return url


class CountedSends:
    def __init__(self):
        self.ids = []

    async def deliver(self, entry):
        self.ids.append(entry.charge_id)
        return Result(entry, None)


async def started(url, name):
    outbox = Outbox(SqlStore(url, SANDBOX), machine=FakeMachine(name))
    await outbox.start()
    return outbox


async def test_flat_memory(full):
    """A thousand deliveries out of a hundred thousand need no memory."""
    outbox, counting = await started(full, "one"), CountedSends()
    tracemalloc.start()
    sender = Sender(outbox, counting.deliver)
    sender.start()
    await until(lambda: len(counting.ids) >= 1000, seconds=200)
    counting.ids.clear()
    before, _ = tracemalloc.get_traced_memory()
    await until(lambda: len(counting.ids) >= 1000, seconds=200)
    counting.ids.clear()
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    await sender.stop(within=30)
    await outbox.stop(within=30)

    assert after - before < 500_000
    assert peak < 30_000_000


async def test_two_share_the_work_without_a_double(full):
    """Two workers at once deliver thousands of them, none of them twice, and each its part."""
    outboxes, parts = (
        [await started(full, name) for name in ("one", "two")],
        [CountedSends(), CountedSends()],
    )
    senders = [Sender(outbox, part.deliver) for outbox, part in zip(outboxes, parts, strict=True)]
    for sender in senders:
        sender.start()
    await until(lambda: sum(len(part.ids) for part in parts) >= 3000, seconds=200)
    for sender, outbox in zip(senders, outboxes, strict=True):
        await sender.stop(within=30)
        await outbox.stop(within=30)
    ids = parts[0].ids + parts[1].ids

    assert len(set(ids)) == len(ids)
    assert all(part.ids for part in parts)
