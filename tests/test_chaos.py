"""The chaos run, short: real processes, sockets and signals, and books that balance at the end."""

import pytest

from chaos.run import Plan, run
from postgres import Postgres

CALLS = 150

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]


async def test_books_balance_on_sqlite():
    """Workers die, pause and stop, Autumn's answers are odd, the file is locked: each call costs what it should."""
    result = await run(Plan("deduct", "sqlite", CALLS), None)

    assert result.books.balance, result.books.examples
    assert result.books.kept > CALLS / 4


@pytest.mark.postgres
async def test_books_balance_on_postgresql():
    """The same with holds, and a PostgreSQL that stops and starts."""
    server = Postgres()
    try:
        result = await run(Plan("hold", "postgresql", CALLS), server)
    finally:
        server.remove()

    assert result.books.balance, result.books.examples
    assert result.books.kept > CALLS / 4
