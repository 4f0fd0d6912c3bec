"""The functions that a catalog is written with: `feature`, `item`, `plan` and their helpers.

Their overloads are the rules that a type checker can see: which arguments a kind of feature has, and which price fits
which item. What it cannot see, `validate` says.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

from fastapi_autumn.catalog._model import (
    UNSET,
    BillingControls,
    BillingMethod,
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
    PrepaidPrice,
    Proration,
    Reset,
    ResetInterval,
    ResetPrice,
    Rollover,
    Unset,
    UsagePrice,
    feature_id_of,
)
from fastapi_autumn.catalog._prices import item_price, one_cycle
from fastapi_autumn.catalog._rules import require

__all__ = ["customize", "feature", "item", "item_filter", "plan", "plan_license"]

# `id`, `type` and `max` are Autumn's names for these fields, in its API and in autumn.config.ts alike.
# ruff: noqa: A002

_A_TRIAL = 'FreeTrial(duration_length=14, duration_type="day")'


@overload
def feature(
    *,
    id: str,
    name: str,
    type: Literal["metered"],
    consumable: bool,
    event_names: Sequence[str] = ...,
    archived: bool = ...,
) -> Feature: ...
@overload
def feature(*, id: str, name: str, type: Literal["boolean"], archived: bool = ...) -> Feature: ...
@overload
def feature(
    *,
    id: str,
    name: str,
    type: Literal["credit_system"],
    credit_schema: Mapping[Feature, Number] | Mapping[str, Number] | Mapping[Feature | str, Number],
    event_names: Sequence[str] = ...,
    archived: bool = ...,
) -> Feature: ...
@overload
def feature(
    *,
    id: str,
    name: str,
    type: Literal["ai_credit_system"],
    default_markup: Number | None = ...,
    provider_markups: Mapping[str, Number] | None = ...,
    model_markups: Mapping[str, Number | ModelMarkup] | None = ...,
    event_names: Sequence[str] = ...,
    archived: bool = ...,
) -> Feature: ...
def feature(
    *,
    id: str,
    name: str,
    type: FeatureType,
    consumable: bool | None = None,
    credit_schema: Mapping[Any, Number] | None = None,
    default_markup: Number | None = None,
    provider_markups: Mapping[str, Number] | None = None,
    model_markups: Mapping[str, Number | ModelMarkup] | None = None,
    event_names: Sequence[str] = (),
    archived: bool = False,
) -> Feature:
    """Define something that plans grant.

    Args:
        id: what code checks and tracks, such as `ai_usage`; it cannot change later.
        name: what people read.
        type: `metered` is counted, `boolean` is there or not, a `credit_system` turns metered features into credits,
            an `ai_credit_system` turns tokens of models into dollars.
        consumable: of a metered feature: used up and reset (calls, tokens), or held (seats).
        credit_schema: of a credit system: metered feature to the credits that one unit costs.
        default_markup: of an AI credit system: percent on top of a model's price; -100 makes it free.
        provider_markups: the same by provider, such as `{"openai": 5}`; goes before the default.
        model_markups: the same by `provider/model`; goes before both.
        event_names: events that count as usage of this feature.
        archived: no longer offered.

    Raises:
        CatalogError: `id` or `name` is no text.
    """
    _require_names("feature", id, name)
    return Feature(
        id=id,
        name=name,
        type=type,
        consumable=consumable,
        event_names=tuple(event_names),
        credit_schema=None if credit_schema is None else {feature_id_of(k): v for k, v in credit_schema.items()},
        default_markup=default_markup,
        provider_markups=None if provider_markups is None else dict(provider_markups),
        model_markups=None
        if model_markups is None
        else {k: v if isinstance(v, ModelMarkup) else ModelMarkup(v) for k, v in model_markups.items()},
        archived=archived,
    )


@overload
def item(
    feature: Feature | str,
    *,
    reset: ResetInterval | Reset,
    price: ResetPrice | PrepaidPrice | None = ...,
    included: Number | None = ...,
    proration: Proration | None = ...,
    rollover: Rollover | None = ...,
    pooled: bool = ...,
    entity_feature: Feature | str | None = ...,
) -> Item: ...
@overload
def item(
    feature: Feature | str,
    *,
    price: PrepaidPrice,
    included: Number | None = ...,
    proration: Proration | None = ...,
    rollover: Rollover | None = ...,
    pooled: bool = ...,
    entity_feature: Feature | str | None = ...,
) -> Item: ...
@overload
def item(
    feature: Feature | str,
    *,
    price: UsagePrice,
    included: Number | None = ...,
    rollover: Rollover | None = ...,
    pooled: bool = ...,
    entity_feature: Feature | str | None = ...,
) -> Item: ...
@overload
def item(
    feature: Feature | str,
    *,
    included: Number | None = ...,
    pooled: bool = ...,
    entity_feature: Feature | str | None = ...,
) -> Item: ...
@overload
def item(
    feature: Feature | str, *, unlimited: Literal[True], pooled: bool = ..., entity_feature: Feature | str | None = ...
) -> Item: ...
def item(
    feature: Feature | str,
    *,
    included: Number | None = None,
    unlimited: bool = False,
    reset: ResetInterval | Reset | None = None,
    price: ItemPrice | PlanPrice | None = None,
    proration: Proration | None = None,
    rollover: Rollover | None = None,
    pooled: bool = False,
    entity_feature: Feature | str | None = None,
) -> Item:
    """Say what a plan grants of `feature`, in one of three shapes.

    With `reset`: `included` units every interval, and perhaps a price without an interval, which then bills at each
    reset (or a prepaid one with an interval of its own). With a `price` that has an interval, which bills *and*
    resets. With neither: units that are held (seats), a flag, or `unlimited`.

    Args:
        feature: the feature or its id.
        included: units without further payment.
        unlimited: no limit and no price.
        reset: an interval, or `Reset("month", 2)` for every second one.
        price: see `price`.
        proration: of a prepaid price: what a change of quantity within a cycle costs.
        rollover: what becomes of units that are left at a reset.
        pooled: what is granted to entities adds up to one balance of the customer.
        entity_feature: grant the units once for each entity of that feature (each seat).

    Raises:
        CatalogError: An argument is of another type; the message says what to write.
    """
    require(feature, Feature | str, "the feature of an item", "the feature or its id")
    what = f'of the item for "{feature_id_of(feature)}"'
    require(reset, Reset | str | None, f"the reset {what}", '"month", or Reset("month", 2)')
    require(price, ItemPrice | PlanPrice | None, f"the price {what}", 'price(1, billing_method="usage_based")')
    require(rollover, Rollover | None, f"the rollover {what}", "Rollover(...)")
    require(proration, Proration | None, f"the proration {what}", "Proration(...)")
    if isinstance(price, PlanPrice):  # without a billing method, which validation asks for
        price = item_price(**vars(price))
    reset, price = one_cycle(Reset(reset) if isinstance(reset, str) else reset, price)
    return Item(
        feature_id=feature_id_of(feature),
        included=included,
        unlimited=unlimited,
        pooled=pooled,
        reset=reset,
        price=price,
        proration=proration,
        rollover=rollover,
        entity_feature_id=None if entity_feature is None else feature_id_of(entity_feature),
    )


def item_filter(
    feature: Feature | str | None = None,
    *,
    billing_method: BillingMethod | None = None,
    interval: ResetInterval | None = None,
    interval_count: int | None = None,
) -> ItemFilter:
    """Say which items of the base plan a variant or licence does without; all that is given must match."""
    return ItemFilter(
        feature_id=None if feature is None else feature_id_of(feature),
        billing_method=billing_method,
        interval=interval,
        interval_count=interval_count,
    )


def customize(
    *,
    price: PlanPrice | Unset | None = UNSET,
    items: Sequence[Item] | None = None,
    add_items: Sequence[Item] | None = None,
    remove_items: Sequence[ItemFilter] | None = None,
    free_trial: FreeTrial | Unset | None = UNSET,
    billing_controls: BillingControls | None = None,
) -> Customize:
    """Say what a variant or a licence changes about its plan.

    What is left out stays as in the plan; `price=None` and `free_trial=None` take them away. Either `items` replaces
    all items, or `remove_items` and `add_items` change some.

    Raises:
        CatalogError: An argument is of another type; the message says what to write.
    """
    require(price, PlanPrice | Unset | None, "the price of customize", 'price(20, interval="month")')
    require(free_trial, FreeTrial | Unset | None, "the free_trial of customize", _A_TRIAL)
    for name, given in (("items", items), ("add_items", add_items)):
        _require_each(given, Item, f"{name} of customize", "item(...)")
    _require_each(remove_items, ItemFilter, "remove_items of customize", "item_filter(...)")
    _require_controls("customize", billing_controls)
    return Customize(
        price=price,
        items=None if items is None else tuple(items),
        add_items=None if add_items is None else tuple(add_items),
        remove_items=None if remove_items is None else tuple(remove_items),
        free_trial=free_trial,
        billing_controls=billing_controls,
    )


def plan_license(
    plan: Plan | str,
    *,
    included: int = 0,
    version: int | None = None,
    prepaid_only: bool | None = None,
    customize: Customize | None = None,
) -> PlanLicense:
    """Offer `plan` (or its id) under another plan, to be assigned to that customer's entities.

    Args:
        plan: the plan that is handed out.
        included: how many come without further payment.
        version: of the plan; the newest by default.
        prepaid_only: further ones must be paid in advance.
        customize: what differs from the plan when it is handed out here.
    """
    return PlanLicense(
        license_plan_id=plan if isinstance(plan, str) else plan.id,
        version=version,
        included=included,
        prepaid_only=prepaid_only,
        customize=customize,
    )


def plan(
    *,
    id: str,
    name: str,
    description: str | None = None,
    group: str = "",
    add_on: bool = False,
    auto_enable: bool = False,
    archived: bool = False,
    price: PlanPrice | None = None,
    items: Sequence[Item] = (),
    free_trial: FreeTrial | None = None,
    billing_controls: BillingControls | None = None,
    licenses: Sequence[PlanLicense] = (),
) -> Plan:
    """Define a plan.

    Args:
        id: what code attaches, such as `pro`; it cannot change later.
        name: what people read.
        description: what people read below the name.
        group: of the plans of one group a customer has one at a time.
        add_on: comes on top of other plans instead of replacing one.
        auto_enable: every new customer gets it; for plans without a price.
        archived: no longer offered.
        price: see `price`; None for a free plan, or one that costs only by usage.
        items: see `item`.
        free_trial: see `FreeTrial`.
        billing_controls: defaults for its customers.
        licenses: see `plan_license`.

    Raises:
        CatalogError: An argument is of another type, such as the price of an item; the message says what to write.
    """
    _require_names("plan", id, name)
    what = f'of plan "{id}"'
    require(price, PlanPrice | None, f"the price {what}", 'price(20, interval="month"), without a billing_method')
    require(free_trial, FreeTrial | None, f"the free_trial {what}", _A_TRIAL)
    _require_each(items, Item, f"items {what}", 'item(feature, included=50, reset="month")')
    _require_each(licenses, PlanLicense, f"licenses {what}", "plan_license(plan)")
    _require_controls(f'plan "{id}"', billing_controls)
    return Plan(
        id=id,
        name=name,
        description=description,
        group=group,
        add_on=add_on,
        auto_enable=auto_enable,
        archived=archived,
        price=price,
        items=tuple(items),
        free_trial=free_trial,
        billing_controls=billing_controls,
        licenses=tuple(licenses),
    )


def _require_names(kind: str, id: object, name: object) -> None:
    require(id, str, f"the id of a {kind}", 'a text, such as "pro"')
    require(name, str, f'the name of {kind} "{id}"', "a text")


def _require_each(given: Sequence[object] | None, kind: type, what: str, instead: str) -> None:
    require(given, list | tuple | None, what, f"a list: [{instead}]")
    for number, one in enumerate(given or (), start=1):
        require(one, kind, f"number {number} of {what}", instead)


def _require_controls(whose: str, controls: BillingControls | None) -> None:
    require(controls, Mapping | None, f"billing_controls of {whose}", "a mapping of lists")
    for name, entries in (controls or {}).items():
        _require_each(entries, Mapping, f"{name} in billing_controls of {whose}", '{"feature_id": ...}')
