"""Rows under keys that are forgotten after a while, in the outbox's database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from fastapi_autumn._machine import MACHINE, Machine
from fastapi_autumn.settlement.sql import SqlStore

__all__ = ["ExpiringRows"]

_PURGE_SECONDS = 3600.0


class ExpiringRows:
    """What callers' keys and the messages of webhooks have in common. All workers share them."""

    table: ClassVar[sa.Table]
    away: ClassVar[type[Exception]]
    """Raised where the database cannot be asked, or told."""

    def __init__(self, store: SqlStore, *, machine: Machine = MACHINE) -> None:
        self._store = store
        self._machine = machine
        self._purged_at: float | None = None

    @asynccontextmanager
    async def _begin(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._store.begin() as connection:
                yield connection
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            # Without its text, which may hold the address of the database, with its password.
            raise self.away(type(error).__name__) from error

    async def _purge(self, connection: AsyncConnection, now: int) -> None:
        steady = self._machine.steady()
        if self._purged_at is None or steady - self._purged_at > _PURGE_SECONDS:
            self._purged_at = steady
            await connection.execute(self.table.delete().where(self.table.c.expires_at <= now))
