"""Features and plans as they are kept, and what can be asked about them.

Both are kept in the shape in which Autumn shows them, so that showing them is no work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal

from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator._errors import not_found
from fastapi_autumn.emulator.books._entitlements import amount

FEATURE_TYPES = ("boolean", "metered", "credit_system", "ai_credit_system")
CREDIT_SYSTEMS = ("credit_system", "ai_credit_system")


class Catalog:
    """All features and plans, as they were at one revision."""

    def __init__(self, features: Iterable[Document], plans: Iterable[Document], new_id: Callable[[str], str]) -> None:
        self.new_id = new_id
        self.features = {feature["id"]: feature for feature in features}
        self.versions: dict[str, list[Document]] = {}
        for plan in plans:
            self.versions.setdefault(plan["id"], []).append(plan)
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

    def is_upgrade(self, before: Document, after: Document) -> bool:
        """Whether going from one plan to another takes effect at once; otherwise it waits for the end of the cycle.

        It does unless it is cheaper by the month. What is paid for after its use counts for nothing, and who commits
        for longer, or pays only for use, always upgrades.
        """
        if is_free(before) or is_free(after):
            return is_free(before)
        earlier, later = _prices(before), _prices(after)
        if is_one_off(before) or is_one_off(after) or not any(map(self._is_fixed, earlier + later)):
            return True
        if max(map(_months, later)) > max(map(_months, earlier)):
            return True
        return self._monthly(earlier) <= self._monthly(later)

    def _is_fixed(self, price: Document) -> bool:
        feature_id = price.get("feature_id")
        return price.get("billing_method") != "usage_based" or not self.features[feature_id]["consumable"]

    def _monthly(self, prices: Iterable[Document]) -> Decimal:
        total = Decimal(0)
        for price in filter(self._is_fixed, prices):
            first = (price.get("tiers") or [price])[0]
            total += amount(first.get("amount") or 0) / (_months(price) or 1)
        return total

    def sorted_plans(self) -> list[Document]:
        """List the newest versions as Autumn does: by group, plans before add-ons, by price, the newest first."""
        return sorted(
            self.plans.values(),
            key=lambda plan: (plan["group"] or "", plan["add_on"], total_price(plan), -plan["created_at"]),
        )


_MONTHS = {
    "week": Decimal("0.25"),
    "month": Decimal(1),
    "quarter": Decimal(3),
    "semi_annual": Decimal(6),
    "year": Decimal(12),
}


def _prices(plan: Document) -> list[Document]:
    """List the price of a plan, and those of its items with the feature that they are for."""
    of_items = [item["price"] | {"feature_id": item["feature_id"]} for item in plan["items"] if item["price"]]
    return [plan["price"], *of_items] if plan["price"] else of_items


def _months(price: Document) -> Decimal:
    """Say how many months a price is for; 0 for what is paid once."""
    return _MONTHS.get(price["interval"], Decimal(0)) * (price.get("interval_count") or 1)


def total_price(plan: Document) -> float:
    """Add up a plan's prices, as plans are sorted by them."""
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
    return {price["interval"] for price in _prices(plan)} == {"one_off"}
