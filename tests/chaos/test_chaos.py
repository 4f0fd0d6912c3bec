"""The chaos run, short: real processes, sockets and signals, and books that balance at the end."""

import pytest

from chaos.run import run
from postgres import Postgres

CALLS = 400

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]


@pytest.mark.parametrize("settlement", ["deduct", "hold"])
async def test_books_balance_on_sqlite(settlement):
    """Workers die, Autumn fails in every way, the file is locked: each call costs what it should."""
    result = await run(settlement, "sqlite", calls=CALLS, seed=1, server=None)

    assert result.books.balance, result.books.examples
    assert result.books.kept > CALLS / 4


@pytest.mark.postgres
@pytest.mark.parametrize("settlement", ["deduct", "hold"])
async def test_books_balance_on_postgresql(settlement):
    """The same with a PostgreSQL that stops and starts."""
    server = Postgres()
    try:
        result = await run(settlement, "postgresql", calls=CALLS, seed=1, server=server)
    finally:
        server.remove()

    assert result.books.balance, result.books.examples
    assert result.books.kept > CALLS / 4
