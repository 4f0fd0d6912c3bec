"""What goes over the wire: customers and balances in the shape of API 2.3.0, and the older shapes of a balance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator.books import _controls
from fastapi_autumn.emulator.books._balances import in_order
from fastapi_autumn.emulator.books._catalog import Catalog, is_free
from fastapi_autumn.emulator.books._customer import AttachedPlan, Customer
from fastapi_autumn.emulator.books._entitlements import (
    ZERO,
    Entitlement,
    Move,
    Rollover,
    Slot,
    number,
    rounded,
    slots_of,
)


def customer(catalog: Catalog, who: Customer, *, now: int, env: str, expand: Iterable[str] = ()) -> Document:
    """Show a customer."""
    wanted = set(expand)
    shown: Document = {
        "id": who.id,
        "name": who.name,
        "email": who.email,
        "created_at": who.created_at,
        "fingerprint": who.fingerprint,
        "stripe_id": who.stripe_id,
        "env": env,
        "metadata": who.metadata,
        "send_email_receipts": who.send_email_receipts,
        "billing_controls": _controls.shown(who, catalog, now),
        **_holdings(catalog, who, wanted, None),
        "config": who.config,
    }
    shown["licenses"] = []
    if who.stripe_id:
        shown["processors"] = {"stripe": {"id": who.stripe_id}}
    if "invoices" in wanted:
        shown["invoices"] = []
    if "rewards" in wanted:
        shown["rewards"] = None
    if "trials_used" in wanted:
        shown["trials_used"] = [
            {"plan_id": plan_id, "customer_id": who.id, "fingerprint": who.fingerprint} for plan_id in who.trials
        ]
    if "referrals" in wanted:
        shown["referrals"] = []
    if "entities" in wanted:
        shown["entities"] = [_entity_head(who, item, env) for item in who.entities]
    return shown


def entity(
    catalog: Catalog,
    who: Customer,
    item: Document,
    *,
    now: int,
    env: str,
    expand: Iterable[str] = (),
    created: bool = False,
) -> Document:
    """Show an entity with what it can use: its own plans and balances, and the customer's."""
    head = _entity_head(who, item, env)
    if created:
        # entities.create leaves it out, entities.get has it.
        del head["feature_id"]
    return {
        **head,
        **_holdings(catalog, who, set(expand), item["id"]),
        "billing_controls": _controls.shown(who, catalog, now, item),
    }


def balance(
    catalog: Catalog, who: Customer, feature_id: str, *, entity_id: str | None = None, expand: bool = False
) -> Document | None:
    """Show the balance of one feature, or None if the customer has none."""
    held = who.metered([feature_id])
    slots = slots_of(held, entity_id)
    if entity_id is None:
        # What is kept per entity is shown, and grants nothing, while there is no entity.
        slots += [Slot(item, "") for item in held if item.entity_feature_id is not None and not item.entities]
    slots = in_order(slots, credit_systems=catalog.credit_systems, entity_id=entity_id)
    if not slots:
        return None
    return _balance(catalog.features.get(feature_id, {}), feature_id, slots, expand=expand)


def flag(held: Entitlement) -> Document:
    """Show a boolean feature that is switched on."""
    return {"id": held.id, "plan_id": held.plan_id, "expires_at": held.expires_at, "feature_id": held.feature_id}


def deductions(who: Customer, moves: Sequence[Move]) -> list[Document]:
    """Show what moved, one entry for each balance, and one for each that was rolled over."""
    owners = {item.id: item for item in who.entitlements}
    totals: dict[tuple[str, str], Decimal] = {}
    for move in moves:
        place = (move.rollover_id or move.entitlement_id, move.entitlement_id)
        totals[place] = totals.get(place, ZERO) + move.credits
    return [
        {
            "balance_id": identifier,
            "feature_id": owners[owner].feature_id,
            "plan_id": owners[owner].plan_id,
            "reset": _reset(owners[owner]),
            "value": number(rounded(total)),
        }
        for (identifier, owner), total in totals.items()
    ]


def balance_2_0(shown: Document | None) -> Document | None:
    """Turn a balance into the shape of API 2.0."""
    if shown is None:
        return None
    rest = {key: shown[key] for key in ("feature_id", "unlimited", "usage", "overage_allowed", "max_purchase")}
    parts = [
        {
            "id": part["id"],
            "plan_id": part["plan_id"],
            "granted_balance": part["included_grant"],
            "purchased_balance": part["prepaid_grant"],
            "current_balance": part["remaining"],
            "usage": part["usage"],
            "overage_allowed": bool(part["price"]) and part["price"]["billing_method"] == "usage_based",
            "max_purchase": part["price"]["max_purchase"] if part["price"] else None,
            "reset": part["reset"],
            "prepaid_quantity": part["prepaid_grant"],
            "expires_at": part["expires_at"],
        }
        for part in shown["breakdown"]
    ]
    return {
        **rest,
        "granted_balance": number(sum(Decimal(str(part["granted_balance"])) for part in parts)),
        "purchased_balance": number(sum(Decimal(str(part["purchased_balance"])) for part in parts)),
        "current_balance": shown["remaining"],
        "reset": parts[0]["reset"] if parts else None,
        "plan_id": parts[0]["plan_id"] if parts else None,
        "breakdown": parts,
    }


def check_1_2(catalog: Catalog, answer: Document, feature_id: str) -> Document:
    """Turn the answer of a check into the shape of API 1.2."""
    shown = answer["balance"]
    head = {
        "allowed": answer["allowed"],
        "code": "feature_found",
        "customer_id": answer["customer_id"],
        "feature_id": shown["feature_id"] if shown else feature_id,
        "required_balance": answer["required_balance"],
    }
    if shown is None:
        return head | ({"unlimited": False, "balance": 0} if answer.get("flag") is None else {})
    parts = [
        {
            "interval": (part["reset"] or {}).get("interval"),
            "interval_count": (part["reset"] or {}).get("interval_count", 1),
            "balance": part["remaining"],
            "usage": part["usage"],
            "included_usage": part["included_grant"],
            "next_reset_at": (part["reset"] or {}).get("resets_at"),
            "expires_at": part["expires_at"],
            "overage_allowed": bool(part["price"]) and part["price"]["billing_method"] == "usage_based",
        }
        for part in shown["breakdown"]
    ]
    body = head | {
        "interval": parts[0]["interval"] if parts else None,
        "interval_count": parts[0]["interval_count"] if parts else 1,
        "unlimited": shown["unlimited"],
        "balance": shown["remaining"],
        "usage": shown["usage"],
        "included_usage": shown["granted"],
        "next_reset_at": shown["next_reset_at"],
        "overage_allowed": shown["overage_allowed"],
        "breakdown": parts,
    }
    schema = catalog.features.get(shown["feature_id"], {}).get("credit_schema")
    if schema:
        body["credit_schema"] = [
            {"feature_id": entry["metered_feature_id"], "credit_amount": entry["credit_cost"]} for entry in schema
        ]
    return body


def _holdings(catalog: Catalog, who: Customer, wanted: set[str], entity_id: str | None) -> Document:
    plans = [plan for plan in who.plans if plan.entity_id in (None, entity_id)]
    plans.sort(
        key=lambda plan: (
            is_free(catalog.plan(plan.plan_id, plan.version)),
            plan.add_on,
            -plan.started_at,
            plan.plan_id,
        )
    )
    feature_ids = dict.fromkeys(held.feature_id for held in who.entitlements if not held.boolean)
    balances = {
        key: balance(catalog, who, key, entity_id=entity_id, expand="balances.feature" in wanted) for key in feature_ids
    }
    flags: Document = {}
    for held in who.entitlements:
        if held.boolean and held.entity_id in (None, entity_id):
            flags[held.feature_id] = flag(held)
            if "flags.feature" in wanted:
                flags[held.feature_id]["feature"] = catalog.features[held.feature_id]
    return {
        "subscriptions": [
            _subscription(catalog, plan, expand="subscriptions.plan" in wanted) for plan in plans if not plan.one_off
        ],
        "purchases": [_purchase(catalog, plan, expand="purchases.plan" in wanted) for plan in plans if plan.one_off],
        "balances": {key: shown for key, shown in balances.items() if shown is not None},
        "flags": flags,
    }


def _subscription(catalog: Catalog, plan: AttachedPlan, *, expand: bool) -> Document:
    return {
        "id": plan.id,
        "auto_enable": plan.auto_enable,
        "add_on": plan.add_on,
        "status": plan.status,
        "past_due": False,
        "canceled_at": plan.canceled_at,
        "trial_ends_at": plan.trial_ends_at,
        "current_period_start": plan.period_start,
        "current_period_end": plan.period_end,
        **_purchase(catalog, plan, expand=expand),
    }


def _purchase(catalog: Catalog, plan: AttachedPlan, *, expand: bool) -> Document:
    shown: Document = {
        "plan_id": plan.plan_id,
        "expires_at": plan.expires_at,
        "started_at": plan.started_at,
        "quantity": plan.quantity,
        "scope": "entity" if plan.entity_id else "customer",
    }
    return shown | {"plan": catalog.plan(plan.plan_id, plan.version)} if expand else shown


def _entity_head(who: Customer, item: Document, env: str) -> Document:
    return {
        "id": item["id"],
        "name": item["name"],
        "customer_id": who.id,
        "feature_id": item["feature_id"],
        "created_at": item["created_at"],
        "env": env,
    }


def _balance(feature: Document, feature_id: str, slots: list[Slot], *, expand: bool) -> Document:
    unlimited = [slot for slot in slots if slot.entitlement.unlimited]
    shown_slots = unlimited or slots
    parts = _breakdown(shown_slots)
    resets = [slot.entitlement.next_reset_at for slot in shown_slots if slot.entitlement.next_reset_at is not None]
    usage_based = [slot.entitlement for slot in shown_slots if slot.entitlement.is_usage_based]
    granted = sum((part[1] for part in parts), ZERO)
    left = sum((part[2] for part in parts), ZERO)
    positive = sum((max(ZERO, part[2]) for part in parts), ZERO)
    rollovers = [rollover for slot in shown_slots for rollover in slot.rollovers]
    granted += sum((rollover.balance + rollover.used for rollover in rollovers), ZERO)
    over = sum((rollover.balance for rollover in rollovers), ZERO)
    limits_ = [held.max_purchase for held in usage_based]
    total_limit = None if not limits_ or None in limits_ else sum((item for item in limits_ if item is not None), ZERO)
    shown: Document = {
        "feature_id": feature_id,
        "granted": number(granted),
        "remaining": 0 if unlimited else number(rounded(positive + over)),
        "usage": number(rounded(granted - left - over)),
        "unlimited": bool(unlimited),
        "overage_allowed": bool(usage_based),
        "max_purchase": None if total_limit is None else number(total_limit),
        "next_reset_at": min(resets) if resets else None,
        "breakdown": [part[0] for part in parts],
    }
    if any(slot.entitlement.rollover for slot in shown_slots):
        shown["rollovers"] = _rolled_over(rollovers)
    if expand:
        shown["feature"] = feature
    return shown


def _rolled_over(rollovers: list[Rollover]) -> list[Document]:
    """Show what was rolled over at each reset, by all entities together."""
    by_reset: dict[str, list[Rollover]] = {}
    for rollover in rollovers:
        by_reset.setdefault(rollover.id, []).append(rollover)
    return [
        {
            "granted": number(sum((left.balance + left.used for left in mine), ZERO)),
            "balance": number(sum((left.balance for left in mine), ZERO)),
            "expires_at": mine[0].expires_at,
        }
        for mine in by_reset.values()
    ]


def _breakdown(slots: list[Slot]) -> list[tuple[Document, Decimal, Decimal]]:
    """Return for each entitlement: how it is shown, what it grants, and its raw balance, over all its entities."""
    by_entitlement: dict[str, list[Slot]] = {}
    for slot in slots:
        by_entitlement.setdefault(slot.entitlement.id, []).append(slot)
    parts = []
    for mine in by_entitlement.values():
        held, times = mine[0].entitlement, sum(slot.entity_id != "" for slot in mine)
        left = sum((slot.balance for slot in mine), ZERO)
        granted = held.allotted * times
        shown: dict[str, Any] = {
            "id": held.id,
            "plan_id": held.plan_id,
            "included_grant": number((held.included + held.adjustment) * times),
            "prepaid_grant": number(held.prepaid * times),
            "remaining": 0 if held.unlimited else number(rounded(max(ZERO, left))),
            "usage": number(rounded(granted - left)),
            "unlimited": held.unlimited,
            "reset": None if held.unlimited else _reset(held),
            "price": held.price,
            "expires_at": held.expires_at,
        }
        parts.append((shown, granted, left))
    return parts


def _reset(held: Entitlement) -> Document | None:
    if held.interval is None:
        return None
    reset: Document = {"interval": held.interval}
    if held.interval_count != 1:
        reset["interval_count"] = held.interval_count
    return reset | {"resets_at": held.next_reset_at}
