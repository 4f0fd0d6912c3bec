"""`autumn preview`: the plans of a catalog file in words."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from fastapi_autumn.catalog import Catalog, Feature
from fastapi_autumn.cli._catalog import load_valid
from fastapi_autumn.cli._console import show
from fastapi_autumn.cli._conventions import CatalogFile, OutputFormat
from fastapi_autumn.cli._describe import describe_item, describe_price, describe_trial
from fastapi_autumn.errors import ConfigurationError

__all__ = ["preview"]


def preview(
    *,
    plan_id: Annotated[str | None, typer.Argument(metavar="PLAN", help="Only this plan.", show_default=False)] = None,
    config: CatalogFile = Path("autumn_config.py"),
    currency: Annotated[str, typer.Option(help="The currency that the prices are in.")] = "USD",
    output_format: OutputFormat = "table",
) -> None:
    """Show what each plan gives and costs. Needs no key and no network.

    Examples:
        autumn preview
        autumn preview pro --currency EUR
    """
    catalog = load_valid(config)
    plans = _plans(catalog)
    if plan_id is not None:
        if plan_id not in plans:
            there = ", ".join(plans) or "none"
            raise ConfigurationError(f"{config} has no plan {plan_id!r}; it has: {there}.")
        plans = {plan_id: plans[plan_id]}
    features = {feature.id: feature for feature in catalog.features}
    rows = [_row(plan, features, currency.upper()) for plan in plans.values()]
    show(
        output_format,
        ["plan", "name", "costs", "gives"],
        rows if output_format == "table" else [[*row[:3], "; ".join(row[3])] for row in rows],
        document={"plans": list(plans.values())},
        empty=f"{config} has no plans.",
    )


def _plans(catalog: Catalog) -> dict[str, dict[str, Any]]:
    """Every plan and, behind it, its variants as the plans that they become."""
    wire = {plan["plan_id"]: plan for plan in catalog.to_wire()["plans"]}
    plans: dict[str, dict[str, Any]] = {}
    for plan in (wire[one.id] for one in catalog.plans):
        variants = plan.pop("variants", ())
        plans[plan["plan_id"]] = plan
        for variant in variants:
            plans[variant["variant_plan_id"]] = _customized(plan, variant)
    return plans


def _customized(plan: Mapping[str, Any], variant: Mapping[str, Any]) -> dict[str, Any]:
    changed = dict(variant.get("customize") or {})
    added, removed = changed.pop("add_items", []), changed.pop("remove_items", [])
    items = changed.pop("items", plan["items"])
    kept = [item for item in items if not any(_matches(item, one) for one in removed)]
    named = {"plan_id": variant["variant_plan_id"], "name": variant["name"], "auto_enable": False}
    return {**plan, **changed, **named, "items": [*kept, *added]}


def _matches(item: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    cycle = item.get("price") or item.get("reset") or {}
    return all((item if name == "feature_id" else cycle).get(name) == value for name, value in wanted.items())


def _row(plan: Mapping[str, Any], features: Mapping[str, Feature], currency: str) -> list[Any]:
    kinds = [name.replace("_", "-") for name in ("add_on", "archived") if plan.get(name)]
    kinds += ["for every new customer"] if plan.get("auto_enable") else []
    name = f"{plan['name']} ({', '.join(kinds)})" if kinds else plan["name"]
    paid_items = any(item.get("price") for item in plan["items"])
    costs = describe_price(plan.get("price"), currency) or ("" if paid_items else "free")
    costs = ", ".join(part for part in (costs, describe_trial(plan.get("free_trial"))) if part)
    gives: list[str] = []
    for item in plan["items"]:
        feature = features.get(item["feature_id"])
        what = item["feature_id"] if feature is None else feature.name
        consumable = feature is None or feature.consumable is not False
        gives += describe_item(item, what, consumable=consumable, currency=currency)
    return [plan["plan_id"], name, costs, gives]
