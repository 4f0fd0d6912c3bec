"""The database itself: how it is addressed, opened and brought to the newest version, and what it can keep."""

import asyncio
import os
import sqlite3
import stat
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
import sqlalchemy as sa

from fastapi_autumn.errors import ConfigurationError
from fastapi_autumn.settlement._engine import engine_for, path_of, read_url, touch
from fastapi_autumn.settlement._migrations import MIGRATIONS, Migration, migrate
from fastapi_autumn.settlement.sql import SqlStore
from fastapi_autumn.settlement.store import Ended, Opened
from settlement.entries import SANDBOX, a_batch, an_entry, rows

NEWEST = MIGRATIONS[-1].version
TODAY = [(migration.version, migration.oldest_code) for migration in MIGRATIONS]


def next_version(*, oldest_code=1):
    """The migrations of a later version of this package: a column more."""
    statement = "ALTER TABLE autumn_charges ADD COLUMN note TEXT NOT NULL DEFAULT ''"
    return (*MIGRATIONS, Migration(NEWEST + 1, lambda: [sa.text(statement)], oldest_code))


@asynccontextmanager
async def engine_of(url):
    parsed = read_url(url)
    if (path := path_of(parsed)) is not None:
        touch(path)
    engine = engine_for(parsed)
    try:
        yield engine
    finally:
        await engine.dispose()


async def upgrade(url, migrations=MIGRATIONS):
    async with engine_of(url) as engine, engine.begin() as connection:
        await migrate(connection, migrations)


async def versions(url):
    async with engine_of(url) as engine, engine.connect() as connection:
        found = await connection.execute(sa.text("SELECT version, oldest_code FROM autumn_schema ORDER BY version"))
        return [tuple(row) for row in found]


async def columns(url):
    async with engine_of(url) as engine, engine.connect() as connection:
        return await connection.run_sync(
            lambda sync: {column["name"] for column in sa.inspect(sync).get_columns("autumn_charges")}
        )


@asynccontextmanager
async def opened(url, **options):
    store = SqlStore(url, SANDBOX, **options)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


# Versions.


async def test_a_database_says_which_version_it_has(url):
    """An empty database is brought to the newest version; opening it again changes nothing."""
    for _ in range(2):
        async with opened(url):
            pass

    assert await versions(url) == TODAY


async def test_an_older_database_is_brought_forward(url):
    """What is in it stays, and what is new has its default."""
    async with opened(url) as store:
        await store.commit(a_batch("w", Opened(an_entry())))
    await upgrade(url, next_version())

    assert await versions(url) == [*TODAY, (NEWEST + 1, 1)]
    assert "note" in await columns(url)
    async with opened(url) as store:
        assert await rows(store) == {"w-1": ("open", an_entry())}


async def test_old_and_new_work_side_by_side(url):
    """During a rolling upgrade a worker that knows no newer column still writes, in a database that has it."""
    async with opened(url) as old:
        await upgrade(url, next_version())
        await old.commit(a_batch("old", Opened(an_entry("old-1"))))
        async with opened(url) as restarted:
            await restarted.commit(a_batch("restarted", Opened(an_entry("restarted-1"))))
            assert set(await rows(restarted)) == {"old-1", "restarted-1"}


async def test_a_newer_database_is_refused(url):
    """Code that would misread a database does not touch it, and says what to do."""
    await upgrade(url, next_version(oldest_code=NEWEST + 1))

    with pytest.raises(ConfigurationError, match=f"has version {NEWEST + 1}.*Upgrade fastapi-autumn here as well"):
        await SqlStore(url, SANDBOX).open()


async def test_any_number_of_workers_may_start_at_once(url):
    """Workers that start together on an empty database all find their tables."""
    stores = [SqlStore(url, SANDBOX) for _ in range(6)]
    await asyncio.gather(*(store.open() for store in stores))
    for number, store in enumerate(stores):
        await store.commit(a_batch(f"w{number}", Opened(an_entry(f"w{number}-1"))))

    assert len(await rows(stores[0])) == 6
    assert await versions(url) == TODAY
    for store in stores:
        await store.close()


async def test_any_number_of_workers_may_upgrade_at_once(url):
    """Each step is taken once, by whichever worker comes first; the others wait and find it done."""
    await upgrade(url)
    await asyncio.gather(*(upgrade(url, next_version()) for _ in range(6)))

    assert await versions(url) == [*TODAY, (NEWEST + 1, 1)]


async def test_an_upgrade_that_fails_leaves_nothing_behind(url):
    """A step is taken whole or not at all, so that it can be taken again."""
    broken = (*next_version(), Migration(NEWEST + 2, lambda: [sa.text("ALTER TABLE no_such_table ADD COLUMN x TEXT")]))
    await upgrade(url)
    with pytest.raises(sa.exc.DBAPIError):
        await upgrade(url, broken)

    assert await versions(url) == TODAY
    assert "note" not in await columns(url)
    await upgrade(url, next_version())


# What is kept.


async def test_what_no_database_can_store_is_made_storable(url):
    """NUL and half a surrogate pair, wherever they come from, do not keep the whole group from being written."""
    odd = an_entry("w-1", reason="model\0said \ud800", last_error="\0", customer_id="c" * 5000)
    strange = an_entry("w-2", customer_id="a\0b", entity_id="\udfff", feature_id="f\0")
    no_texts = an_entry("w-4", reason=ValueError("the model failed"), entity_id=UUID(int=7), customer_id=7)
    async with opened(url) as store:
        await store.commit(
            a_batch("w", Opened(odd), Ended(strange, owed=True), Opened(an_entry("w-3")), Opened(no_texts))
        )

        found = await rows(store)
    assert set(found) == {"w-1", "w-2", "w-3", "w-4"}
    assert (found["w-4"][1].reason, found["w-4"][1].customer_id) == ("the model failed", "7")
    assert (found["w-1"][1].reason, found["w-1"][1].customer_id) == ("model\ufffdsaid ?", "c" * 5000)


# Addresses.


@pytest.mark.parametrize(
    ("given", "driver", "query"),
    [
        ("postgres://u:p@h:5/d", "postgresql+asyncpg", {}),
        ("postgresql://u:p@h:5/d", "postgresql+asyncpg", {}),
        ("postgresql+asyncpg://u:p@h:5/d", "postgresql+asyncpg", {}),
        ("postgres://u:p@h:5/d?sslmode=require", "postgresql+asyncpg", {"ssl": "require"}),
        ("postgresql://u:p@h:5/d?sslmode=verify-full&application_name=a", "postgresql+asyncpg",
         {"ssl": "verify-full", "application_name": "a"}),
        ("sqlite:///some/outbox.db", "sqlite+aiosqlite", {}),
        ("sqlite+aiosqlite:///some/outbox.db", "sqlite+aiosqlite", {}),
    ],
)  # fmt: skip
def test_addresses_as_people_are_handed_them(given, driver, query):
    """Hosting platforms hand out `postgres://` and libpq's `sslmode`."""
    url = read_url(given)

    assert (url.drivername, dict(url.query)) == (driver, query)
    assert url.render_as_string(hide_password=False).partition("://")[2].startswith(given.partition("://")[2][:6])


@pytest.mark.postgres
async def test_such_an_address_connects(postgres):
    """`postgres://` with `sslmode=disable` reaches a real server."""
    url = (await postgres.create("as-handed-out")).replace("postgresql+asyncpg://", "postgres://")
    async with opened(f"{url}{'&' if '?' in url else '?'}sslmode=disable") as store:
        assert await rows(store) == {}


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("", "no database address"),
        ("outbox.db", "no database address"),
        ("mysql://user:password@host/name", "has to be SQLite or PostgreSQL, not mysql"),
        ("sqlite+aiosqlite:////proc/no/such/outbox.db", "cannot be opened"),
        ("postgresql://u:p-secret@127.0.0.1:9/x", "cannot be opened"),
    ],
)
async def test_an_address_that_cannot_work(bad, why):
    """It stops the start, with the name of the setting and without the password."""
    with pytest.raises(ConfigurationError, match=why) as refused:
        await SqlStore(bad).open()

    assert "AUTUMN_OUTBOX_URL" in str(refused.value)
    assert "p-secret" not in str(refused.value)


# The file.


async def test_the_file_is_for_nobody_else(tmp_path):
    """Customers' ids are in it, so the file and what SQLite puts beside it are readable by their owner alone."""
    before = os.umask(0)
    try:
        async with opened(f"sqlite+aiosqlite:///{tmp_path}/new/folder/outbox.db") as store:
            await store.commit(a_batch("w", Opened(an_entry())))
            modes = [stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "new" / "folder").iterdir()]
    finally:
        os.umask(before)

    assert modes == [0o600] * 3


async def test_a_database_of_the_first_version_is_left_alone(tmp_path):
    """Tables that an earlier version of this package made under other names stay as they are."""
    path = tmp_path / "outbox.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE autumn_outbox (charge_id TEXT)")
    connection.close()
    async with opened(f"sqlite+aiosqlite:///{path}") as store:
        assert await rows(store) == {}
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM autumn_outbox").fetchone() == (0,)
    connection.close()
