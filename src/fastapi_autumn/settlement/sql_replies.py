"""Callers' keys in SQLite or PostgreSQL."""

import json
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from fastapi_autumn.settlement._expiring import ExpiringRows
from fastapi_autumn.settlement._tables import replies, workers
from fastapi_autumn.settlement.replies import LIFETIME_MS, Attempt, Conflict, PaidCharge, RepliesAwayError, Standing

__all__ = ["SqlReplies"]

_NO_CHARGES = "[]"


class SqlReplies(ExpiringRows):
    """See `Replies`. They live in the outbox's database, so that all workers share them."""

    table = replies
    away = RepliesAwayError

    def new_attempt(self, key: str) -> Attempt:
        """See `Replies.new_attempt`."""
        return Attempt(key, self._machine.new_id())

    async def claim(self, attempt: Attempt, fingerprint: str, *, worker_id: str, now: int) -> Attempt | Conflict:
        """See `Replies.claim`."""
        key = attempt.key
        values = {
            "fingerprint": fingerprint,
            "standing": "running",
            "attempt_id": attempt.attempt_id,
            "owner": worker_id,
            "charges": _NO_CHARGES,
            "expires_at": now + LIFETIME_MS,
        }
        async with self._begin() as connection:
            await self._purge(connection, now)
            # Writing comes first: whoever is second waits here until it is decided who is first.
            insert = self._store.insert(replies).on_conflict_do_nothing().values(key=key, **values)
            if (await connection.execute(insert)).rowcount:
                return attempt
            row = (await connection.execute(_FOUND, {"wanted": key})).one()
            found = _judge(row, fingerprint, now=now)
            if isinstance(found, Conflict):
                return found
            # A day from the first attempt: whoever tries again and again does not keep a key for ever.
            if found:
                values |= {"standing": "retrying", "charges": row.charges, "expires_at": row.expires_at}
            await connection.execute(replies.update().where(replies.c.key == key).values(values))
            return replace(attempt, paid=found)

    async def release(self, attempt: Attempt) -> None:
        """See `Replies.release`."""
        mine = _is_of(attempt)
        async with self._begin() as connection:
            await connection.execute(replies.delete().where(mine, replies.c.charges == _NO_CHARGES))
            await connection.execute(replies.update().where(mine).values(standing="paid"))

    async def finish(self, attempt: Attempt, standing: Standing | None, charges: Sequence[PaidCharge]) -> None:
        """See `Replies.finish`."""
        mine = _is_of(attempt)
        written = json.dumps([[one.charge_id, str(one.credits), str(one.cost), one.what] for one in charges])
        async with self._begin() as connection:
            if standing is None:
                await connection.execute(replies.delete().where(mine))
            else:
                await connection.execute(
                    replies.update().where(mine).values({"standing": standing, "charges": written})
                )


def _is_of(attempt: Attempt) -> sa.ColumnElement[bool]:
    return sa.and_(replies.c.key == attempt.key, replies.c.attempt_id == attempt.attempt_id)


def _judge(row: Any, fingerprint: str, *, now: int) -> Conflict | tuple[PaidCharge, ...]:
    """Tell whether an attempt may begin although there is a row, and which charges pay for it."""
    if row.expires_at <= now:
        return ()
    if row.fingerprint != fingerprint:
        return Conflict.OTHER_REQUEST
    if row.standing == "answered":
        return Conflict.ALREADY_ANSWERED
    if row.standing != "paid" and row.owner_lives:
        return Conflict.IN_PROGRESS
    paid = json.loads(row.charges)
    return tuple(PaidCharge(name, Decimal(taken), Decimal(cost), *what) for name, taken, cost, *what in paid)


_FOUND = (
    sa.select(
        *(column for column in replies.columns if column.name != "key"),
        sa.exists().where(workers.c.id == replies.c.owner).label("owner_lives"),
    )
    .where(replies.c.key == sa.bindparam("wanted"))
    .with_for_update(of=replies)
)
