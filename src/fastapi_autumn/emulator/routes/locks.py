"""Locks: credits that a check holds back, until balances.finalize confirms or releases them, or they expire."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator._errors import ApiError, invalid_inputs, invalid_request
from fastapi_autumn.emulator.books import _lifecycle
from fastapi_autumn.emulator.books._clock import DAY, HOUR
from fastapi_autumn.emulator.books._entitlements import ZERO, Move, amount
from fastapi_autumn.emulator.http import _customers
from fastapi_autumn.emulator.http._call import Call, Operation
from fastapi_autumn.emulator.http._validation import Fields
from fastapi_autumn.emulator.routes._metering import Meter, record_event, save
from fastapi_autumn.emulator.routes._reactions import Watch


@dataclass(slots=True, frozen=True)
class Lock:
    """A hold as asked for: its id, and when it is released by itself (None: never)."""

    id: str
    expires_at: int | None


def read(fields: Fields | None, now: int) -> Lock | None:
    """Read the `lock` of a check."""
    if fields is None:
        return None
    if fields.raw("enabled") is not True:
        fields.fail("enabled", "Invalid input: expected true")
    lock_id = fields.text("lock_id")
    if len(lock_id) > 256:  # noqa: PLR2004 - Autumn's limit
        fields.fail("lock_id", "Too big: expected string to have <=256 characters")
    expires_at = fields.time("expires_at")
    if expires_at is not None and expires_at > now + DAY:
        raise invalid_request("Lock expires_at cannot be more than 1 day from now")
    return Lock(lock_id, expires_at)


def refuse_taken(call: Call, lock: Lock) -> None:
    """Raise the 409 if a hold with this id stands. Ids are shared by all customers."""
    if call.store.row("SELECT 1 FROM locks WHERE id = ?", lock.id):
        raise ApiError(409, "lock_already_exists", "A lock with this ID already exists")


def keep(meter: Meter, lock: Lock, moves: Sequence[Move], properties: Document | None) -> None:
    """Keep the receipt of a hold: what was taken from where.

    A hold that has expired before it began (seconds sent as milliseconds, say) has no receipt: it can never be
    finalized and its credits stay taken. So it is at Autumn.
    """
    if lock.expires_at is not None and lock.expires_at <= meter.call.now:
        return
    receipt = {
        "feature_id": meter.feature_id,
        "entity_id": meter.entity_id,
        "moves": [asdict(move) for move in moves],
        "properties": properties or {},
    }
    meter.call.store.run(
        "INSERT INTO locks (id, customer, expires_at, receipt) VALUES (?, ?, ?, ?)",
        lock.id, meter.customer.number, lock.expires_at, json.dumps(receipt, default=str),
    )  # fmt: skip


def finalize(call: Call) -> Any:
    """Confirm a hold, with another amount if `override_value` is given, or release it."""
    fields = call.fields()
    lock_id = fields.text("lock_id")
    action = fields.choice("action", ("confirm", "release"), required=True)
    override = fields.number("override_value")
    properties = fields.mapping("properties")
    fields.check()
    if action == "release" and override is not None:
        raise invalid_inputs("override_value: override_value cannot be provided when action is release")
    row = call.store.row("SELECT customer, receipt FROM locks WHERE id = ?", lock_id)
    if row is None:
        # Asking for a lock that is not there leaves a claim on its id, and Autumn keeps it for an hour.
        call.store.claim("lock", lock_id, now=call.now, until=call.now + HOUR)
        raise invalid_request(f"Lock not found for ID: {lock_id}", keep_writes=True)
    if call.store.is_claimed("lock", lock_id, now=call.now):
        raise invalid_request("Lock receipt not claimable: RESERVATION_ALREADY_PROCESSING", status=409)
    final = ZERO if action == "release" else None if override is None else amount(override)
    _close(call, lock_id, row[0], json.loads(row[1]), final, properties=properties)
    return {"success": True}


def release_expired(call: Call) -> None:
    """Release every hold whose time is up, as Autumn's timer does.

    A hold under a claimed id cannot be closed by anybody, and neither by its timer: its credits stay taken.
    """
    rows = call.store.rows(
        "SELECT id, customer, receipt, expires_at FROM locks WHERE expires_at <= ? ORDER BY expires_at, id", call.now
    )
    for lock_id, number, receipt, expires_at in rows:
        if call.store.claim("lock", lock_id, now=expires_at, until=expires_at + HOUR):
            _close(call, lock_id, number, json.loads(receipt), ZERO, properties=None)
        else:
            call.store.run("UPDATE locks SET expires_at = NULL WHERE id = ?", lock_id)


def _close(
    call: Call, lock_id: str, number: int, receipt: Document, final: Decimal | None, *, properties: Document | None
) -> None:
    """Forget a hold and make it a use of `final` units; 0 gives everything back, None leaves it as it is."""
    call.store.run("DELETE FROM locks WHERE id = ?", lock_id)
    customer = _customers.load_number(call.store, number)
    moves = [
        Move(
            move["entitlement_id"],
            move["entity_id"],
            move["rollover_id"],
            amount(move["credits"]),
            amount(move["units"]),
        )
        for move in receipt["moves"]
    ]
    held = sum((move.units for move in moves), ZERO)
    if customer is None or final is None or final == held or receipt["feature_id"] not in call.catalog.costs:
        return
    _lifecycle.catch_up(call.catalog, customer, call.now)
    properties = receipt["properties"] if properties is None else properties
    meter = Meter.of(call, customer, receipt["feature_id"], receipt["entity_id"], properties)
    watch = Watch.of(meter)
    moved = meter.settle(moves, final)
    record_event(
        call,
        customer,
        receipt["feature_id"],
        final - held,
        moved,
        properties=properties,
        entity_id=receipt["entity_id"],
    )
    watch.react(moved)
    save(call, customer)


ROUTES = {("POST", "/v1/balances.finalize"): Operation("balances.finalize", finalize)}
