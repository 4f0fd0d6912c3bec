"""What a use sets off besides: usage alerts, limits that were reached, and automatic top-ups.

All are told to webhooks, which the emulator does not call: it keeps what it would send (`Emulator.messages`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator.books import _controls
from fastapi_autumn.emulator.books._balances import LimitType, available, limit_reached
from fastapi_autumn.emulator.books._clock import SECOND, add_interval, calendar_start
from fastapi_autumn.emulator.books._customer import Customer
from fastapi_autumn.emulator.books._entitlements import ZERO, Entitlement, Limits, Move, amount, number, slots_of
from fastapi_autumn.emulator.books._grants import buy_more
from fastapi_autumn.emulator.http._call import Call
from fastapi_autumn.emulator.routes._metering import Meter

_COOLDOWN = 30 * SECOND
_HUNDRED = Decimal(100)
# Whether anything at all can be used is asked with less than anybody uses.
_NEXT_TO_NOTHING = Decimal("1e-7")


@dataclass(slots=True, frozen=True)
class _Level:
    """How much of a feature is granted and left at one moment: `left` less what is owed, `remaining` not."""

    granted: Decimal
    left: Decimal
    remaining: Decimal

    @classmethod
    def of(cls, customer: Customer, feature_id: str, entity_id: str | None) -> _Level:
        slots = slots_of(customer.metered([feature_id]), entity_id)
        rollovers = [left for slot in slots for left in slot.rollovers]
        granted = sum((slot.entitlement.allotted for slot in slots), ZERO)
        granted += sum((left.balance + left.used for left in rollovers), ZERO)
        left = sum((slot.balance for slot in slots), ZERO) + sum((left.balance for left in rollovers), ZERO)
        return cls(granted, left, available(slots))

    def measure(self, kind: str) -> Decimal | None:
        """Say how much is used or remains, in units or in per cent of what is granted; None for parts of nothing."""
        value = self.remaining if kind.startswith("remaining") else self.granted - self.left
        if not kind.endswith("percentage"):
            return value
        return value * _HUNDRED / self.granted if self.granted > 0 else None


@dataclass(slots=True, frozen=True)
class Watch:
    """What was there before a use, to compare with what is there afterwards."""

    meter: Meter
    levels: dict[tuple[str, str | None], _Level]
    usable: frozenset[str]
    """The features of which something could be used."""

    @classmethod
    def of(cls, meter: Meter) -> Watch:
        """Look at all balances that may pay. Levels are looked at where an alert or a top-up is set: hardly ever."""
        call, customer = meter.call, meter.customer
        levels = {}
        if _controls.has_controls(customer, call.catalog):
            levels = {
                (key, scope): _Level.of(customer, key, scope)
                for key in meter.costs
                for scope in dict.fromkeys((None, meter.entity_id))
                if _controls.alerts(customer, call.catalog, key, scope) or (scope is None and _top_up_of(meter, key))
            }
        return cls(meter, levels, frozenset(key for key in meter.costs if _limit(meter, key) is None))

    def react(self, moves: Sequence[Move]) -> bool:
        """Tell what was crossed or reached, and buy what runs low; True if the customer has more now."""
        call, customer = self.meter.call, self.meter.customer
        for (key, scope), earlier in self.levels.items():
            now = _Level.of(customer, key, scope)
            for alert in _controls.alerts(customer, call.catalog, key, scope):
                if _crossed(alert, earlier, now):
                    said = {name: alert[name] for name in ("name", "threshold", "threshold_type") if name in alert}
                    self._tell("balances.usage_alert_triggered", key, scope, {"usage_alert": said})
        owners = {held.id: held.feature_id for held in customer.entitlements}
        for key in dict.fromkeys(owners[move.entitlement_id] for move in moves):
            limit = _limit(self.meter, key)
            if key in self.usable and limit is not None:
                told = {"limit_type": limit} | _filter(self.meter, key, limit)
                self._tell("balances.limit_reached", key, self.meter.entity_id, told)
        bought = [buy_what_runs_low(self.meter, key) for key, scope in self.levels if scope is None]
        return any(bought)

    def _tell(self, kind: str, feature_id: str, entity_id: str | None, told: Document) -> None:
        data: Document = {"customer_id": self.meter.customer.id, "feature_id": feature_id}
        self.meter.call.store.put_message(kind, data | ({"entity_id": entity_id} if entity_id else {}) | told)


def runs_low(meter: Meter, feature_id: str) -> bool:
    """Tell whether a top-up is set for a feature, and what is left is down to its threshold."""
    control = _top_up_of(meter, feature_id)
    return control is not None and _Level.of(meter.customer, feature_id, None).left <= amount(control["threshold"])


def buy_what_runs_low(meter: Meter, feature_id: str) -> bool:
    """Buy a feature once more if it runs low; True if the customer has more now."""
    control = _top_up_of(meter, feature_id)
    return control is not None and runs_low(meter, feature_id) and _top_up(meter, feature_id, control)


def _top_up_of(meter: Meter, feature_id: str) -> Document | None:
    """Find the top-up that is set for a feature, if it is switched on."""
    found = _controls.in_force(meter.customer, meter.call.catalog, "auto_topups", feature_id, None)
    return next((control for control in found if control["enabled"]), None)


def _limit(meter: Meter, feature_id: str) -> LimitType | None:
    """Say what ends the use of a balance now. Limits on other features than its own are not looked at."""
    limits = meter.limits
    if limits.windows:
        mine = [window for window in limits.windows if window.feature_id == feature_id]
        limits = Limits(limits.overage_allowed, limits.spend, mine, limits.allocated)
    return limit_reached(meter.slots, feature_id, _NEXT_TO_NOTHING, limits)


def _filter(meter: Meter, feature_id: str, limit: LimitType) -> Document:
    """Name the filter of the usage limit that was reached, if it has one."""
    if limit != "usage_limit":
        return {}
    reached = {window.key for window in meter.limits.windows if window.feature_id == feature_id and window.left == 0}
    items = _controls.in_force(meter.customer, meter.call.catalog, "usage_limits", feature_id, meter.entity_id)
    found = [item for item in items if _controls.window_key(item) in reached and item.get("filter")]
    return {"filter": found[0]["filter"]} if found else {}


def _crossed(alert: Document, before: _Level, after: _Level) -> bool:
    kind, threshold = alert["threshold_type"], amount(alert["threshold"])
    earlier, now = before.measure(kind), after.measure(kind)
    if earlier is None or now is None:
        return False
    return earlier > threshold >= now if kind.startswith("remaining") else earlier < threshold <= now


def _top_up(meter: Meter, feature_id: str, control: Document) -> bool:
    """Buy one more time what was bought once in advance, with the card that the customer left."""
    call, customer = meter.call, meter.customer
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
    buy_more(customer, held, quantity)
    after = _Level.of(customer, feature_id, None).left
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


def _price(held: Entitlement, quantity: Decimal) -> int | float:
    price = held.price or {}
    return number(quantity / amount(price.get("billing_units") or 1) * amount(price.get("amount") or 0))
