"""What a catalog is made of: features, plans, items and prices as frozen values, in Autumn's own words.

The classes hold what was written; whether Autumn would take it is for `validate` to say, all at once. Their fields are
named as on the wire, so reading, sending and writing source follow from the classes alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, NamedTuple, TypeAlias

__all__ = [
    "UNSET",
    "BillingControls",
    "BillingInterval",
    "BillingMethod",
    "Customize",
    "Feature",
    "FeatureType",
    "FreeTrial",
    "Item",
    "ItemFilter",
    "ItemPrice",
    "ModelMarkup",
    "Number",
    "OnDecrease",
    "OnIncrease",
    "Plan",
    "PlanLicense",
    "PlanPrice",
    "PrepaidPrice",
    "Proration",
    "Reset",
    "ResetInterval",
    "ResetPrice",
    "Rollover",
    "Tier",
    "Unset",
    "UsagePrice",
    "Variant",
    "feature_id_of",
]

Number: TypeAlias = int | float | Decimal
FeatureType = Literal["boolean", "metered", "credit_system", "ai_credit_system"]
BillingMethod = Literal["prepaid", "usage_based"]
BillingInterval = Literal["one_off", "week", "month", "quarter", "semi_annual", "year"]
ResetInterval = Literal["one_off", "minute", "hour", "day", "week", "month", "quarter", "semi_annual", "year"]
OnIncrease = Literal["bill_immediately", "prorate_immediately", "prorate_next_cycle", "bill_next_cycle"]
OnDecrease = Literal["prorate", "prorate_immediately", "prorate_next_cycle", "none", "no_prorations"]

BillingControls: TypeAlias = Mapping[
    Literal["auto_topups", "spend_limits", "usage_limits", "usage_alerts", "overage_allowed"],
    Sequence[Mapping[str, Any]],
]
"""Defaults for the customers of a plan, as the API documents them: lists of entries, each with its `feature_id`."""


class Unset:
    """The type of `UNSET`: not given, where None has a meaning of its own."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET = Unset()


class ModelMarkup(NamedTuple):
    """How an AI credit system prices one model: percent on top of its price, or its costs in dollars a million tokens.

    -100 makes a model free. `custom/*` models need both costs.
    """

    markup: Number | None = None
    input_cost: Number | None = None
    output_cost: Number | None = None


@dataclass(frozen=True, kw_only=True)
class Feature:
    """Something that plans grant; see `feature`."""

    id: str
    name: str
    type: FeatureType
    consumable: bool | None = None
    event_names: tuple[str, ...] = ()
    credit_schema: Mapping[str, Number] | None = None
    default_markup: Number | None = None
    provider_markups: Mapping[str, Number] | None = None
    model_markups: Mapping[str, ModelMarkup] | None = None
    archived: bool = False

    def __hash__(self) -> int:
        return hash(self.id)  # the mappings have no hash, and a feature serves as a key of a credit schema


def feature_id_of(feature: Feature | str) -> str:
    """The id behind a reference."""
    return feature.id if isinstance(feature, Feature) else feature


@dataclass(frozen=True)
class Reset:
    """How often a balance starts anew: every `interval_count` intervals. `one_off`: never."""

    interval: ResetInterval
    interval_count: int | None = None


@dataclass(frozen=True)
class Tier:
    """A step of a tiered price: up to `to` units ("inf" for the last), at `amount` a unit plus `flat_amount` once."""

    to: Number | Literal["inf"]
    amount: Number | None = None
    flat_amount: Number | None = None
    additional_currencies: Sequence[Mapping[str, Any]] | None = None


@dataclass(frozen=True, kw_only=True)
class PlanPrice:
    """What a plan itself costs, in major units of the organisation's currency; see `price`."""

    amount: Number
    interval: BillingInterval
    interval_count: int | None = None
    additional_currencies: Sequence[Mapping[str, Any]] | None = None


@dataclass(frozen=True, kw_only=True)
class ItemPrice:
    """What more units cost, in major units per `billing_units`. Each of its three classes fits other items."""

    amount: Number | None = None
    tiers: tuple[Tier, ...] | None = None
    tier_behavior: Literal["graduated", "volume"] | None = None
    billing_units: Number = 1
    interval: BillingInterval | None = None
    interval_count: int | None = None
    billing_method: BillingMethod | None = None
    max_purchase: Number | None = None
    additional_currencies: Sequence[Mapping[str, Any]] | None = None


class ResetPrice(ItemPrice):
    """A price without an interval: it bills when the item resets, so it needs an item with a reset."""


class UsagePrice(ItemPrice):
    """Billed afterwards for what was used, per interval; the interval also resets the balance."""


class PrepaidPrice(ItemPrice):
    """Bought in advance, per interval or once; the balance may reset on another interval."""


@dataclass(frozen=True, kw_only=True)
class Proration:
    """What happens to the bill when a prepaid quantity changes within a cycle.

    The words are the API's. The types of `autumn.config.ts` have others, which Autumn refuses.
    """

    on_increase: OnIncrease
    on_decrease: OnDecrease


@dataclass(frozen=True, kw_only=True)
class Rollover:
    """How much of an unused balance moves to the next cycle (units or percent; neither: all), and for how long."""

    max: Number | None = None
    max_percentage: Number | None = None
    expiry_duration_type: Literal["month", "forever"]
    expiry_duration_length: int | None = None


@dataclass(frozen=True, kw_only=True)
class Item:
    """What a plan grants of one feature; see `item`."""

    feature_id: str
    included: Number | None = None
    unlimited: bool = False
    pooled: bool = False
    reset: Reset | None = None
    price: ItemPrice | None = None
    proration: Proration | None = None
    rollover: Rollover | None = None
    entity_feature_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class FreeTrial:
    """A trial before the first payment. `on_end` is `bill` (the default) or `revert` to the plan before."""

    duration_length: int
    duration_type: Literal["day", "month", "year"] = "month"
    card_required: bool = True
    on_end: Literal["bill", "revert"] | None = None


@dataclass(frozen=True, kw_only=True)
class ItemFilter:
    """Which items of a base plan go; all given fields must match."""

    feature_id: str | None = None
    billing_method: BillingMethod | None = None
    interval: ResetInterval | None = None
    interval_count: int | None = None


@dataclass(frozen=True, kw_only=True)
class Customize:
    """What a variant or a licence changes about its plan; see `customize`. None takes a price or trial away."""

    price: PlanPrice | Unset | None = UNSET
    items: tuple[Item, ...] | None = None
    add_items: tuple[Item, ...] | None = None
    remove_items: tuple[ItemFilter, ...] | None = None
    free_trial: FreeTrial | Unset | None = UNSET
    billing_controls: BillingControls | None = None


@dataclass(frozen=True, kw_only=True)
class PlanLicense:
    """A plan that is handed out under another one; see `plan_license`."""

    license_plan_id: str
    version: int | None = None
    included: int = 0
    prepaid_only: bool | None = None
    customize: Customize | None = None


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A plan that differs from its base by what `customize` says; made by `Plan.variant`.

    `archived` is known of what Autumn lists. A file cannot say it.
    """

    base_plan_id: str
    id: str
    name: str
    customize: Customize | None = None
    archived: bool = field(default=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a customer can have; see `plan`."""

    id: str
    name: str
    description: str | None = None
    group: str = ""
    add_on: bool = False
    auto_enable: bool = False
    archived: bool = False
    price: PlanPrice | None = None
    items: tuple[Item, ...] = ()
    free_trial: FreeTrial | None = None
    billing_controls: BillingControls | None = None
    licenses: tuple[PlanLicense, ...] = ()

    def variant(self, *, id: str, name: str, customize: Customize | None = None) -> Variant:  # noqa: A002 - Autumn's word
        """A plan of its own, such as the yearly one, that follows this one in all that `customize` does not change."""
        return Variant(base_plan_id=self.id, id=id, name=name, customize=customize)
