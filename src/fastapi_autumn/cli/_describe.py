"""Prices and items in words, from their JSON: the same for a catalog file and for what Autumn answers."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

__all__ = ["amount", "describe_item", "describe_price", "describe_trial", "money"]

_SIGNS = {"USD": "$", "EUR": "€", "GBP": "£"}
_EVERY = {"semi_annual": "half-year"}


def describe_price(price: Mapping[str, Any] | None, currency: str = "USD") -> str:
    """What a plan itself costs, such as `$20 per month`; empty for nothing."""
    if not price:
        return ""
    return f"{money(price.get('amount'), currency)} {_per(price)}".rstrip()


def describe_trial(trial: Mapping[str, Any] | None) -> str:
    """A free trial, such as `14-day trial`."""
    if not trial:
        return ""
    card = ", no card" if trial.get("card_required") is False else ""
    return f"{trial.get('duration_length')}-{trial.get('duration_type', 'month')} trial{card}"


def describe_item(
    item: Mapping[str, Any], name: str, *, consumable: bool = True, currency: str = "USD"
) -> Iterator[str]:
    """What a plan gives of one feature, in one line, and what more of it costs in the next ones."""
    price = item.get("price")
    cycle = item.get("reset") or (price if consumable else None)
    included = "unlimited" if item.get("unlimited") else amount(item["included"]) if item.get("included") else ""
    if included or not price:
        yield f"{included} {name} {_per(cycle) if included else ''}".strip()
    if not price:
        return
    units = price.get("billing_units") or 1
    each = "each" if included and units == 1 else f"per {amount(units)} {name}"
    ways = ["prepaid"] if price.get("billing_method") == "prepaid" else []
    if price.get("max_purchase"):
        ways.append(f"up to {amount(price['max_purchase'])}")
    how = f" ({', '.join(ways)})" if ways else ""
    then = "then " if included else ""
    tiers = price.get("tiers")
    costs = f"by tier, {each}" if tiers else f"{money(price.get('amount'), currency)} {each}"
    yield f"{then}{costs} {_per(price)}".rstrip() + how
    if tiers:
        yield from _tiers(tiers, currency)


def _tiers(tiers: list[Mapping[str, Any]], currency: str) -> Iterator[str]:
    before = Decimal(0)
    for tier in tiers:
        to = tier["to"]
        reach = f"above {amount(before)}" if to == "inf" else f"up to {amount(to)}"
        flat = f" + {money(tier['flat_amount'], currency)} once" if tier.get("flat_amount") else ""
        yield f"  {reach}: {money(tier.get('amount') or 0, currency)}{flat}"
        before = before if to == "inf" else Decimal(str(to))


def amount(number: Any) -> str:
    """A number as people write it: `2,000`, `0.001`."""
    return f"{Decimal(str(number)).normalize():,f}"


def money(number: Any, currency: str) -> str:
    """An amount of money, such as `$20` or `9.50 CHF`."""
    value = Decimal(str(number or 0))
    if value < 0:
        return f"-{money(-value, currency)}"
    text = amount(value)
    if "." in text and len(text.partition(".")[2]) == 1:
        text += "0"
    sign = _SIGNS.get(currency)
    return f"{sign}{text}" if sign else f"{text} {currency}"


def _per(cycle: Mapping[str, Any] | None) -> str:
    interval = (cycle or {}).get("interval")
    if interval is None:
        return ""
    if interval == "one_off":
        return "once"
    unit, count = _EVERY.get(interval, interval), (cycle or {}).get("interval_count") or 1
    return f"per {unit}" if count == 1 else f"per {count} {unit}s"
