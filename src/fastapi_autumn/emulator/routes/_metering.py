"""What check, track and finalize share: finding who pays, moving credits, and writing the event."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator._errors import ApiError
from fastapi_autumn.emulator.books import _controls, _lifecycle
from fastapi_autumn.emulator.books._balances import OverageBehavior, deduct, in_order, is_allowed, settle
from fastapi_autumn.emulator.books._customer import Customer
from fastapi_autumn.emulator.books._entitlements import ZERO, Limits, Move, Slot, amount, number, slots_of
from fastapi_autumn.emulator.http import _customers, _log, _shapes
from fastapi_autumn.emulator.http._call import Call

OVERAGE_BEHAVIORS = ("cap", "reject", "overflow")


def customer_of(call: Call, customer_id: str | None) -> Customer:
    """Return a customer as of now, or raise the 404."""
    return caught_up(call, _customers.load(call.store, customer_id))


def caught_up(call: Call, found: Customer) -> Customer:
    """Return a customer with everything done that fell due since the last look."""
    if not _lifecycle.catch_up(call.catalog, found, call.now):
        return found
    # This call may only hold a read: what fell due is written under the lock, from the newest state.
    with call.store.transaction():
        newest = _customers.load_number(call.store, found.number) or found
        _lifecycle.catch_up(call.catalog, newest, call.now)
        _customers.save(call.store, newest)
    return newest


def create_customer(call: Call, customer_id: str | None, data: Document) -> Customer:
    """Make a customer, with the plans that are enabled automatically."""
    created = Customer(
        number=0,
        id=customer_id,
        created_at=call.now,
        name=data.get("name"),
        email=data.get("email"),
        fingerprint=data.get("fingerprint"),
        stripe_id=data.get("stripe_id"),
        metadata=data.get("metadata") or {},
        send_email_receipts=bool(data.get("send_email_receipts")),
        billing_controls=data.get("billing_controls") or {},
    )
    with call.store.transaction():
        _customers.save(call.store, created)
        _lifecycle.create(call.catalog, created, call.now)
        _customers.save(call.store, created)
    return created


def customer_or_new(call: Call, customer_id: str, data: Any) -> Customer:
    """Return a customer; before API 2.1 a customer who is not there is created."""
    try:
        return customer_of(call, customer_id)
    except ApiError as error:
        if call.version >= (2, 1, 0) or error.code != "customer_not_found":
            raise
    return create_customer(call, customer_id, data if isinstance(data, dict) else {})


@dataclass(slots=True)
class Meter:
    """One feature of one customer (or entity) at one moment: who pays for it, and what a unit costs there."""

    call: Call
    customer: Customer
    feature_id: str
    entity_id: str | None
    costs: dict[str, Decimal]
    limits: Limits
    slots: list[Slot]
    """What pays, in the order in which it is used. It shows the balances as they are, and not as they were."""

    @classmethod
    def of(
        cls,
        call: Call,
        customer: Customer,
        feature_id: str,
        entity_id: str | None = None,
        properties: Document | None = None,
    ) -> Meter:
        """Look at a feature that the catalog has, for an event with some properties."""
        costs = call.catalog.costs[feature_id]
        limits = _controls.limits(
            customer, call.catalog, call.now, feature_ids=costs, entity_id=entity_id, properties=properties
        )
        slots = in_order(
            slots_of(customer.metered(costs), entity_id),
            credit_systems=call.catalog.credit_systems - {feature_id},
            entity_id=entity_id,
        )
        return cls(call, customer, feature_id, entity_id, costs, limits, slots)

    def evaluated(self, units: Decimal) -> str:
        """Choose whose balance a check looks at: the feature's own if it covers the amount, else a credit system's.

        Autumn compares the amount as it was sent here, without the credit cost.
        """
        slots = self.slots
        systems = [key for key in self.costs if key != self.feature_id]
        if not systems or is_allowed(slots, self.feature_id, units, self.limits):
            return self.feature_id
        for key in systems:
            if is_allowed(slots, key, units, self.limits, self.costs[key]):
                return key
        owned = {slot.entitlement.feature_id for slot in slots}
        return next((key for key in systems if key in owned), systems[0])

    def moved(self, moves: Sequence[Move]) -> str:
        """Choose whose balance is shown after a use: the one that something was taken from, else a credit system's."""
        held = {item.id: item for item in self.customer.entitlements}
        unlimited = {item.feature_id for item in self.customer.metered(self.costs) if item.unlimited}
        taken: dict[str, Decimal] = {}
        for move in moves:
            if move.rollover_id is None:
                key = held[move.entitlement_id].feature_id
                taken[key] = taken.get(key, ZERO) + move.credits
        for key in self.costs:
            if key in unlimited:
                return key
        for key in self.costs:
            if taken.get(key, ZERO) > 0:
                return key
        return next((key for key in self.costs if key != self.feature_id), self.feature_id)

    def allows(self, feature_id: str, units: Decimal) -> bool:
        """Tell whether the balance of a feature covers the amount."""
        cost = self.costs[feature_id]
        return is_allowed(self.slots, feature_id, units * cost, self.limits, cost)

    def move(self, units: Decimal, behavior: OverageBehavior) -> list[Move]:
        """Take or give back, and count it towards the usage limits."""
        moves = deduct(self.slots, units, costs=self.costs, limits=self.limits, behavior=behavior)
        _controls.count_usage(self.customer, self.limits.windows)
        return moves

    def settle(self, held: Sequence[Move], final_units: Decimal) -> list[Move]:
        """Turn a hold into a use of `final_units`, and count it towards the usage limits or back."""
        undone, moves = settle(self.slots, held, final_units=final_units, costs=self.costs, limits=self.limits)
        _controls.uncount_usage(self.customer, self.limits.windows, undone)
        _controls.count_usage(self.customer, self.limits.windows)
        return undone + moves

    def balance(self, feature_id: str, *, expand: bool = False) -> Document | None:
        """Show the balance of a feature."""
        return _shapes.balance(self.call.catalog, self.customer, feature_id, entity_id=self.entity_id, expand=expand)

    def balances(self) -> Document | None:
        """Show the balances of the feature and of its credit systems; None where there are no such systems."""
        if len(self.costs) == 1:
            return None
        return {key: self.balance(key) for key in self.costs}

    def in_shown_units(self, feature_id: str, units: Decimal) -> float:
        """Express an amount in the units of the balance that is shown."""
        return number(rounded_input(units * self.costs[feature_id]))


def rounded_input(value: Decimal) -> Decimal:
    """Echo an amount as it was sent, without the zeros that a multiplication leaves."""
    return value.normalize() if value else ZERO


def save(call: Call, customer: Customer) -> None:
    """Write a customer back."""
    _customers.save(call.store, customer)


def record_event(
    call: Call,
    customer: Customer,
    feature_id: str,
    value: Decimal,
    moves: Sequence[Move],
    *,
    properties: Document | None = None,
    entity_id: str | None = None,
    timestamp: int | None = None,
) -> None:
    """Write an event: the value that was asked for, and what really moved."""
    moved = _shapes.deductions(customer, moves)
    row = call.store.insert(
        "INSERT INTO events (id, timestamp, customer, entity_id, feature_id, value, properties, deductions) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        call.store.new_id("evt"), call.now if timestamp is None else timestamp, customer.number, entity_id, feature_id,
        str(number(value)), json.dumps(properties or {}), json.dumps(moved) if moved else None,
    )  # fmt: skip
    if call.event_quiet_ms:
        _log.wait(call.store, row, now=call.now, quiet_ms=call.event_quiet_ms)


def units_of(value: float | None, default: int = 1) -> Decimal:
    """Read an amount from a request."""
    return amount(default if value is None else value)
