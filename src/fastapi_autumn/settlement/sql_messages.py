"""Messages of webhooks in SQLite or PostgreSQL."""

import sqlalchemy as sa

from fastapi_autumn._machine import MACHINE, Machine
from fastapi_autumn.settlement._expiring import ExpiringRows
from fastapi_autumn.settlement._tables import messages, workers
from fastapi_autumn.settlement.messages import LIFETIME_MS, Claim, MessagesAwayError, Standing
from fastapi_autumn.settlement.sql import SqlStore

__all__ = ["SqlMessages"]


class SqlMessages(ExpiringRows):
    """See `Messages`. They live in the outbox's database, so that all workers share them."""

    table = messages
    away = MessagesAwayError

    def __init__(self, store: SqlStore, *, machine: Machine = MACHINE) -> None:
        super().__init__(store, machine=machine)
        # Attempts of this process that are at work. One whose end could not be written must not count as such.
        self._active: set[str] = set()

    async def claim(self, consumer: str, message_id: str, *, signed_at: int, worker_id: str, now: int) -> Claim:
        """See `Messages.claim`."""
        key, attempt_id = f"{consumer}:{message_id}", self._machine.new_id()
        mine: dict[str, object] = {
            "standing": "running",
            "attempt_id": attempt_id,
            "owner": worker_id,
            "signed_at": signed_at,
        }
        async with self._begin() as connection:
            await self._purge(connection, now)
            # Writing comes first: whoever is second waits here until it is decided who is first.
            values = {"key": key, "expires_at": now + LIFETIME_MS, **mine}
            insert = self._store.insert(messages).on_conflict_do_nothing().values(values)
            standing = Standing.NEW
            if not (await connection.execute(insert)).rowcount:
                row = (await connection.execute(_FOUND, {"wanted": key})).one()
                if row.standing == "done":
                    standing = Standing.DONE if signed_at > row.signed_at else Standing.REPLAYED
                elif row.owner_lives and (row.owner != worker_id or row.attempt_id in self._active):
                    standing = Standing.RUNNING
                if standing in {Standing.NEW, Standing.DONE}:
                    changed = mine if standing is Standing.NEW else {"signed_at": signed_at}
                    await connection.execute(messages.update().where(messages.c.key == key).values(changed))
        if standing is Standing.NEW:
            self._active.add(attempt_id)
        return Claim(key, attempt_id, standing)

    async def finish(self, claim: Claim, *, done: bool) -> None:
        """See `Messages.finish`."""
        self._active.discard(claim.attempt_id)
        mine = sa.and_(messages.c.key == claim.key, messages.c.attempt_id == claim.attempt_id)
        async with self._begin() as connection:
            if done:
                await connection.execute(messages.update().where(mine).values(standing="done"))
            else:
                await connection.execute(messages.delete().where(mine))


_FOUND = (
    sa.select(
        messages.c.standing,
        messages.c.attempt_id,
        messages.c.owner,
        messages.c.signed_at,
        sa.exists().where(workers.c.id == messages.c.owner).label("owner_lives"),
    )
    .where(messages.c.key == sa.bindparam("wanted"))
    .with_for_update(of=messages)
)
