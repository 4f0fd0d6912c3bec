"""What becomes of a caller's attempts under one key, on each database."""

import asyncio
import json
from collections import Counter
from decimal import Decimal

import pytest
import sqlalchemy as sa

from fastapi_autumn.settlement import Outcome
from fastapi_autumn.settlement._tables import replies as table
from fastapi_autumn.settlement.replies import (
    LIFETIME_MS,
    Attempt,
    Conflict,
    PaidCharge,
    RepliesAwayError,
    standing_after,
)
from fastapi_autumn.settlement.sql import SqlStore
from fastapi_autumn.settlement.sql_replies import SqlReplies
from settlement.entries import SANDBOX, FakeMachine, a_batch

NOW = 1_790_000_000_000
CHARGE = PaidCharge("w-1", Decimal(5), Decimal(5), "a")


@pytest.fixture
async def store(url):
    """The outbox's database, in which two workers live."""
    store = SqlStore(url, SANDBOX)
    await store.open()
    for worker in ("w", "v"):
        await store.commit(a_batch(worker))
    yield store
    await store.close()


@pytest.fixture
def replies(store):
    return SqlReplies(store)


async def claim(replies, key="key", fingerprint="body", *, by="w", now=NOW):
    return await replies.claim(replies.new_attempt(key), fingerprint, worker_id=by, now=now)


async def test_second_attempt_waits_for_the_first(replies):
    """While an attempt runs, another one under its key is told so, on every worker."""
    assert isinstance(await claim(replies), Attempt)
    assert Conflict.IN_PROGRESS is await claim(replies)
    assert Conflict.IN_PROGRESS is await claim(replies, by="v")


async def test_one_of_many_attempts_at_once_is_served(url, store, replies):
    """Of twenty attempts that come together, on two workers, one is served."""
    other = SqlStore(url, SANDBOX)
    await other.open()
    workers = {"w": replies, "v": SqlReplies(other)}

    found = await asyncio.gather(*(claim(workers["wv"[turn % 2]], by="wv"[turn % 2]) for turn in range(20)))
    await other.close()

    assert Counter(type(result) for result in found) == {Attempt: 1, Conflict: 19}


async def test_key_that_was_forgotten_is_new(replies):
    """An attempt that cost nothing leaves nothing, and the next one is charged anew."""
    await replies.finish(await claim(replies), None, [])
    again = await claim(replies)

    assert isinstance(again, Attempt)
    assert again.paid == ()


async def test_answer_is_delivered_once(replies):
    """What was delivered and paid is not delivered again."""
    await replies.finish(await claim(replies), "answered", [CHARGE])

    assert Conflict.ALREADY_ANSWERED is await claim(replies)


async def test_paid_attempt_pays_for_the_next(replies):
    """The charge of a caller who left pays for the next attempt, to the last digit, and for one at a time."""
    exact = PaidCharge("w-2", Decimal("0.0000000001"), Decimal("1E+3"))
    await replies.finish(await claim(replies), "paid", [CHARGE, exact])
    again = await claim(replies, by="v")

    assert again.paid == (CHARGE, exact)
    assert Conflict.IN_PROGRESS is await claim(replies)


async def test_key_belongs_to_one_request(replies):
    """A key that comes with another body is refused, whatever became of the first one."""
    attempt = await claim(replies)
    assert Conflict.OTHER_REQUEST is await claim(replies, fingerprint="another")
    await replies.finish(attempt, "paid", [CHARGE])
    assert Conflict.OTHER_REQUEST is await claim(replies, fingerprint="another")
    await replies.finish(attempt, "answered", [CHARGE])
    assert Conflict.OTHER_REQUEST is await claim(replies, fingerprint="another")


async def test_keys_do_not_know_each_other(replies):
    """Another key is another attempt."""
    assert isinstance(await claim(replies, "one"), Attempt)
    assert isinstance(await claim(replies, "two"), Attempt)


async def test_attempt_of_a_dead_worker_was_not_made(store, replies):
    """What a worker was running when it died is given back, so the next attempt begins anew."""
    await claim(replies, by="v")
    await store.leave("v")
    again = await claim(replies)

    assert isinstance(again, Attempt)
    assert again.paid == ()


async def test_paid_charge_outlives_a_dead_worker(store, replies):
    """A worker that dies while it serves an attempt on a paid charge has not used the charge up."""
    await replies.finish(await claim(replies), "paid", [CHARGE])
    await claim(replies, by="v")
    await store.leave("v")

    assert (await claim(replies)).paid == (CHARGE,)


async def test_late_end_of_an_older_attempt_is_void(store, replies):
    """A worker that was taken for dead, and comes back, says nothing about the attempt that was begun since."""
    slow = await claim(replies, by="v")
    await store.leave("v")
    await claim(replies)
    await replies.finish(slow, "answered", [CHARGE])
    await replies.finish(slow, None, [])

    assert Conflict.IN_PROGRESS is await claim(replies)


async def test_key_is_forgotten_after_a_day(replies):
    """A day after the first attempt a key is new, also for another request; a second attempt does not prolong it."""
    await replies.finish(await claim(replies), "paid", [CHARGE])
    await replies.finish(await claim(replies, now=NOW + LIFETIME_MS - 1), "answered", [CHARGE])

    assert Conflict.ALREADY_ANSWERED is await claim(replies, now=NOW + LIFETIME_MS - 1)
    assert isinstance(await claim(replies, fingerprint="another", now=NOW + LIFETIME_MS), Attempt)


async def test_old_keys_are_deleted(store):
    """Once an hour, keys that are over are deleted, so that the table does not grow for ever."""
    machine = FakeMachine()
    replies = SqlReplies(store, machine=machine)
    await claim(replies, "old")
    await claim(replies, "new", now=NOW + LIFETIME_MS)
    assert await keys(store) == {"old", "new"}
    machine.advance(seconds=3601)
    await claim(replies, "newest", now=NOW + LIFETIME_MS)

    assert await keys(store) == {"new", "newest"}


async def keys(store):
    async with store.engine.connect() as connection:
        return set((await connection.execute(sa.select(table.c.key))).scalars())


async def test_database_that_is_away_is_no_answer(url):
    """A database without the table, as any that fails, is an error of its own that does not show the address."""
    store = SqlStore(url, SANDBOX)
    await store.open()
    async with store.engine.begin() as connection:
        await connection.execute(sa.text("DROP TABLE autumn_replies"))
    with pytest.raises(RepliesAwayError, match=r"^\w+$"):
        await claim(SqlReplies(store))
    await store.close()


HALF = PaidCharge("w-1", Decimal(5), Decimal("2.5"))
NOTHING = PaidCharge("w-1", Decimal(5), Decimal(0))
OTHER = PaidCharge("w-2", Decimal(5), Decimal(5), "b")
FIRST, AGAIN = Attempt("key", "1"), Attempt("key", "2", (CHARGE,))


@pytest.mark.parametrize(
    ("attempt", "outcome", "charges", "standing"),
    [
        (FIRST, Outcome.DONE, [CHARGE], "answered"),
        (FIRST, Outcome.DONE, [HALF], "answered"),
        (FIRST, Outcome.DONE, [NOTHING], None),
        (FIRST, Outcome.DONE, [], None),
        (FIRST, Outcome.FAILED, [NOTHING], None),
        (FIRST, Outcome.FAILED, [CHARGE], "answered"),
        (FIRST, Outcome.GONE, [CHARGE], "paid"),
        (FIRST, Outcome.GONE, [CHARGE, CHARGE], "paid"),
        (FIRST, Outcome.GONE, [HALF], None),
        (FIRST, Outcome.GONE, [CHARGE, HALF], None),
        (FIRST, Outcome.GONE, [NOTHING], None),
        (AGAIN, Outcome.DONE, [CHARGE], "answered"),
        (AGAIN, Outcome.FAILED, [CHARGE], "paid"),
        (AGAIN, Outcome.GONE, [CHARGE], None),
        (AGAIN, Outcome.GONE, [OTHER], "paid"),
        (AGAIN, Outcome.FAILED, [OTHER], "answered"),
    ],
)
def test_what_an_attempt_leaves(attempt, outcome, charges, standing):
    """What was paid is answered if delivered, and else there for one more attempt; the rest is charged anew."""
    assert standing == standing_after(attempt, outcome, charges)


async def test_amounts_are_written_exactly(store, replies):
    """Amounts are texts in the row, never numbers of a JSON library."""
    await replies.finish(await claim(replies), "paid", [CHARGE])
    async with store.engine.connect() as connection:
        written = (await connection.execute(sa.select(table.c.charges))).scalar_one()

    assert json.loads(written) == [["w-1", "5", "5", "a"]]
