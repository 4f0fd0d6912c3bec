"""Between the classes of a catalog and Autumn's JSON: what is sent for it, and what the lists answer.

Sending follows the official command line: some fields always (`price`, `items`, `group`), others only when they say
something. Reading takes both what the API answers and what is sent, and brings it into the form in which an author
would have written it: no zero allowance, no count of one, no reset that repeats the price.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from decimal import Decimal
from typing import Any

from fastapi_autumn.catalog._model import (
    UNSET,
    Customize,
    Feature,
    FeatureType,
    FreeTrial,
    Item,
    ItemFilter,
    ItemPrice,
    ModelMarkup,
    Number,
    Plan,
    PlanLicense,
    PlanPrice,
    Proration,
    Reset,
    Rollover,
    Tier,
    Variant,
)
from fastapi_autumn.catalog._prices import item_price, one_cycle
from fastapi_autumn.errors import CatalogError

__all__ = ["feature_from_wire", "feature_to_wire", "plan_from_wire", "plan_to_wire", "to_json", "variant_from_wire"]

_FEATURE_TYPES: dict[str, tuple[FeatureType, bool]] = {
    "single_use": ("metered", True),
    "continuous_use": ("metered", False),
}


def to_json(value: Any) -> Any:
    """A value of a catalog as JSON: fields that say nothing are left out, features become their ids."""
    if isinstance(value, Feature):
        return value.id
    if is_dataclass(value):
        parts = ((field, getattr(value, field.name)) for field in fields(value))
        return {field.name: to_json(part) for field, part in parts if not _says_nothing(part, field.default)}
    if isinstance(value, Mapping):
        return {to_json(key): to_json(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [to_json(part) for part in value]
    return _number(value) if isinstance(value, int | float | Decimal) and not isinstance(value, bool) else value


def _number(value: Number) -> int | float:
    if not math.isfinite(value):
        raise CatalogError(f"a number in a catalog must be finite, not {value}")
    return int(value) if value == int(value) else float(value)


def _says_nothing(value: Any, default: Any) -> bool:
    """Whether `value` is a default that the API has too; None is more than that where the default is `UNSET`."""
    if value == Customize():
        return True
    return value is default and (value is None or value is False or value is UNSET)


def feature_to_wire(feature: Feature) -> dict[str, Any]:
    """The entry for `feature` in a catalog update. Whether it is archived is not part of it."""
    wire: dict[str, Any] = {"feature_id": feature.id, "name": feature.name, "type": feature.type}
    if feature.event_names:
        wire["event_names"] = list(feature.event_names)
    if feature.type == "metered":
        wire["consumable"] = feature.consumable
    if feature.credit_schema is not None:
        wire["credit_schema"] = [
            {"metered_feature_id": feature_id, "credit_cost": to_json(cost)}
            for feature_id, cost in feature.credit_schema.items()
        ]
    if feature.model_markups is not None:
        wire["model_markups"] = {name: _markup(entry) for name, entry in feature.model_markups.items()}
    if feature.default_markup is not None:
        wire["default_markup"] = to_json(feature.default_markup)
    if feature.provider_markups is not None:
        wire["provider_markups"] = {
            provider: {"markup": to_json(markup)} for provider, markup in feature.provider_markups.items()
        }
    return wire


def _markup(entry: ModelMarkup) -> dict[str, Any]:
    return {name: to_json(part) for name, part in entry._asdict().items() if part is not None}


def plan_to_wire(plan: Plan, variants: Sequence[Variant] = ()) -> dict[str, Any]:
    """The entry for `plan` and its variants in a catalog update."""
    wire: dict[str, Any] = {
        "plan_id": plan.id,
        "name": plan.name,
        "licenses": to_json(plan.licenses),
        "group": plan.group,
        "add_on": plan.add_on,
        "auto_enable": plan.auto_enable,
        "price": to_json(plan.price),
        "items": to_json(plan.items),
        "free_trial": to_json(plan.free_trial),
    }
    if plan.archived:
        wire["archived"] = True
    if plan.description is not None:
        wire["description"] = plan.description
    if plan.billing_controls is not None:
        wire["billing_controls"] = to_json(plan.billing_controls)
    if variants:
        wire["variants"] = [_variant_to_wire(variant) for variant in variants]
    return wire


def _variant_to_wire(variant: Variant) -> dict[str, Any]:
    wire: dict[str, Any] = {"variant_plan_id": variant.id, "name": variant.name}
    if variant.customize not in (None, Customize()):
        wire["customize"] = to_json(variant.customize)
    return wire


def feature_from_wire(wire: Mapping[str, Any]) -> Feature:
    """A feature from what `features.list` answers or a catalog update sends."""
    listed = wire["type"]  # of a newer API perhaps one that validation will not know
    kind, consumable = _FEATURE_TYPES.get(listed, (listed, wire.get("consumable", False)))
    schema = wire.get("credit_schema") if kind == "credit_system" else None
    providers = wire.get("provider_markups")
    models = wire.get("model_markups")
    return Feature(
        id=_id(wire, "feature_id"),
        name=wire["name"],
        type=kind,
        consumable=consumable if kind == "metered" else None,
        event_names=tuple(wire.get("event_names") or ()),
        credit_schema=None
        if schema is None
        else {entry["metered_feature_id"]: entry["credit_cost"] for entry in schema},
        default_markup=wire.get("default_markup"),
        provider_markups={name: entry["markup"] for name, entry in providers.items()} if providers else None,
        model_markups={name: ModelMarkup(**_known(entry, ModelMarkup._fields)) for name, entry in models.items()}
        if models
        else None,
        archived=bool(wire.get("archived")),
    )


def plan_from_wire(wire: Mapping[str, Any]) -> Plan:
    """A plan from what `plans.list` answers or a catalog update sends, without its variants."""
    return Plan(
        id=_id(wire, "plan_id"),
        name=wire["name"],
        description=wire.get("description") or None,
        group=wire.get("group") or "",
        add_on=bool(wire.get("add_on")),
        auto_enable=bool(wire.get("auto_enable")),
        archived=bool(wire.get("archived")),
        price=_plan_price(wire.get("price")),
        items=_items(wire.get("items") or ()),
        free_trial=_free_trial(wire.get("free_trial")),
        billing_controls=wire.get("billing_controls") or None,
        licenses=tuple(_license(entry) for entry in wire.get("licenses") or ()),
    )


def variant_from_wire(wire: Mapping[str, Any], base_plan_id: str) -> Variant:
    """A variant from an entry of `variants`, or from a plan with its `variant_details`."""
    details = wire.get("variant_details") or wire
    return Variant(
        base_plan_id=base_plan_id,
        id=_id(wire, "variant_plan_id"),
        name=wire["name"],
        customize=_customize(details.get("customize")),
        archived=bool(wire.get("archived")),
    )


def _id(wire: Mapping[str, Any], sent_as: str) -> str:
    found = wire.get("id", wire.get(sent_as))
    if not isinstance(found, str):
        raise CatalogError(f"Autumn's list has an entry without an id: {', '.join(sorted(wire)) or 'an empty one'}")
    return found


def _known(wire: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: wire[name] for name in names if wire.get(name) is not None}


def _plan_price(wire: Mapping[str, Any] | None) -> PlanPrice | None:
    return PlanPrice(**_cycle(wire, PlanPrice)) if wire else None


def _free_trial(wire: Mapping[str, Any] | None) -> FreeTrial | None:
    return FreeTrial(**_known(wire, _names(FreeTrial))) if wire else None


def _items(wire: Sequence[Mapping[str, Any]]) -> tuple[Item, ...]:
    return tuple(_item(entry) for entry in wire)


def _item(wire: Mapping[str, Any]) -> Item:
    unlimited = bool(wire.get("unlimited"))
    reset = Reset(**_cycle(wire["reset"], Reset)) if wire.get("reset") else None
    reset, price = one_cycle(reset, _item_price(wire.get("price")))
    proration, rollover = wire.get("proration"), wire.get("rollover")
    return Item(
        feature_id=wire["feature_id"],
        included=None if unlimited else wire.get("included") or None,
        unlimited=unlimited,
        pooled=bool(wire.get("pooled")),
        reset=reset,
        price=price,
        proration=Proration(**_known(proration, _names(Proration))) if proration else None,
        rollover=Rollover(**_known(rollover, _names(Rollover))) if rollover else None,
        entity_feature_id=wire.get("entity_feature_id"),
    )


def _item_price(wire: Mapping[str, Any] | None) -> ItemPrice | None:
    if not wire:
        return None
    values = _cycle(wire, ItemPrice)
    if "tiers" in values:
        values["tiers"] = tuple(Tier(**_known(tier, _names(Tier))) for tier in values["tiers"])
    return item_price(**values)


def _license(wire: Mapping[str, Any]) -> PlanLicense:
    values = _known(wire, _names(PlanLicense))
    values["customize"] = _customize(wire.get("customize"))
    return PlanLicense(**values)


def _customize(wire: Mapping[str, Any] | None) -> Customize | None:
    if not wire:
        return None
    removed = wire.get("remove_items")
    found = Customize(
        price=_plan_price(wire["price"]) if "price" in wire else UNSET,
        items=_items(wire["items"]) if wire.get("items") is not None else None,
        add_items=_items(wire["add_items"]) if wire.get("add_items") is not None else None,
        remove_items=None
        if removed is None
        else tuple(ItemFilter(**_known(entry, _names(ItemFilter))) for entry in removed),
        free_trial=_free_trial(wire["free_trial"]) if "free_trial" in wire else UNSET,
        billing_controls=wire.get("billing_controls") or None,
    )
    return None if found == Customize() else found


def _cycle(wire: Mapping[str, Any], cls: type) -> dict[str, Any]:
    """The known fields of something with an interval; a count of one is what an interval means anyway."""
    values = _known(wire, _names(cls))
    if values.get("interval_count") == 1:
        del values["interval_count"]
    return values


def _names(cls: type) -> list[str]:
    return [field.name for field in fields(cls)]
