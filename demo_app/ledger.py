"""One account of what a customer got, paid and was given back, put together from what Autumn says."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from fastapi_autumn.models import Balance, CustomerRecord, Event

__all__ = ["ledger"]


@dataclass
class Row:
    """One line: a charge with its refund, usage without a charge, a purchase, or a refill."""

    kind: str
    at: int
    name: str
    taken: Decimal = Decimal(0)
    """What was taken, in credits; what it came to is that without `back`."""
    back: Decimal = Decimal(0)
    given: Decimal | None = Decimal(0)
    """What a purchase added, in credits; None where that cannot be told, such as when a plan takes another's place."""
    charge_id: str | None = None
    reason: str | None = None
    after: Decimal | None = None
    """The balance after it; below 0 is overage. None where nobody can tell any more."""


def ledger(record: CustomerRecord, events: Sequence[Event], balance: Balance | None) -> list[dict[str, Any]]:
    """Return the rows, newest first. `events` are the newest ones of Autumn's log."""
    rows = [*_charges(events), *_purchases(record, balance)]
    if balance is not None:
        rows += _refill(record, balance)
    rows.sort(key=lambda row: row.at, reverse=True)
    _run_back(rows, None if balance is None or balance.unlimited else balance.granted - balance.usage)
    return [_shown(row) for row in rows]


def _charges(events: Iterable[Event]) -> Iterator[Row]:
    """Make one row of all events of a charge."""
    found: dict[str, Row] = {}
    for event in sorted(events, key=lambda event: event.timestamp):
        charge_id = event.properties.get("charge_id")
        row = found.setdefault(charge_id or event.id, Row("charge" if charge_id else "usage", event.timestamp, "usage"))
        row.charge_id = charge_id
        row.name = event.properties.get("model", row.name)
        row.reason = event.properties.get("reason", row.reason)
        if event.value < 0:
            row.back -= event.value
        else:
            row.taken += event.value
    yield from found.values()


def _purchases(record: CustomerRecord, balance: Balance | None) -> Iterator[Row]:
    for plan in record.subscriptions:
        if not plan.auto_enable and plan.started_at is not None:
            yield Row("plan", plan.started_at, plan.plan_id, given=None)
    bought = sorted((one for one in record.purchases if one.started_at), key=lambda one: one.started_at or 0)
    for number, one in enumerate(bought):
        grants = [part for part in (balance.breakdown if balance else ()) if part.plan_id == one.plan_id]
        of_the_plan = [other for other in bought if other.plan_id == one.plan_id]
        given = None
        if len(grants) == len(of_the_plan):
            part = grants[len([other for other in bought[:number] if other.plan_id == one.plan_id])]
            given = part.included_grant + part.prepaid_grant
        yield Row("purchase", one.started_at or 0, one.plan_id, given=given)


def _refill(record: CustomerRecord, balance: Balance) -> Iterator[Row]:
    """Make a row of the newest refill, unless it is the first month."""
    if balance.next_reset_at is None:
        return
    following = datetime.fromtimestamp(balance.next_reset_at / 1000, UTC)
    year, month = (following.year, following.month - 1) if following.month > 1 else (following.year - 1, 12)
    newest = following.replace(year=year, month=month, day=min(following.day, 28))
    at = int(newest.timestamp() * 1000)
    day = 86_400_000
    if record.created_at is not None and at > record.created_at + day:
        yield Row("refill", at, "a new month", given=None)


def _run_back(rows: Sequence[Row], balance: Decimal | None) -> None:
    for row in rows:
        row.after = balance
        if balance is None or row.given is None:
            balance = None
        else:
            balance += row.taken - row.back - row.given


def _shown(row: Row) -> dict[str, Any]:
    return {
        "kind": row.kind,
        "at": row.at,
        "name": row.name,
        "taken": float(row.taken),
        "cost": float(row.taken - row.back),
        "given": None if row.given is None else float(row.given),
        "charge_id": row.charge_id,
        "reason": row.reason,
        "after": None if row.after is None else float(row.after),
    }
