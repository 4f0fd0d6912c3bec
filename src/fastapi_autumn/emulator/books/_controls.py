"""Billing controls: limits that an entity, a customer or a plan sets on use and on overage.

For each feature an entity's own entry goes before the customer's, that before the ones of the plans; where several
plans limit the same feature, the tightest limit counts. Usage limits with different filters are different limits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator.books._catalog import Catalog
from fastapi_autumn.emulator.books._clock import calendar_start, window_start
from fastapi_autumn.emulator.books._customer import Customer
from fastapi_autumn.emulator.books._entitlements import ZERO, Limits, Move, Window, amount, number


def limits(
    customer: Customer,
    catalog: Catalog,
    now: int,
    *,
    feature_ids: Iterable[str],
    entity_id: str | None = None,
    properties: Document | None = None,
) -> Limits:
    """Return what bounds the use of some features at this moment, by an event with these properties."""
    allocated = frozenset(key for key in feature_ids if not catalog.features[key]["consumable"])
    if not has_controls(customer, catalog):
        return Limits(allocated=allocated)
    overage: dict[str, bool] = {}
    spend: dict[str, Decimal] = {}
    windows: list[Window] = []
    for key in feature_ids:
        for item in in_force(customer, catalog, "overage_allowed", key, entity_id):
            overage[key] = item["enabled"]
        for item in in_force(customer, catalog, "spend_limits", key, entity_id):
            limit = _spend_limit(customer, item)
            if item["enabled"] and limit is not None:
                spend[key] = limit
        for item in in_force(customer, catalog, "usage_limits", key, entity_id):
            if item["enabled"] and _fits(item, properties):
                period = _period(customer, catalog, item, now)
                left = max(ZERO, amount(item["limit"]) - window_usage(customer, catalog, item, now))
                windows.append(Window(window_key(item), key, key in catalog.credit_systems, period, left))
    return Limits(overage, spend, windows, allocated)


def window_usage(customer: Customer, catalog: Catalog, limit: Document, now: int) -> Decimal:
    """Return what was used of a feature since the window of a usage limit began."""
    window = customer.windows.get(window_key(limit))
    if window is None or window["period"] != _period(customer, catalog, limit, now):
        return ZERO
    return amount(window["used"])


def count_usage(customer: Customer, windows: Iterable[Window]) -> None:
    """Keep what was taken from the windows of usage limits. Giving back by a negative use gives nothing back here."""
    for window in windows:
        _add_to_window(customer, window, window.used)


def uncount_usage(customer: Customer, windows: Iterable[Window], undone: Sequence[Move]) -> None:
    """Give back to the windows what was undone of a hold, down to zero."""
    held = {item.id: item.feature_id for item in customer.entitlements}
    for window in windows:
        back = [
            move.credits if window.of_balance else move.units
            for move in undone
            if not window.of_balance or held[move.entitlement_id] == window.feature_id
        ]
        _add_to_window(customer, window, min(ZERO, sum(back, ZERO)))


def shown(customer: Customer, catalog: Catalog, now: int, entity: Document | None = None) -> Document:
    """Show a customer's or an entity's controls as the API does: with what was used of each usage limit."""
    own = customer.billing_controls if entity is None else entity.get("billing_controls") or {}
    source = {"source": "customer"} if entity is None else {}
    found: Document = {kind: [item | source for item in items] for kind, items in own.items()}
    for item in found.get("usage_limits") or []:
        scoped = item if entity is None else item | {"entity_id": entity["id"]}
        usage = window_usage(customer, catalog, scoped, now)
        item["usage"] = int(usage) if usage == int(usage) else float(usage)
    return found


def has_controls(customer: Customer, catalog: Catalog) -> bool:
    """Whether anything is set anywhere; for nearly every customer nothing is."""
    return bool(
        customer.billing_controls
        or any(entity.get("billing_controls") for entity in customer.entities)
        or any(True for _ in _of_plans(customer, catalog))
    )


def in_force(customer: Customer, catalog: Catalog, kind: str, feature_id: str, entity_id: str | None) -> list[Document]:
    """List the entries for a feature that count: one, or one for each filter."""
    sources: list[Iterable[Document]] = [customer.billing_controls.get(kind) or ()]
    if entity_id is not None:
        own = _of_entity(customer, entity_id).get(kind) or ()
        sources.insert(0, [item | {"entity_id": entity_id} for item in own])
    found: dict[str, Document] = {}
    for items in sources:
        for item in items:
            if item.get("feature_id") == feature_id:
                found.setdefault(_filter_key(item), item)
    of_plans: dict[str, Document] = {}
    for controls in _of_plans(customer, catalog):
        for item in controls.get(kind) or ():
            key = _filter_key(item)
            counts = item.get("feature_id") == feature_id
            if counts and (key not in of_plans or _is_tighter(customer, kind, item, of_plans[key])):
                of_plans[key] = item
    return [*found.values(), *(item for key, item in of_plans.items() if key not in found)]


def alerts(customer: Customer, catalog: Catalog, feature_id: str, entity_id: str | None) -> list[Document]:
    """List the usage alerts on a feature, of an entity, or else of the customer and their plans: all of them count.

    One that names no feature is about every one.
    """
    if entity_id is not None:
        sources = [_of_entity(customer, entity_id)]
    else:
        sources = [customer.billing_controls, *_of_plans(customer, catalog)]
    return [
        alert
        for controls in sources
        for alert in controls.get("usage_alerts") or ()
        if alert["enabled"] and alert.get("feature_id") in (None, feature_id)
    ]


def _of_entity(customer: Customer, entity_id: str) -> Document:
    """Return an entity's own controls; none where it is gone, since a hold may outlive the entity that took it."""
    found = next((entity for entity in customer.entities if entity["id"] == entity_id), {})
    return found.get("billing_controls") or {}


def window_key(limit: Document) -> str:
    """Name the counter of a usage limit: one for each feature, filter and entity."""
    return f"{limit['feature_id']}|{_filter_key(limit)}|{limit.get('entity_id', '')}"


def _filter_key(item: Document) -> str:
    wanted = (item.get("filter") or {}).get("properties") or {}
    return "&".join(f"{key}={text_of(value)}" for key, value in sorted(wanted.items()))


def _fits(limit: Document, properties: Document | None) -> bool:
    """Whether a usage limit counts an event with these properties: all those of its filter have to be the same."""
    wanted = (limit.get("filter") or {}).get("properties") or {}
    found: Mapping[str, Any] = properties or {}
    return all(key in found and text_of(found[key]) == text_of(value) for key, value in wanted.items())


def text_of(value: object) -> str:
    """Write a property as it is compared: true and false as in JSON, and 1.0 as the 1 that it is there."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(number(value) if isinstance(value, float) else value)


def _period(customer: Customer, catalog: Catalog, limit: Document, now: int) -> str:
    """Name the window around `now`, which is in step with the balance's own resets, or with the calendar (UTC)."""
    interval = limit["interval"]
    anchor = None if limit.get("anchor") == "utc" else _anchor(customer, catalog, limit["feature_id"])
    start = calendar_start(interval, now) if anchor is None else window_start(anchor, interval, now)
    return f"{interval} {start}"


def _anchor(customer: Customer, catalog: Catalog, feature_id: str) -> int | None:
    """Find the reset that the windows of a feature follow: of its own balance, else of one that pays for it."""
    paying = list(catalog.costs.get(feature_id, ()))
    held = sorted(
        customer.metered(paying), key=lambda item: (paying.index(item.feature_id), item.add_on, item.created_at)
    )
    for item in held:
        if item.next_reset_at is not None:
            return item.next_reset_at
        plan = next((plan for plan in customer.plans if plan.id == item.product_id), None)
        if plan is not None and plan.period_end is not None:
            return plan.period_end
    return None


def _add_to_window(customer: Customer, window: Window, units: Decimal) -> None:
    if units:
        kept = customer.windows.get(window.key)
        used = amount(kept["used"]) if kept is not None and kept["period"] == window.period else ZERO
        customer.windows[window.key] = {"period": window.period, "used": str(max(ZERO, used + units))}


def _of_plans(customer: Customer, catalog: Catalog) -> Iterable[Document]:
    active = [attached for attached in customer.plans if attached.status == "active"]
    for attached in sorted(active, key=lambda attached: -attached.started_at):
        for plan in catalog.versions.get(attached.plan_id, []):
            if plan["version"] == attached.version and plan["billing_controls"]:
                yield plan["billing_controls"]


_DAYS = {"day": 1, "week": 7, "month": 30, "year": 365}


def _is_tighter(customer: Customer, kind: str, one: Document, other: Document) -> bool:
    """Compare what two plans say: one that is switched on counts before one that is not, then the lower limit.

    What is no limit is the newest plan's.
    """
    if kind == "auto_topups":
        return False
    if kind == "overage_allowed":
        return bool(other["enabled"] and not one["enabled"])
    if one["enabled"] != other["enabled"]:
        return bool(one["enabled"])
    if kind == "usage_limits":
        return bool(one["limit"] / _DAYS[one["interval"]] < other["limit"] / _DAYS[other["interval"]])
    endless = Decimal("Infinity")
    limits = [_spend_limit(customer, item) for item in (one, other)]
    mine, theirs = (endless if limit is None else limit for limit in limits)
    return mine < theirs


def _spend_limit(customer: Customer, item: Document) -> Decimal | None:
    """Return how much overage a limit allows; a percentage is one of what the main plans include, if they do."""
    if item.get("overage_limit") is None:
        return None
    limit = amount(item["overage_limit"])
    if item.get("limit_type") != "usage_percentage":
        return limit
    once = {plan.id for plan in customer.plans if plan.one_off}
    included = [
        held.included
        for held in customer.metered([item["feature_id"]])
        if held.product_id is not None and not held.add_on and held.product_id not in once
    ]
    return sum(included, ZERO) * limit / 100 if any(included) else None
