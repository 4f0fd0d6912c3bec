"""The texts that Autumn writes about a plan's price and items, such as "2,000 AI credits, then $1 per 100"."""

from __future__ import annotations

from typing import Any

_PER = {
    "one_off": "one-off",
    "week": "per week",
    "month": "per month",
    "quarter": "per quarter",
    "semi_annual": "per half year",
    "year": "per year",
    "minute": "per minute",
    "hour": "per hour",
    "day": "per day",
}


def base_price(price: dict[str, Any]) -> dict[str, str]:
    """Describe a plan's own price."""
    return {"primary_text": _dollars(price["amount"]), "secondary_text": per_interval(price)}


def item(item_: dict[str, Any], feature: dict[str, Any]) -> dict[str, str]:
    """Describe an item as plans.get does: without its interval."""
    if item_["price"] is None:
        return {"primary_text": _grant(item_, feature)}
    price = _price(item_["price"], feature)
    if item_["included"]:
        return {"primary_text": _grant(item_, feature), "secondary_text": f"then {price}"}
    return {"primary_text": price}


def full_item(item_: dict[str, Any], features: dict[str, dict[str, Any]], plan: dict[str, Any]) -> dict[str, str]:
    """Describe an item as the preview of a check does: with its interval, unless the plan's price has the same."""
    feature = features[item_["feature_id"]]
    cycle = item_["price"] or item_["reset"] or {}
    interval = per_interval(cycle) if cycle else ""
    if plan["price"] and plan["price"]["interval"] == cycle.get("interval"):
        interval = ""
    if item_["price"] is None:
        if cycle.get("interval") == "one_off":
            interval = ""
        entity = features.get(item_.get("entity_feature_id") or "")
        more = " ".join(part for part in (f"per {entity['name']}" if entity else "", interval) if part)
        text = {"primary_text": _grant(item_, feature)}
        return text | {"secondary_text": more} if more else text
    if item_["included"]:
        more = " ".join(part for part in (f"then {_price(item_['price'], feature)}", interval) if part)
        return {"primary_text": _grant(item_, feature), "secondary_text": more}
    money, _, units = _price(item_["price"], feature).partition(" per ")
    return {"primary_text": money, "secondary_text": f"per {units} {interval}".strip()}


def per_interval(cycle: dict[str, Any]) -> str:
    """Write a billing or reset interval: "per month", "per 2 months"."""
    count = cycle.get("interval_count") or 1
    text = _PER[cycle["interval"]]
    return text if count == 1 else f"per {count} {text.removeprefix('per ')}s"


def _grant(item_: dict[str, Any], feature: dict[str, Any]) -> str:
    name: str = feature["name"]
    if feature["type"] == "boolean":
        return name
    return f"Unlimited {name}" if item_["unlimited"] else f"{item_['included']:,} {name}"


def _price(price: dict[str, Any], feature: dict[str, Any]) -> str:
    if "tiers" in price:
        first, last = price["tiers"][0].get("amount", 0), price["tiers"][-1].get("amount", 0)
        money = _dollars(first) if first == last else f"{_dollars(first)} - {_dollars(last)}"
    else:
        money = _dollars(price["amount"])
    units = price["billing_units"]
    return f"{money} per {feature['name']}" if units == 1 else f"{money} per {units:,} {feature['name']}"


def _dollars(money: float) -> str:
    return f"${money:,}"
