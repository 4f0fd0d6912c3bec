"""Which messages of webhooks were handled, on each database."""

import asyncio
from collections import Counter

import pytest
import sqlalchemy as sa

from fastapi_autumn.settlement._tables import messages as table
from fastapi_autumn.settlement.messages import LIFETIME_MS, MessagesAwayError, Standing
from fastapi_autumn.settlement.sql import SqlStore
from fastapi_autumn.settlement.sql_messages import SqlMessages
from settlement.entries import SANDBOX, FakeMachine, a_batch

NOW = 1_790_000_000_000
SIGNED = NOW // 1000


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
def messages(store):
    return SqlMessages(store)


async def claim(messages, message_id="msg_1", *, by="w", signed_at=SIGNED, consumer="hooks", now=NOW):
    return await messages.claim(consumer, message_id, signed_at=signed_at, worker_id=by, now=now)


async def test_one_of_many_attempts_at_once_handles_a_message(url, messages):
    """Of twenty attempts that come together, on two workers, one is to handle it and the others see it at work."""
    other = SqlStore(url, SANDBOX)
    await other.open()
    workers = {"w": messages, "v": SqlMessages(other)}

    claims = await asyncio.gather(*(claim(workers["wv"[turn % 2]], by="wv"[turn % 2]) for turn in range(20)))
    await other.close()

    assert Counter(each.standing for each in claims) == {Standing.NEW: 1, Standing.RUNNING: 19}


async def test_what_was_done_is_not_done_again(messages):
    """The sender's next attempt, signed anew, hears that it was done; a copy of an earlier one is a replay."""
    await messages.finish(await claim(messages), done=True)

    assert (await claim(messages)).standing is Standing.REPLAYED
    assert (await claim(messages, signed_at=SIGNED + 5)).standing is Standing.DONE
    assert (await claim(messages, signed_at=SIGNED + 5)).standing is Standing.REPLAYED
    assert (await claim(messages, signed_at=SIGNED + 1)).standing is Standing.REPLAYED


async def test_what_failed_is_handled_anew(messages):
    """A message whose handler failed is as new at the next attempt, on any worker."""
    await messages.finish(await claim(messages), done=False)

    assert (await claim(messages, by="v")).standing is Standing.NEW


async def test_what_a_dead_worker_was_at_is_nobodys(store, messages):
    """The claim of a worker that has left holds nobody up, and its late end changes nothing."""
    late = await claim(SqlMessages(store), by="v")
    await store.leave("v")
    again = await claim(messages)
    await messages.finish(late, done=False)

    assert again.standing is Standing.NEW
    assert (await claim(SqlMessages(store), by="v")).standing is Standing.RUNNING


async def test_an_end_that_could_not_be_written_holds_nobody_up(store, messages):
    """A failed attempt whose row could not be removed counts as free in its own process."""
    first = await claim(messages)
    async with store.begin() as connection:
        await connection.execute(sa.text("ALTER TABLE autumn_messages RENAME TO autumn_messages_away"))
    with pytest.raises(MessagesAwayError):
        await messages.finish(first, done=False)
    async with store.begin() as connection:
        await connection.execute(sa.text("ALTER TABLE autumn_messages_away RENAME TO autumn_messages"))

    assert (await claim(messages)).standing is Standing.NEW


async def test_each_consumer_gets_a_message(messages):
    """Two services with an endpoint each handle a message once each, although its id is the same."""
    await messages.finish(await claim(messages), done=True)

    assert (await claim(messages, consumer="other")).standing is Standing.NEW


async def test_old_ids_are_forgotten(store):
    """Rows go a month after their message, so that the table does not grow for ever."""
    machine = FakeMachine()
    messages = SqlMessages(store, machine=machine)
    await messages.finish(await claim(messages), done=True)
    later = SqlMessages(store, machine=machine)
    await claim(later, "msg_2", now=NOW + LIFETIME_MS)

    async with store.connect() as connection:
        assert (await connection.execute(sa.select(table.c.key))).scalars().all() == ["hooks:msg_2"]
