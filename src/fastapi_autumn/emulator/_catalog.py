"""Features and plans: how they are read from requests, kept, found, and turned into entitlements.

Both are kept in the shape in which Autumn shows them, so that showing them is no work.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal

from fastapi_autumn.emulator import _display
from fastapi_autumn.emulator._balances import Entitlement, amount
from fastapi_autumn.emulator._clock import BILLING_INTERVALS, RESET_INTERVALS, next_after
from fastapi_autumn.emulator._customer import AttachedPlan, new_id
from fastapi_autumn.emulator._errors import ApiError, invalid_inputs, invalid_request, not_found
from fastapi_autumn.emulator._store import Document, Store
from fastapi_autumn.emulator._validation import Fields

FEATURE_TYPES = ("boolean", "metered", "credit_system", "ai_credit_system")
CREDIT_SYSTEMS = ("credit_system", "ai_credit_system")


class Catalog:
    """All features and plans, as they were at one revision."""

    def __init__(self, store: Store) -> None:
        self.features: dict[str, Document] = {
            identifier: json.loads(doc) for identifier, doc in store.rows("SELECT id, doc FROM features ORDER BY seq")
        }
        self.versions: dict[str, list[Document]] = {}
        for identifier, doc in store.rows("SELECT id, doc FROM plans ORDER BY seq"):
            self.versions.setdefault(identifier, []).append(json.loads(doc))
        self.plans = {identifier: versions[-1] for identifier, versions in self.versions.items()}
        # feature id -> {id of a balance that can pay for it: what one unit costs there}, the own balance first
        self.costs: dict[str, dict[str, Decimal]] = {key: {key: Decimal(1)} for key in self.features}
        for system in self.features.values():
            for entry in system.get("credit_schema") or []:
                payable = self.costs.setdefault(entry["metered_feature_id"], {})
                payable[system["id"]] = amount(entry["credit_cost"])
        self.credit_systems = frozenset(key for key, value in self.features.items() if value["type"] in CREDIT_SYSTEMS)

    def feature(self, feature_id: str) -> Document:
        """Return a feature, or raise the 404."""
        if feature_id not in self.features:
            raise not_found("feature", feature_id)
        return self.features[feature_id]

    def plan(self, plan_id: str, version: int | None = None) -> Document:
        """Return a plan's newest version, or the one asked for, or raise the 404."""
        for plan in reversed(self.versions.get(plan_id, [])):
            if version in (None, plan["version"]):
                return plan
        raise not_found("product", plan_id)

    def sorted_plans(self) -> list[Document]:
        """List the newest versions as plans.list orders them: by group, plans before add-ons, by price."""
        return sorted(
            self.plans.values(),
            key=lambda plan: (plan["group"] or "", plan["add_on"], total_price(plan), plan["created_at"]),
        )


def total_price(plan: Document) -> float:
    """Add up a plan's prices, the way Autumn compares plans."""
    total: float = plan["price"]["amount"] if plan["price"] else 0
    for item in plan["items"]:
        if item["price"]:
            tiers = item["price"].get("tiers") or [item["price"]]
            total += sum(tier.get("amount") or 0 for tier in tiers)
    return total


def is_free(plan: Document) -> bool:
    """Whether nothing of a plan costs money."""
    return plan["price"] is None and all(item["price"] is None for item in plan["items"])


def is_one_off(plan: Document) -> bool:
    """Whether a plan is bought once, such as a top-up, and not subscribed to."""
    prices = [plan["price"], *(item["price"] for item in plan["items"])]
    intervals = {price["interval"] for price in prices if price}
    return intervals == {"one_off"}


# Features


def read_feature(fields: Fields, before: Document | None = None) -> Document:
    """Read a feature from features.create, or from features.update with the feature as it was."""
    name = fields.string("name", required=before is None)
    kind = fields.choice("type", FEATURE_TYPES, required=before is None)
    schema = _read_credit_schema(fields)
    consumable = fields.boolean("consumable") if "consumable" in fields else None
    archived = fields.boolean("archived") if "archived" in fields else None
    events = fields.strings("event_names") if "event_names" in fields else None
    if before is None and kind == "credit_system" and not schema:
        fields.fail("credit_schema", "Please specify the credit schema for the feature.")
    fields.check()
    feature = dict(before or {"id": fields.text("feature_id"), "event_names": [], "archived": False})
    given = {"name": name, "type": kind, "consumable": consumable, "archived": archived, "event_names": events}
    feature |= {key: value for key, value in given.items() if value is not None}
    if feature["type"] in CREDIT_SYSTEMS:
        feature["consumable"] = True
        feature["credit_schema"] = schema if "credit_schema" in fields else feature.get("credit_schema", [])
    feature["consumable"] = bool(feature.get("consumable")) and feature["type"] != "boolean"
    if feature["type"] == "ai_credit_system":
        for key in ("model_markups", "provider_markups"):
            if key in fields:
                feature[key] = fields.mapping(key) or {}
        if "default_markup" in fields:
            feature["default_markup"] = fields.number("default_markup", nullable=True)
        fields.check()
    if isinstance(fields.raw("display"), dict):
        feature["display"] = fields.raw("display")
    return feature


def create_feature(store: Store, catalog: Catalog, feature: Document) -> None:
    """Keep a new feature; 409 if its id is taken."""
    if feature["id"] in catalog.features:
        raise ApiError(409, "duplicate_feature_id", f"Feature {feature['id']} already exists")
    store.insert("INSERT INTO features (id, doc) VALUES (?, ?)", feature["id"], json.dumps(feature))
    store.touch("catalog")


def update_feature(store: Store, feature: Document) -> None:
    """Replace a feature."""
    store.run("UPDATE features SET doc = ? WHERE id = ?", json.dumps(feature), feature["id"])
    store.touch("catalog")


def feature_users(catalog: Catalog, feature_id: str) -> str | None:
    """Say what keeps a feature from being deleted, or None."""
    for system in catalog.features.values():
        if any(entry["metered_feature_id"] == feature_id for entry in system.get("credit_schema") or []):
            return f"Feature {feature_id} is used by credit system {system['id']}"
    for versions in catalog.versions.values():
        if any(item["feature_id"] == feature_id for plan in versions for item in plan["items"]):
            return (
                f"Feature {feature_id} is used in a product. You must delete the product first, or archive it instead."
            )
    return None


def delete_feature(store: Store, catalog: Catalog, feature_id: str) -> None:
    """Delete a feature that nothing uses."""
    catalog.feature(feature_id)
    used = feature_users(catalog, feature_id)
    if used:
        raise invalid_request(used, status=409)
    store.run("DELETE FROM features WHERE id = ?", feature_id)
    store.touch("catalog")


def _read_credit_schema(fields: Fields) -> list[Document]:
    schema = []
    for entry in fields.objects("credit_schema"):
        schema.append(
            {
                "metered_feature_id": entry.text("metered_feature_id"),
                "credit_cost": entry.number("credit_cost", required=True),
            }
        )
    return schema


# Plans


def read_plan(fields: Fields, catalog: Catalog, *, now: int, before: Document | None = None) -> Document:
    """Read a plan from plans.create, or from plans.update with the plan as it was."""
    name = fields.string("name", required=before is None)
    plan = dict(before) if before else _blank_plan(now)
    for key in ("description", "group"):
        if key in fields:
            plan[key] = fields.string(key, nullable=True) or None
    for key in ("add_on", "auto_enable", "archived"):
        if key in fields:
            plan[key] = fields.boolean(key)
    for key in ("metadata", "billing_controls", "config"):
        if key in fields:
            plan[key] = {**plan[key], **(fields.mapping(key) or {})}
    plan["name"] = name or plan["name"]
    if "price" in fields:
        price = fields.object("price")
        plan["price"] = _read_base_price(price) if price else None
    if "items" in fields:
        items = [_read_item(item) for item in fields.objects("items")]
        fields.check()
        plan["items"] = sorted(
            (_complete_item(item, catalog) for item in items), key=lambda item: str(item["feature_id"])
        )
    if "free_trial" in fields:
        plan.pop("free_trial", None)
        trial = fields.object("free_trial")
        if trial:
            plan["free_trial"] = _read_trial(trial)
    fields.check()
    if plan["price"]:
        plan["price"]["display"] = _display.base_price(plan["price"])
    return plan


def keep_plan(store: Store, plan: Document, *, new: bool) -> None:
    """Write a plan: a `new` plan or version, or a version that is there already."""
    if new:
        # Only the newest version of a plan is given to new customers.
        for version, doc in store.rows("SELECT version, doc FROM plans WHERE id = ?", plan["id"]):
            old = json.loads(doc) | {"auto_enable": False}
            store.run("UPDATE plans SET doc = ? WHERE id = ? AND version = ?", json.dumps(old), plan["id"], version)
        store.insert(
            "INSERT INTO plans (id, version, doc) VALUES (?, ?, ?)", plan["id"], plan["version"], json.dumps(plan)
        )
    else:
        store.run(
            "UPDATE plans SET doc = ? WHERE id = ? AND version = ?", json.dumps(plan), plan["id"], plan["version"]
        )
    store.touch("catalog")


def customers_on(store: Store, plan: Document) -> int:
    """Count the customers who have, or had, this version of a plan."""
    row = store.row(
        "SELECT count(*) FROM customer_plans WHERE plan_id = ? AND version = ?", plan["id"], plan["version"]
    )
    return int(row[0]) if row else 0


def update_plan(store: Store, catalog: Catalog, fields: Fields, *, now: int) -> Document:
    """Change a plan; what changes a plan that customers have makes a new version of it."""
    before = catalog.plan(fields.text("plan_id"))
    plan = read_plan(fields, catalog, now=now, before=before)
    wanted = fields.string("new_plan_id")
    changed = content_of(plan) != content_of(before)
    if not changed:
        # Items that say the same as before keep their ids.
        plan["items"], plan["price"] = before["items"], before["price"]
    versioned = (
        changed and customers_on(store, before) > 0 and not fields.boolean("disable_version")
    ) or fields.boolean("force_version")
    fields.check()
    if versioned:
        plan |= {"version": before["version"] + 1, "created_at": now}
    if wanted and wanted != plan["id"]:
        if customers_on(store, before):
            raise invalid_request(f"Cannot change the id of product {before['id']} because it has customers")
        store.run("DELETE FROM plans WHERE id = ?", plan["id"])
        keep_plan(store, plan | {"id": wanted}, new=True)
        return plan | {"id": wanted}
    keep_plan(store, plan, new=versioned)
    return plan


def delete_plan(store: Store, catalog: Catalog, plan_id: str, *, all_versions: bool = False) -> None:
    """Delete a plan that no customer has or had."""
    plan = catalog.plan(plan_id)
    versions = catalog.versions[plan_id] if all_versions else [plan]
    customers = sum(customers_on(store, version) for version in versions)
    if customers:
        raise invalid_request(
            f"Product {plan_id} has {customers} customers (expired or active) on it and therefore cannot be deleted"
        )
    for version in versions:
        store.run("DELETE FROM plans WHERE id = ? AND version = ?", plan_id, version["version"])
    store.touch("catalog")


def content_of(plan: Document) -> Document:
    """Return what makes a plan another version when it changes: prices, items and trial, without ids and texts."""
    items = [
        {key: value for key, value in item.items() if key not in ("entitlement_id", "price_id", "display")}
        for item in plan["items"]
    ]
    price = plan["price"] and {key: plan["price"].get(key) for key in ("amount", "interval", "interval_count")}
    return {"items": items, "price": price, "free_trial": plan.get("free_trial")}


def _blank_plan(now: int) -> Document:
    return {
        "id": "",
        "name": "",
        "description": None,
        "group": None,
        "version": 1,
        "add_on": False,
        "auto_enable": False,
        "price": None,
        "items": [],
        "created_at": now,
        "env": "sandbox",
        "archived": False,
        "config": {"ignore_past_due": False},
        "billing_controls": {},
        "metadata": {},
        "base_variant_id": None,
    }


def _read_base_price(fields: Fields) -> Document:
    price: Document = {
        "amount": fields.number("amount", required=True),
        "interval": fields.choice("interval", BILLING_INTERVALS, required=True) or "month",
    }
    count = fields.integer("interval_count", least=1)
    if count not in (None, 1):
        price["interval_count"] = count
    return price | {"price_id": new_id("pr")}


def _read_trial(fields: Fields) -> Document:
    return {
        "duration_length": fields.integer("duration_length", required=True, least=1) or 1,
        "duration_type": fields.choice("duration_type", ("day", "month", "year")) or "month",
        "card_required": fields.boolean("card_required", default=True),
        "on_end": fields.choice("on_end", ("bill", "revert")),
    }


def _read_item(fields: Fields) -> Document:
    item: Document = {
        "feature_id": fields.text("feature_id"),
        "included": fields.number("included", nullable=True) or 0,
        "unlimited": fields.boolean("unlimited"),
        "pooled": fields.boolean("pooled"),
        "reset": _read_reset(fields.object("reset")),
        "price": _read_item_price(fields.object("price")),
    }
    rollover = fields.object("rollover")
    if rollover:
        item["rollover"] = {
            "max": rollover.number("max", nullable=True),
            "max_percentage": rollover.number("max_percentage", nullable=True),
            "expiry_duration_type": rollover.choice("expiry_duration_type", ("month", "forever"), required=True),
            "expiry_duration_length": rollover.integer("expiry_duration_length", least=1) or 1,
        }
    if fields.raw("entity_feature_id"):
        item["entity_feature_id"] = fields.string("entity_feature_id")
    if fields.raw("proration"):
        item["proration"] = fields.mapping("proration")
    return item


def _read_reset(fields: Fields | None) -> Document | None:
    if fields is None:
        return None
    reset: Document = {"interval": fields.choice("interval", RESET_INTERVALS, required=True)}
    count = fields.integer("interval_count", least=1)
    if count not in (None, 1):
        reset["interval_count"] = count
    return reset


def _read_item_price(fields: Fields | None) -> Document | None:
    if fields is None:
        return None
    price: Document = {}
    if fields.raw("tiers"):
        price["tiers"] = [dict(tier) for tier in fields.raw("tiers") if isinstance(tier, dict)]
        price["tier_behavior"] = fields.choice("tier_behavior", ("graduated", "volume")) or "graduated"
    else:
        price["amount"] = fields.number("amount", required=True)
    price["interval"] = fields.choice("interval", BILLING_INTERVALS, required=True)
    count = fields.integer("interval_count", least=1)
    if count not in (None, 1):
        price["interval_count"] = count
    price["billing_units"] = fields.number("billing_units") or 1
    price["billing_method"] = fields.choice("billing_method", ("prepaid", "usage_based"), required=True)
    price["max_purchase"] = fields.number("max_purchase", nullable=True)
    return price


def _complete_item(item: Document, catalog: Catalog) -> Document:
    """Fill in what follows from the feature: the reset, the text and the ids."""
    feature = catalog.feature(item["feature_id"])
    if item["reset"] and item["price"] and item["price"]["billing_method"] != "prepaid":
        if item["reset"]["interval"] != item["price"]["interval"]:
            raise invalid_inputs("items: reset.interval and price.interval can only differ for prepaid prices.")
    if feature["type"] == "boolean" or item["unlimited"]:
        reset = None
    elif item["reset"] is None and feature["consumable"]:
        cycle = item["price"] or {"interval": "one_off"}
        reset = {key: cycle[key] for key in ("interval", "interval_count") if key in cycle}
    else:
        reset = item["reset"] if feature["consumable"] else None
    done = item | {"reset": reset}
    done |= {"display": _display.item(done, feature), "entitlement_id": new_id("ent")}
    return done | {"price_id": new_id("pr")} if item["price"] else done


# Entitlements


def entitlements_of(
    plan: Document, attached: AttachedPlan, features: dict[str, Document], entities: Iterable[Document]
) -> list[Entitlement]:
    """Make the entitlements that a plan gives to a customer who gets it at `attached.started_at`."""
    anchor = attached.trial_ends_at or attached.started_at
    made = []
    for item in plan["items"]:
        feature = features.get(item["feature_id"])
        if feature is None:
            continue
        held = entitlement(
            feature,
            item,
            started_at=attached.started_at,
            anchor=anchor,
            quantity=attached.quantities.get(item["feature_id"], 0) if is_prepaid(item) else 0,
        )
        held.plan_id, held.product_id, held.add_on = plan["id"], attached.id, attached.add_on
        held.entity_id = attached.entity_id
        if held.entity_feature_id:
            held.entities = {
                entity["id"]: held.granted for entity in entities if entity["feature_id"] == held.entity_feature_id
            }
        made.append(held)
    return made


def is_prepaid(item: Document) -> bool:
    """Whether an item is bought in advance, in a quantity that the customer chooses."""
    return bool(item["price"]) and item["price"]["billing_method"] == "prepaid"


def entitlement(feature: Document, item: Document, *, started_at: int, anchor: int, quantity: float = 0) -> Entitlement:
    """Make one entitlement from an item of a plan, or from balances.create, which has the same fields.

    `quantity` is the whole number of units that a prepaid item was bought for, what is included counted in.
    """
    reset = item.get("reset") or {}
    interval = reset.get("interval")
    resets = interval is not None and interval != "one_off"
    count = reset.get("interval_count") or 1
    included = amount(item["included"])
    prepaid = max(Decimal(0), amount(quantity) - included)
    price = item.get("price")
    return Entitlement(
        id=new_id("cus_ent"),
        feature_id=feature["id"],
        created_at=started_at,
        boolean=feature["type"] == "boolean",
        included=Decimal(0) if item["unlimited"] else included,
        prepaid=prepaid,
        balance=Decimal(0) if item["unlimited"] else included + prepaid,
        unlimited=item["unlimited"],
        interval=interval,
        interval_count=count,
        anchor=anchor,
        next_reset_at=next_after(anchor, interval, count, started_at) if resets and interval else None,
        price=price
        and {
            key: price[key]
            for key in ("amount", "tiers", "tier_behavior", "billing_units", "billing_method", "max_purchase")
            if key in price
        },
        rollover=item.get("rollover"),
        entity_feature_id=item.get("entity_feature_id"),
    )
