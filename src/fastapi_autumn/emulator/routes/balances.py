"""balances.create, .update, .delete and .recalculate: grants that come with no plan, and corrections."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator._errors import ApiError, invalid_inputs, invalid_request
from fastapi_autumn.emulator.books._balances import deduct, in_order, recalculate, set_total, set_used, used_of
from fastapi_autumn.emulator.books._clock import RESET_INTERVALS
from fastapi_autumn.emulator.books._customer import Customer
from fastapi_autumn.emulator.books._entitlements import ZERO, Slot, amount, slots_of
from fastapi_autumn.emulator.books._grants import entitlement
from fastapi_autumn.emulator.catalog._plans import read_reset, read_rollover
from fastapi_autumn.emulator.http._call import Call, Operation
from fastapi_autumn.emulator.http._validation import Fields
from fastapi_autumn.emulator.routes._metering import customer_of, save


def create(call: Call) -> Any:
    """Grant a balance by itself: `included_grant` credits or `unlimited`, with or without reset and expiry."""
    fields = call.fields()
    customer_id, feature_id = fields.known_id(), fields.text("feature_id")
    grant = fields.number("included_grant")
    unlimited = fields.boolean("unlimited")
    reset = read_reset(fields)
    expires_at = fields.time("expires_at")
    next_reset_at = fields.time("next_reset_at")
    entity_id = fields.string("entity_id", nullable=True)
    balance_id = fields.string("balance_id", nullable=True)
    rollover = read_rollover(fields)
    fields.check()
    customer = customer_of(call, customer_id)
    feature = call.catalog.feature(feature_id)
    if entity_id is not None:
        customer.entity(entity_id)
    _refuse_nonsense(feature, grant, reset, unlimited=unlimited)
    if grant is None and not unlimited and feature["type"] != "boolean":
        return {"success": True}
    if not feature["consumable"]:
        reset = None
    if reset is None and feature["consumable"] and not unlimited:
        reset = {"interval": "one_off"}
    item: Document = {"included": grant or 0, "unlimited": unlimited, "reset": reset, "price": None}
    if rollover:
        item["rollover"] = rollover
    held = entitlement(call.store.new_id("cus_ent"), feature, item, started_at=call.now, anchor=call.now)
    held.entity_id = entity_id
    held.expires_at = expires_at
    if balance_id:
        held.id = balance_id
    if next_reset_at is not None and held.next_reset_at is not None:
        held.next_reset_at = held.anchor = next_reset_at
    customer.entitlements.append(held)
    save(call, customer)
    return {"success": True}


def update(call: Call) -> Any:
    """Correct a balance: set `remaining` or `usage`, add to it, or change what it grants and when it ends."""
    fields = call.fields()
    customer_id, feature_id = fields.known_id(), fields.text("feature_id")
    remaining, usage = fields.number("remaining"), fields.number("usage")
    added, grant = fields.number("add_to_balance"), fields.number("included_grant")
    next_reset_at = fields.time("next_reset_at")
    expires_at = fields.time("expires_at")
    fields.check()
    if remaining is not None and usage is not None:
        raise invalid_request("Cannot provide both remaining and usage")
    customer = customer_of(call, customer_id)
    call.catalog.feature(feature_id)
    costs = call.catalog.costs[feature_id]
    own, paying = _slots(call, customer, fields, [feature_id]), _slots(call, customer, fields, costs)
    if not own and grant is not None:
        raise invalid_request(f"No balances to update for feature {feature_id}, customer {customer_id}", status=404)
    if remaining is not None:
        set_total(own, amount(remaining), costs)
    elif added is not None:
        # Adding goes the way of a refund: a feature that credits pay for gets credits.
        deduct(paying, -amount(added), costs=costs, behavior="set")
    if usage is not None:
        set_used(own, amount(usage), costs)
    if grant is not None:
        # What is granted changes, and not what is left of it: that is another field.
        own[0].entitlement.adjustment = amount(grant) - sum((slot.entitlement.included for slot in own), ZERO)
    if next_reset_at is not None:
        _move_reset(own, next_reset_at, f"feature {feature_id}, customer {customer_id}")
    if expires_at is not None:
        _move_expiry(own, expires_at, f"feature {feature_id}, customer {customer_id}")
    save(call, customer)
    return {"success": True}


def delete(call: Call) -> Any:
    """Take balances away: the one with `balance_id`, or all those of a feature. What was paid for stays."""
    fields = call.fields()
    customer_id = fields.known_id()
    feature_id, balance_id = fields.string("feature_id"), fields.string("balance_id")
    keep_use = fields.boolean("recalculate_balances")
    fields.check()
    if keep_use and feature_id is None:
        raise invalid_request("feature_id is required when recalculate_balances is true")
    if feature_id is None and balance_id is None:
        raise invalid_request("Must provide either feature_id or balance_id")
    customer = customer_of(call, customer_id)
    if feature_id is not None:
        call.catalog.feature(feature_id)
    meant = _slots(call, customer, fields, None if feature_id is None else [feature_id])
    if not meant:
        raise _not_found(feature_id, customer_id)
    if any(slot.entitlement.price is not None for slot in meant):
        raise invalid_request(
            f"Cannot delete paid balance for feature {feature_id} and customer {customer_id}", status=409
        )
    used = used_of(meant)
    gone = dict.fromkeys(slot.entitlement.id for slot in meant)
    first = meant[0].entitlement
    customer.entitlements = [held for held in customer.entitlements if held.id not in gone]
    if keep_use and feature_id is not None:
        if customer.metered([feature_id]) or used <= 0:
            # What was used of it is used all the same, and taken from the others, which may owe it.
            costs = call.catalog.costs[feature_id]
            deduct(_slots(call, customer, fields, costs, all_of_them=True), used, costs=costs, behavior="set")
        else:
            # Nobody is left to pay, so the balance itself stays: with nothing granted, and owing what was used.
            first.adjustment, first.balance, first.next_reset_at = -first.granted, -used, None
            customer.entitlements.append(first)
    save(call, customer)
    return {"success": True}


def redistribute(call: Call) -> Any:
    """Let the balances of a feature that are left pay for those that are overdrawn, each level within itself."""
    fields = call.fields()
    customer_id, feature_id = fields.known_id(), fields.text("feature_id")
    fields.check()
    customer = customer_of(call, customer_id)
    slots = _slots(call, customer, fields, [feature_id])
    if not slots:
        raise _not_found(feature_id, customer_id)
    for level in dict.fromkeys(slot.entitlement.entity_id for slot in slots):
        recalculate([slot for slot in slots if slot.entitlement.entity_id == level])
    save(call, customer)
    return {"success": True}


def _refuse_nonsense(feature: Document, grant: float | None, reset: Document | None, *, unlimited: bool) -> None:
    """Say what does not go together. Autumn answers these with 500."""
    if feature["type"] == "boolean":
        if grant is not None:
            raise invalid_inputs("included_grant: a boolean feature is granted without an amount")
    elif unlimited and reset is not None:
        raise invalid_inputs("reset: an unlimited balance has nothing to reset")
    elif grant is None and not unlimited and feature["type"] == "metered":
        raise invalid_inputs("included_grant: Either included_grant or unlimited must be provided")


def _move_reset(slots: Iterable[Slot], at: int, whose: str) -> None:
    """Let the balance that resets next do so at another time."""
    held = min((slot.entitlement for slot in slots), key=lambda held: held.next_reset_at or float("inf"), default=None)
    if held is None:
        raise invalid_request(f"No balances found for {whose}", status=404)
    if held.interval in (None, "one_off"):
        raise invalid_request(f"Cannot update next reset at for lifetime balance ({whose})")
    held.next_reset_at = held.anchor = at


def _move_expiry(slots: Iterable[Slot], at: int, whose: str) -> None:
    """Let the balance that ends first end at another time. One that resets has no end of its own."""
    held = min((slot.entitlement for slot in slots), key=lambda held: held.expires_at or float("inf"), default=None)
    if held is None:
        raise invalid_request(f"No balances found for {whose}", status=404)
    if held.interval not in (None, "one_off"):
        raise invalid_request(
            f"expires_at can only be set on one-off balances, not recurring balances (feature {held.feature_id})"
        )
    held.expires_at = at


def _not_found(feature_id: str | None, customer_id: str) -> ApiError:
    return invalid_request(f"Balance not found for feature {feature_id} and customer {customer_id}", status=404)


def _slots(
    call: Call,
    customer: Customer,
    fields: Fields,
    feature_ids: Iterable[str] | None,
    *,
    all_of_them: bool = False,
) -> list[Slot]:
    """List the slots that a correction means: of some features, an entity, an interval, or one balance.

    `all_of_them` looks at the features and the entity only.
    """
    entity_id = fields.string("entity_id", nullable=True)
    interval = fields.choice("interval", RESET_INTERVALS)
    balance_id = fields.string("balance_id", nullable=True)
    fields.check()
    if entity_id is not None:
        customer.entity(entity_id)
    held = [
        item
        for item in customer.entitlements
        if (feature_ids is None or item.feature_id in feature_ids)
        and not item.boolean
        and (all_of_them or interval in (None, item.interval))
        and (all_of_them or balance_id in (None, item.id))
    ]
    return in_order(slots_of(held, entity_id), credit_systems=call.catalog.credit_systems, entity_id=entity_id)


ROUTES = {
    ("POST", "/v1/balances.create"): Operation("balances.create", create),
    ("POST", "/v1/balances.update"): Operation("balances.update", update),
    ("POST", "/v1/balances.delete"): Operation("balances.delete", delete),
    ("POST", "/v1/balances.recalculate"): Operation("balances.recalculate", redistribute),
}
