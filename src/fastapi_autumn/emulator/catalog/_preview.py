"""The preview of a refused check: which plans would help, described as products in Autumn's older shape."""

from __future__ import annotations

from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator.books._catalog import Catalog, is_free, is_one_off, total_price
from fastapi_autumn.emulator.books._customer import Customer
from fastapi_autumn.emulator.books._grants import is_prepaid
from fastapi_autumn.emulator.catalog import _display


def preview(catalog: Catalog, customer: Customer, feature_id: str) -> Document:
    """Tell what to upgrade to when a feature is not there (`feature_flag`) or used up (`usage_limit`)."""
    costs = list(catalog.costs[feature_id])
    # The preview speaks of the credit system, where there is one.
    shown = catalog.feature(costs[1] if len(costs) > 1 else feature_id)
    attached = {plan.plan_id for plan in customer.plans if not plan.one_off}
    main = [catalog.plan(plan.plan_id, plan.version) for plan in customer.plans if not plan.add_on]
    cheapest = min((total_price(plan) for plan in main), default=None)
    offers = [
        plan
        for plan in catalog.sorted_plans()
        if plan["id"] not in attached
        and not plan["archived"]
        and any(item["feature_id"] == shown["id"] for item in plan["items"])
        # A main plan is offered unless it is cheaper than all that the customer has.
        and (plan["add_on"] or cheapest is None or total_price(plan) >= cheapest)
    ]
    offers.sort(key=lambda plan: plan["add_on"])
    plans = [plan["name"] for plan in offers if not plan["add_on"]]
    add_ons = [plan["name"] for plan in offers if plan["add_on"]]
    held = any(item.feature_id == shown["id"] for item in customer.entitlements)
    name = shown["name"]
    if held:
        scenario = "usage_limit"
        message = f"You have reached the usage limit for {name.lower()}."
        aim = "continue using this feature"
    else:
        scenario = "feature_flag"
        message = f"Your current plan does not include the {name} feature."
        aim = "use this feature"
    if plans:
        message += f" Please upgrade to {plans[0]} to {aim}."
        first = next(plan for plan in offers if not plan["add_on"])
        title = f"Start trial for {plans[0]}" if first.get("free_trial") else f"Upgrade to {plans[0]}"
        if add_ons:
            message += f" Alternatively, you can purchase the {add_ons[0]} add on."
    elif add_ons:
        message += f" Please purchase the {add_ons[0]} add on to {aim}."
        title = f"Purchase {add_ons[0]}"
    else:
        message += f" Please contact us to {aim}."
        title = "Feature unavailable"
    return {
        "title": title,
        "message": message,
        "scenario": scenario,
        "feature_id": shown["id"],
        "feature_name": name,
        "products": [_product(catalog, plan) for plan in offers],
        "upgrade_product_id": offers[0]["id"] if offers else None,
    }


def _product(catalog: Catalog, plan: Document) -> Document:
    price = plan["price"]
    items: list[Document] = []
    if price:
        items.append(
            {
                "type": "price",
                "feature_id": None,
                "feature": None,
                "interval": _interval(price),
                "interval_count": price.get("interval_count", 1),
                "price": price["amount"],
                "display": price["display"],
            }
        )
    items += [_item(catalog, item, plan) for item in plan["items"]]
    trial = plan.get("free_trial")
    cycles = [item["price"]["interval"] for item in plan["items"] if item["price"]]
    cycle = price["interval"] if price else next((cycle for cycle in cycles if cycle != "one_off"), None)
    updateable = not is_one_off(plan) and any(is_prepaid(item) for item in plan["items"])
    properties: Document = {"is_free": is_free(plan), "is_one_off": is_one_off(plan)}
    if cycle and cycle != "one_off":
        properties["interval_group"] = cycle
    return {
        "id": plan["id"],
        "name": plan["name"],
        "group": plan["group"],
        "env": plan["env"],
        "is_add_on": plan["add_on"],
        "is_default": plan["auto_enable"],
        "archived": plan["archived"],
        "version": plan["version"],
        "created_at": plan["created_at"],
        "items": items,
        "free_trial": trial
        and {
            "duration": trial["duration_type"],
            "length": trial["duration_length"],
            "unique_fingerprint": False,
            "card_required": trial["card_required"],
            "on_end": trial["on_end"],
            "trial_available": True,
        },
        "base_variant_id": plan["base_variant_id"],
        "billing_controls": plan["billing_controls"],
        "scenario": "new",
        "properties": properties | {"has_trial": trial is not None, "updateable": updateable},
    }


def _item(catalog: Catalog, item: Document, plan: Document) -> Document:
    feature = catalog.features[item["feature_id"]]
    kind = {"boolean": "static"}.get(feature["type"], "single_use" if feature["consumable"] else "continuous_use")
    price = item["price"]
    cycle = price or item["reset"] or {}
    shown: Document = {
        "type": "priced_feature" if price else "feature",
        "feature_id": feature["id"],
        "feature_type": kind,
        "feature": _feature(feature, kind),
        "entity_feature_id": item.get("entity_feature_id"),
        "display": _display.full_item(item, catalog.features, plan),
    }
    if feature["type"] == "boolean":
        return shown
    shown |= {
        "included_usage": "inf" if item["unlimited"] else item["included"],
        "interval": _interval(cycle),
        "interval_count": cycle.get("interval_count", 1),
        "reset_usage_when_enabled": feature["consumable"],
    }
    if price:
        shown |= {
            "tier_behavior": price.get("tier_behavior"),
            "usage_model": "prepaid" if price["billing_method"] == "prepaid" else "pay_per_use",
            "billing_units": price["billing_units"],
        }
        if "tiers" in price:
            shown["tiers"] = [
                tier if tier["to"] == "inf" else tier | {"to": tier["to"] - item["included"]} for tier in price["tiers"]
            ]
        else:
            shown["price"] = price["amount"]
    config: Document = {}
    if price and price["billing_method"] == "prepaid":
        config |= {"on_increase": "prorate_immediately", "on_decrease": "prorate_immediately"}
    if "rollover" in item:
        kept = item["rollover"]
        config["rollover"] = {
            "max": kept["max"],
            "max_percentage": kept["max_percentage"],
            "duration": kept["expiry_duration_type"],
            "length": kept["expiry_duration_length"],
        }
    return shown | {"config": config} if config else shown


def _feature(feature: Document, kind: str) -> Document:
    shown: Document = {
        "id": feature["id"],
        "name": feature["name"],
        "type": {"static": "boolean", "single_use": feature["type"]}.get(kind, kind),
        "display": feature.get("display") or {"singular": feature["name"], "plural": feature["name"]},
    }
    if shown["type"] == "metered":
        shown["type"] = "single_use"
    if feature.get("credit_schema"):
        shown["credit_schema"] = feature["credit_schema"]
    return shown


def _interval(cycle: Document) -> str | None:
    interval: str | None = cycle.get("interval")
    return None if interval == "one_off" else interval
