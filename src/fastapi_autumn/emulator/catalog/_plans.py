"""Reading plans from requests (prices, items, trials, and what Autumn fills in), and keeping them."""

from __future__ import annotations

import json

from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator._errors import invalid_inputs, invalid_request
from fastapi_autumn.emulator.books._catalog import Catalog
from fastapi_autumn.emulator.books._clock import BILLING_INTERVALS, RESET_INTERVALS
from fastapi_autumn.emulator.catalog import _display
from fastapi_autumn.emulator.catalog._billing_controls import read_controls
from fastapi_autumn.emulator.http._store import Store
from fastapi_autumn.emulator.http._validation import Fields

_ON_INCREASE = ("bill_immediately", "prorate_immediately", "prorate_next_cycle", "bill_next_cycle")
_ON_DECREASE = ("prorate", "prorate_immediately", "prorate_next_cycle", "none", "no_prorations")


def read_plan(fields: Fields, catalog: Catalog, *, now: int, before: Document | None = None) -> Document:
    """Read a plan from plans.create, or from plans.update with the plan as it was."""
    name = fields.string("name", required=before is None)
    plan = dict(before) if before else _blank_plan(now)
    _read_settings(fields, plan)
    plan["name"] = name or plan["name"]
    if "price" in fields:
        price = fields.object("price")
        plan["price"] = _read_base_price(price, catalog) if price else None
    if "items" in fields:
        items = [_read_item(item) for item in fields.objects("items")]
        fields.check()
        plan["items"] = sorted(
            (_complete_item(item, catalog) for item in items),
            key=lambda item: (item["price"] is None, str(item["feature_id"])),
        )
    if "licenses" in fields:
        plan.pop("licenses", None)
        licenses = [_read_license(license_) for license_ in fields.objects("licenses")]
        if licenses:
            plan["licenses"] = licenses
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
    named = ("amount", "interval", "interval_count", "additional_currencies")
    price = plan["price"] and {key: plan["price"].get(key) for key in named}
    return {
        "items": items, "price": price, "free_trial": plan.get("free_trial"), "licenses": plan.get("licenses", []),
    }  # fmt: skip


def read_reset(fields: Fields) -> Document | None:
    """Read when a balance starts anew."""
    reset = fields.object("reset")
    if reset is None:
        return None
    interval, count = reset.choice("interval", RESET_INTERVALS, required=True), reset.count("interval_count")
    return {"interval": interval} if count == 1 else {"interval": interval, "interval_count": count}


def read_rollover(fields: Fields) -> Document | None:
    """Read how much of a balance may be kept at a reset, and for how long."""
    rollover = fields.object("rollover")
    if rollover is None:
        return None
    return {
        "max": rollover.number("max", nullable=True, least=0),
        "max_percentage": rollover.number("max_percentage", nullable=True, least=0),
        "expiry_duration_type": rollover.choice("expiry_duration_type", ("month", "forever"), required=True),
        "expiry_duration_length": rollover.count("expiry_duration_length"),
    }


def _read_settings(fields: Fields, plan: Document) -> None:
    for key in ("description", "group"):
        if key in fields:
            plan[key] = fields.string(key, nullable=True) or None
    for key in ("add_on", "auto_enable", "archived"):
        if key in fields:
            plan[key] = fields.boolean(key)
    if "metadata" in fields:
        plan["metadata"] = {**plan["metadata"], **(fields.mapping("metadata") or {})}
    plan["billing_controls"] = {**plan["billing_controls"], **(read_controls(fields) or {})}
    config = fields.object("config")
    if config and "ignore_past_due" in config:
        plan["config"] = {"ignore_past_due": config.boolean("ignore_past_due")}


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


def _read_base_price(fields: Fields, catalog: Catalog) -> Document:
    price: Document = {
        "amount": fields.number("amount", required=True),
        "interval": fields.choice("interval", BILLING_INTERVALS, required=True) or "month",
    }
    count = fields.count("interval_count")
    if count != 1:
        price["interval_count"] = count
    if fields.objects("additional_currencies"):
        price["additional_currencies"] = fields.raw("additional_currencies")
    return price | {"price_id": catalog.new_id("pr")}


def _read_trial(fields: Fields) -> Document:
    return {
        "duration_length": fields.count("duration_length"),
        "duration_type": fields.choice("duration_type", ("day", "month", "year")) or "month",
        "card_required": fields.boolean("card_required", default=True),
        # "revert" is what happens anyway where no card was asked for, and is not shown.
        "on_end": "bill" if fields.choice("on_end", ("bill", "revert")) == "bill" else None,
    }


def _read_license(fields: Fields) -> Document:
    """Read a licence. Which version of the plan, and whether more are paid in advance, is taken and not shown."""
    fields.integer("version")
    fields.boolean("prepaid_only")
    license_: Document = {
        "license_plan_id": fields.text("license_plan_id"),
        "included": fields.integer("included", least=0) or 0,
    }
    customize = fields.mapping("customize")
    return license_ | {"customize": customize} if customize else license_


def _read_item(fields: Fields) -> Document:
    item: Document = {
        "feature_id": fields.text("feature_id"),
        "included": fields.number("included", nullable=True) or 0,
        "unlimited": fields.boolean("unlimited"),
        "pooled": fields.boolean("pooled"),
        "reset": read_reset(fields),
        "price": _read_item_price(fields.object("price")),
    }
    rollover = read_rollover(fields)
    if rollover:
        item["rollover"] = rollover
    if fields.raw("entity_feature_id"):
        item["entity_feature_id"] = fields.string("entity_feature_id")
    # Taken, and never shown again.
    proration = fields.object("proration")
    if proration is not None:
        proration.choice("on_increase", _ON_INCREASE, required=True)
        proration.choice("on_decrease", _ON_DECREASE, required=True)
    return item


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
    count = fields.count("interval_count")
    if count != 1:
        price["interval_count"] = count
    price["billing_units"] = fields.number("billing_units") or 1
    price["billing_method"] = fields.choice("billing_method", ("prepaid", "usage_based"), required=True)
    price["max_purchase"] = fields.number("max_purchase", nullable=True)
    if fields.objects("additional_currencies"):
        price["additional_currencies"] = fields.raw("additional_currencies")
    return price


def _complete_item(item: Document, catalog: Catalog) -> Document:
    """Fill in what follows from the feature: the reset, the text and the ids."""
    feature = catalog.feature(item["feature_id"])
    reset, price = item["reset"], item["price"]
    if reset and price and price["billing_method"] != "prepaid" and reset["interval"] != price["interval"]:
        raise invalid_inputs("items: reset.interval and price.interval can only differ for prepaid prices.")
    if feature["type"] == "boolean":
        reset = None
    elif feature["consumable"] and item["unlimited"]:
        reset = {"interval": "one_off"}
    elif item["reset"] is None and feature["consumable"]:
        cycle = item["price"] or {"interval": "one_off"}
        reset = {key: cycle[key] for key in ("interval", "interval_count") if key in cycle}
    else:
        reset = item["reset"] if feature["consumable"] else None
    done = item | {"reset": reset}
    done |= {"display": _display.item(done, feature), "entitlement_id": catalog.new_id("ent")}
    return done | {"price_id": catalog.new_id("pr")} if item["price"] else done
