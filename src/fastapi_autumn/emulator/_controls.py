"""Billing controls: limits that an entity, a customer or a plan sets on use and on overage.

An entity's own controls of a kind go before the customer's, those before the ones of the plans; where several plans
limit the same feature, the tightest limit counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from fastapi_autumn.emulator._catalog import Catalog
from fastapi_autumn.emulator._clock import window_start
from fastapi_autumn.emulator._customer import Customer
from fastapi_autumn.emulator._entitlements import ZERO, Limits, amount, slots_of
from fastapi_autumn.emulator._store import Document
from fastapi_autumn.emulator._validation import Fields

_WINDOWS = ("day", "week", "month", "year")


def read(fields: Fields, name: str = "billing_controls") -> Document | None:
    """Read billing controls; only the kinds that were sent."""
    controls = fields.object(name)
    if controls is None:
        return None
    readers = {
        "auto_topups": _read_auto_topup,
        "spend_limits": _read_spend_limit,
        "usage_limits": _read_usage_limit,
        "usage_alerts": _read_usage_alert,
        "overage_allowed": _read_overage,
    }
    return {kind: [one(item) for item in controls.objects(kind)] for kind, one in readers.items() if kind in controls}


def limits(customer: Customer, catalog: Catalog, now: int, entity_id: str | None = None) -> Limits:
    """Return what the controls allow at this moment."""
    found = {kind: _in_force(customer, catalog, kind, entity_id) for kind in _KINDS}
    if not any(found.values()):
        return Limits()
    spend: dict[str, Decimal] = {}
    for item in found["spend_limits"]:
        if item["enabled"] and "overage_limit" in item:
            _keep_least(spend, item["feature_id"], _spend_limit(customer, item))
    left: dict[str, Decimal] = {}
    for item in found["usage_limits"]:
        if item["enabled"]:
            room = max(ZERO, amount(item["limit"]) - window_usage(customer, item, now))
            _keep_least(left, item["feature_id"], room)
    overage = {item["feature_id"]: item["enabled"] for item in found["overage_allowed"]}
    return Limits(overage, spend, left)


def window_usage(customer: Customer, limit: Document, now: int) -> Decimal:
    """Return what was used of a feature since the window of a usage limit began."""
    window = customer.windows.get(limit["feature_id"])
    if window is None or window["start"] != window_start(customer.created_at, limit["interval"], now):
        return ZERO
    return amount(window["used"])


def count_usage(customer: Customer, catalog: Catalog, used: dict[str, Decimal], now: int) -> None:
    """Add to the windows of the usage limits; what is given back takes away, down to zero."""
    for limit in _in_force(customer, catalog, "usage_limits", None):
        amount_ = used.get(limit["feature_id"])
        if amount_:
            start = window_start(customer.created_at, limit["interval"], now)
            total = max(ZERO, window_usage(customer, limit, now) + amount_)
            customer.windows[limit["feature_id"]] = {"start": start, "used": str(total)}


_KINDS = ("spend_limits", "usage_limits", "overage_allowed")


def _in_force(customer: Customer, catalog: Catalog, kind: str, entity_id: str | None) -> list[Document]:
    sources: list[Document] = [customer.billing_controls]
    if entity_id is not None:
        sources.insert(0, customer.entity(entity_id).get("billing_controls") or {})
    for controls in sources:
        if controls.get(kind):
            return list(controls[kind])
    return [item for controls in _of_plans(customer, catalog) for item in controls.get(kind) or []]


def _of_plans(customer: Customer, catalog: Catalog) -> Iterable[Document]:
    for attached in customer.plans:
        for plan in catalog.versions.get(attached.plan_id, []):
            if plan["version"] == attached.version and plan["billing_controls"]:
                yield plan["billing_controls"]


def _keep_least(found: dict[str, Decimal], feature_id: str, value: Decimal) -> None:
    found[feature_id] = min(value, found.get(feature_id, value))


def _spend_limit(customer: Customer, item: Document) -> Decimal:
    limit = amount(item["overage_limit"])
    if item.get("limit_type") == "usage_percentage":
        slots = slots_of(customer.metered([item["feature_id"]]), None)
        return sum((slot.entitlement.granted for slot in slots), ZERO) * limit / 100
    return limit


def _given(item: Document) -> Document:
    return {key: value for key, value in item.items() if value is not None}


def _read_overage(fields: Fields) -> Document:
    return {"feature_id": fields.text("feature_id"), "enabled": fields.boolean("enabled")}


def _read_spend_limit(fields: Fields) -> Document:
    return _given(
        {
            "feature_id": fields.text("feature_id"),
            "enabled": fields.boolean("enabled"),
            "limit_type": fields.choice("limit_type", ("absolute", "usage_percentage")),
            "overage_limit": fields.number("overage_limit", least=0),
            "skip_overage_billing": fields.boolean("skip_overage_billing") or None,
        }
    )


def _read_usage_limit(fields: Fields) -> Document:
    return _given(
        {
            "feature_id": fields.text("feature_id"),
            "enabled": fields.boolean("enabled", default=True),
            "limit": fields.number("limit", required=True, least=0),
            "interval": fields.choice("interval", _WINDOWS, required=True),
            "anchor": fields.choice("anchor", ("billing_cycle", "utc")),
        }
    )


def _read_usage_alert(fields: Fields) -> Document:
    kinds = ("usage", "usage_percentage", "remaining", "remaining_percentage")
    return _given(
        {
            "feature_id": fields.string("feature_id"),
            "enabled": fields.boolean("enabled", default=True),
            "threshold": fields.number("threshold", required=True, least=0),
            "threshold_type": fields.choice("threshold_type", kinds, required=True),
            "name": fields.string("name"),
        }
    )


def _read_auto_topup(fields: Fields) -> Document:
    limit = fields.object("purchase_limit")
    return _given(
        {
            "feature_id": fields.text("feature_id"),
            "enabled": fields.boolean("enabled"),
            "threshold": fields.number("threshold", required=True),
            "quantity": fields.number("quantity", required=True, least=1),
            "purchase_limit": limit
            and {
                "interval": limit.choice("interval", ("hour", "day", "week", "month"), required=True),
                "interval_count": limit.number("interval_count", least=1) or 1,
                "limit": limit.number("limit", required=True, least=1),
            },
            "invoice_mode": fields.boolean("invoice_mode") or None,
        }
    )
