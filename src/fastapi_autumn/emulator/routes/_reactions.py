"""What a use sets off besides: usage alerts, and automatic top-ups.

Both are told to webhooks, which the emulator does not call: it keeps what it would send (`Emulator.messages`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator.books import _controls
from fastapi_autumn.emulator.books._clock import SECOND, add_interval, calendar_start
from fastapi_autumn.emulator.books._customer import Customer
from fastapi_autumn.emulator.books._entitlements import ZERO, Entitlement, amount, number, slots_of
from fastapi_autumn.emulator.http._call import Call

_COOLDOWN = 30 * SECOND
_HUNDRED = Decimal(100)


@dataclass(slots=True, frozen=True)
class Level:
    """How much of a feature is granted and left, at one moment."""

    granted: Decimal
    left: Decimal

    def measure(self, kind: str) -> Decimal:
        """Say how much is used or left, in units or in per cent of what is granted."""
        value = self.left if kind.startswith("remaining") else self.granted - self.left
        if not kind.endswith("percentage"):
            return value
        return value * _HUNDRED / self.granted if self.granted else ZERO


def levels(call: Call, customer: Customer, feature_ids: Iterable[str], entity_id: str | None) -> dict[str, Level]:
    """Look at the features that an alert or a top-up is about; for nearly every customer at none."""
    kinds = ("usage_alerts", "auto_topups")
    return {
        key: _level(customer, key, entity_id)
        for key in feature_ids
        if any(_controls.in_force(customer, call.catalog, kind, key, entity_id) for kind in kinds)
    }


def react(call: Call, customer: Customer, before: dict[str, Level], entity_id: str | None) -> bool:
    """Tell alerts whose threshold was crossed, and buy what runs low; True if the customer has more now."""
    bought = False
    for key, earlier in before.items():
        now = _level(customer, key, entity_id)
        for alert in _controls.in_force(customer, call.catalog, "usage_alerts", key, entity_id):
            if alert["enabled"] and _crossed(alert, earlier, now):
                _tell_alert(call, customer, key, entity_id, alert)
        for top_up in _controls.in_force(customer, call.catalog, "auto_topups", key, None):
            if top_up["enabled"] and now.left <= amount(top_up["threshold"]):
                bought |= _top_up(call, customer, key, top_up)
    return bought


def _level(customer: Customer, feature_id: str, entity_id: str | None) -> Level:
    slots = slots_of(customer.metered([feature_id]), entity_id)
    rollovers = [left for slot in slots for left in slot.entitlement.rollovers]
    kept = sum((left.balance for left in rollovers), ZERO)
    granted = sum((slot.entitlement.allotted for slot in slots), ZERO)
    return Level(
        granted + sum((left.balance + left.used for left in rollovers), ZERO),
        sum((slot.balance for slot in slots), ZERO) + kept,
    )


def _crossed(alert: Document, before: Level, after: Level) -> bool:
    kind, threshold = alert["threshold_type"], amount(alert["threshold"])
    if kind.startswith("remaining"):
        return before.measure(kind) > threshold >= after.measure(kind)
    return before.measure(kind) < threshold <= after.measure(kind)


def _tell_alert(call: Call, customer: Customer, feature_id: str, entity_id: str | None, alert: Document) -> None:
    said = {key: alert[key] for key in ("name", "threshold", "threshold_type") if key in alert}
    data = {"customer_id": customer.id, "feature_id": feature_id, "usage_alert": said}
    call.store.put_message("balances.usage_alert_triggered", data | ({"entity_id": entity_id} if entity_id else {}))


def _top_up(call: Call, customer: Customer, feature_id: str, control: Document) -> bool:
    """Buy one more time what was bought once in advance, with the card that the customer left."""
    held = _bought_once(customer, feature_id)
    if held is None or not call.store.claim(
        "topup", f"{customer.number}:{feature_id}", now=call.now, until=call.now + _COOLDOWN
    ):
        return False
    quantity = amount(control["quantity"])
    told = {"customer_id": customer.id, "feature_id": feature_id, "threshold": control["threshold"]}
    invoice_mode = bool(control.get("invoice_mode"))
    reason = _refusal(call, customer, feature_id, control)
    if reason is not None:
        data = told | {"reason": reason, "quantity": control["quantity"], "invoice_mode": invoice_mode}
        call.store.put_message("billing.auto_topup_failed", data, occurred_at=call.now)
        return False
    _pay_down(customer, feature_id, quantity, held)
    after = _level(customer, feature_id, None).left
    invoice: Document = {"stripe_id": call.store.new_id("in"), "status": "paid", "total": _price(held, quantity)}
    invoice |= {"currency": "usd", "hosted_invoice_url": None}
    data = told | {"quantity_granted": control["quantity"], "balance_after": number(after)}
    data |= {"invoice_mode": invoice_mode, "invoice": invoice}
    call.store.put_message("billing.auto_topup_succeeded", data, occurred_at=call.now)
    return True


def _bought_once(customer: Customer, feature_id: str) -> Entitlement | None:
    """Find the balance that can be bought more of: of the plan that was bought last."""
    once = [
        held
        for held in customer.metered([feature_id])
        if held.interval == "one_off" and held.price is not None and held.price["billing_method"] == "prepaid"
    ]
    return max(once, key=lambda held: held.created_at, default=None)


def _refusal(call: Call, customer: Customer, feature_id: str, control: Document) -> str | None:
    """Say why nothing is bought, and count what is."""
    if not customer.has_card:
        return "missing_payment_method"
    limit = control.get("purchase_limit")
    if limit is None:
        return None
    key = f"auto_topup|{feature_id}"
    kept: Any = customer.windows.get(key)
    if kept is None or kept["until"] <= call.now:
        start = call.now if limit["interval"] in ("hour", "week") else calendar_start(limit["interval"], call.now)
        kept = {"count": 0, "until": add_interval(start, limit["interval"], int(limit["interval_count"]))}
    if kept["count"] >= limit["limit"]:
        return "purchase_limit_reached"
    customer.windows[key] = kept | {"count": kept["count"] + 1}
    return None


def _pay_down(customer: Customer, feature_id: str, quantity: Decimal, held: Entitlement) -> None:
    """Let what was bought pay for what is owed, and keep the rest."""
    held.prepaid += quantity
    left = quantity
    for other in customer.metered([feature_id]):
        paid = min(left, max(ZERO, -other.balance))
        other.balance += paid
        left -= paid
    held.balance += left


def _price(held: Entitlement, quantity: Decimal) -> int | float:
    price = held.price or {}
    return number(quantity / amount(price.get("billing_units") or 1) * amount(price.get("amount") or 0))
