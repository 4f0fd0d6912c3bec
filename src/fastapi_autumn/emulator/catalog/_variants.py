"""Variants: plans that are another plan, their base, with some parts customised."""

from __future__ import annotations

from fastapi_autumn.emulator._document import Document


def write_out(base: Document, variant: Document) -> Document:
    """Write a variant of catalog.update out as the body of a plan of its own; `base` is the body that it stands in."""
    customize = variant.get("customize") or {}
    body = {key: value for key, value in base.items() if key not in ("variants", "auto_enable")}
    body |= {key: customize[key] for key in ("price", "free_trial", "items") if key in customize}
    dropped = customize.get("remove_items") or []
    kept = [item for item in body.get("items") or [] if not any(_fits(item, wanted) for wanted in dropped)]
    body["items"] = kept + (customize.get("add_items") or [])
    return body | {"plan_id": variant["variant_plan_id"], "name": variant.get("name") or base.get("name")}


def describe(base_id: str, variant: Document) -> Document:
    """Tell what a plan says about being a variant: its base, and the customisation as it was sent."""
    customize = dict(variant.get("customize") or {})
    if "remove_items" in customize:
        # The interval of what a variant does without is taken, and not shown.
        customize["remove_items"] = [
            {key: value for key, value in one.items() if key in ("feature_id", "billing_method")}
            for one in customize["remove_items"]
        ]
    details = {"base_plan_id": base_id} | ({"customize": customize} if customize else {})
    return {"base_variant_id": base_id, "variant_details": details}


def _fits(item: Document, wanted: Document) -> bool:
    """Whether an item is one of those that a filter of `remove_items` takes out."""
    price = item.get("price") or {}
    cycle = price if "interval" in price else item.get("reset") or {}
    found = {
        "feature_id": item.get("feature_id"),
        "billing_method": price.get("billing_method"),
        "interval": cycle.get("interval"),
        "interval_count": cycle.get("interval_count", 1),
    }
    return all(found.get(key) == value for key, value in wanted.items())
