"""What travels on the wire between this package and Autumn, and who is calling.

Field names are Autumn's. Unknown fields are ignored, so a newer Autumn does not break an older package; a missing one
that its contract requires is an error. Amounts are `Decimal`, with the digits that Autumn writes for its doubles;
points in time are milliseconds since 1970, as Autumn sends them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic.dataclasses import dataclass as pydantic_dataclass

__all__ = [
    "Amount",
    "AttachResult",
    "Balance",
    "BalanceBreakdown",
    "BillingControls",
    "CheckResult",
    "Customer",
    "CustomerPage",
    "CustomerRecord",
    "Deduction",
    "EntityPage",
    "EntityRecord",
    "Event",
    "EventAggregate",
    "EventBin",
    "EventPage",
    "EventTotal",
    "Feature",
    "FinalizeResult",
    "Interval",
    "Invoice",
    "LineItem",
    "Lock",
    "NextCycle",
    "PaymentSetup",
    "Plan",
    "PlanChange",
    "PlanChoice",
    "PortalResult",
    "Preview",
    "Purchase",
    "RequiredAction",
    "Reset",
    "Subscription",
    "TrackEvent",
    "TrackResult",
]

Interval = Literal["one_off", "minute", "hour", "day", "week", "month", "quarter", "semi_annual", "year"]


Amount = Annotated[
    Decimal,
    PlainSerializer(float, return_type=float, when_used="json"),
    WithJsonSchema({"type": "number"}),
]
"""An exact decimal here, a number in JSON both ways, so that a front end can calculate with it."""


@dataclass(frozen=True, slots=True)
class Customer:
    """Who is calling, as the application knows them.

    `id` is the application's own user or team id and becomes Autumn's `customer_id`. Autumn keeps the first `name` and
    `email` it is given and fills in missing ones later.
    """

    id: str
    name: str | None = None
    email: str | None = None
    fingerprint: str | None = None
    metadata: Mapping[str, Any] | None = field(default=None, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackEvent:
    """One entry of `balances.batch_track`: as the arguments of `track`, with either `feature_id` or `event_name`."""

    customer_id: str
    value: Decimal | float = 1
    feature_id: str | None = None
    event_name: str | None = None
    entity_id: str | None = None
    properties: Mapping[str, Any] | None = field(default=None, hash=False)
    timestamp: int | None = None


@dataclass(frozen=True, slots=True)
class PlanChoice:
    """One plan of `billing.multi_attach`, with feature id to units for what is bought in advance."""

    plan_id: str
    feature_quantities: Mapping[str, int] | None = field(default=None, hash=False)


@dataclass(frozen=True, slots=True)
class Lock:
    """A hold to place with a check.

    `expires_at` is in milliseconds and at most 24 hours ahead; Autumn keeps a hold without one for ever.
    A `lock_id` must never be used twice: a finished one blocks its id for an hour.
    """

    lock_id: str
    expires_at: int


_LENIENT = ConfigDict(extra="ignore")
# Balances are dataclasses because a charge keeps its balance for as long as its stream is open: 1 KB instead of 3.5.


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


@pydantic_dataclass(config=_LENIENT, frozen=True, slots=True, kw_only=True)
class Reset:
    """When a balance refills. `interval` is "multiple" where balances with different intervals are shown as one."""

    interval: str
    interval_count: int = 1
    resets_at: int | None = None


@pydantic_dataclass(config=_LENIENT, frozen=True, slots=True, kw_only=True)
class BalanceBreakdown:
    """One grant behind a balance: what one plan, top-up or manual grant gave."""

    id: str | None = None
    plan_id: str | None = None
    included_grant: Amount = Decimal(0)
    prepaid_grant: Amount = Decimal(0)
    remaining: Amount = Decimal(0)
    usage: Amount = Decimal(0)
    unlimited: bool = False
    reset: Reset | None = None
    expires_at: int | None = None


@pydantic_dataclass(config=_LENIENT, frozen=True, slots=True, kw_only=True)
class Balance:
    """What a customer has of one feature, in units of that feature.

    `remaining` is never below 0; `usage` may exceed `granted` where the plan allows overage.
    """

    feature_id: str
    granted: Amount
    remaining: Amount
    usage: Amount
    unlimited: bool
    overage_allowed: bool
    max_purchase: Amount | None = None
    next_reset_at: int | None = None
    breakdown: tuple[BalanceBreakdown, ...] = ()


class CheckResult(_Answer):
    """The answer of `balances.check`.

    `balance` is that of the credit system when the feature is paid through one, and `required_balance` is then in
    credits. `preview` is there only when it was asked for and the check was refused.
    """

    allowed: bool
    customer_id: str | None
    balance: Balance | None
    entity_id: str | None = None
    required_balance: Amount | None = None
    flag: dict[str, Any] | None = None
    preview: dict[str, Any] | None = None


class Deduction(_Answer):
    """What really moved on one grant; a refund is negative."""

    balance_id: str
    feature_id: str
    value: Amount
    plan_id: str | None = None


class TrackResult(_Answer):
    """The answer of `balances.track`. `value` is what was asked for, `deductions` what really moved."""

    customer_id: str | None
    value: Amount
    entity_id: str | None = None
    balance: Balance | None = None
    deductions: tuple[Deduction, ...] | None = None


class FinalizeResult(_Answer):
    """The answer of `balances.finalize`, which says no more than this."""

    success: Literal[True]


class Subscription(_Answer):
    """A plan that a customer is on. `status` is "active" or "scheduled"; a past-due one is still active."""

    plan_id: str
    status: str
    add_on: bool = False
    auto_enable: bool = False
    past_due: bool = False
    canceled_at: int | None = None
    expires_at: int | None = None
    trial_ends_at: int | None = None
    started_at: int | None = None
    current_period_end: int | None = None
    quantity: Amount = Decimal(1)
    scope: Literal["customer", "entity"] | None = None


class Purchase(_Answer):
    """A one-off plan that a customer bought."""

    plan_id: str
    started_at: int | None = None
    expires_at: int | None = None
    quantity: Amount = Decimal(1)
    scope: Literal["customer", "entity"] | None = None


class BillingControls(_Answer):
    """What limits a customer besides the balance, as far as this package has to know.

    `usage_limits` are bodies such as `{"feature_id", "limit", "interval"}`.
    """

    usage_limits: tuple[dict[str, Any], ...] = ()


class CustomerRecord(_Answer):
    """A customer as Autumn keeps them: who, which plans, which balances (by feature id), which flags."""

    id: str | None
    name: str | None = None
    email: str | None = None
    created_at: int | None = None
    env: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    subscriptions: tuple[Subscription, ...] = ()
    purchases: tuple[Purchase, ...] = ()
    balances: dict[str, Balance] = Field(default_factory=dict)
    flags: dict[str, Any] = Field(default_factory=dict)
    billing_controls: BillingControls = BillingControls()


class EntityRecord(_Answer):
    """An entity as Autumn keeps it; `balances` are its own and those it shares with its customer."""

    id: str | None
    name: str | None = None
    customer_id: str | None = None
    feature_id: str | None = None
    created_at: int | None = None
    subscriptions: tuple[Subscription, ...] = ()
    purchases: tuple[Purchase, ...] = ()
    balances: dict[str, Balance] = Field(default_factory=dict)
    flags: dict[str, Any] = Field(default_factory=dict)


class EntityPage(_Answer):
    """One page of entities; `next_cursor` is None on the last."""

    list: tuple[EntityRecord, ...]
    next_cursor: str | None = None


class CustomerPage(_Answer):
    """One page of customers; `next_cursor` is None on the last."""

    list: tuple[CustomerRecord, ...]
    next_cursor: str | None = None


class Event(_Answer):
    """One entry of Autumn's event log. `value` is what was asked for; `deductions`, where known, is what moved."""

    id: str
    timestamp: int
    feature_id: str
    customer_id: str | None
    entity_id: str | None = None
    value: Amount
    properties: dict[str, Any] = Field(default_factory=dict)
    deductions: tuple[Deduction, ...] | None = None


class EventPage(_Answer):
    """One page of events, newest first; `next_cursor` is None on the last."""

    list: tuple[Event, ...]
    next_cursor: str | None = None


class EventBin(_Answer):
    """The sums of one period, which starts at `period`, by feature id."""

    period: int
    values: dict[str, Amount]


class EventTotal(_Answer):
    """Count and sum of one feature over the whole range."""

    count: int
    sum: Amount


class EventAggregate(_Answer):
    """The answer of `events.aggregate`; `of` reads the total of a feature, also where nothing happened."""

    list: tuple[EventBin, ...]
    total: dict[str, EventTotal]

    def of(self, feature_id: str) -> EventTotal:
        """Return count and sum of one feature."""
        return self.total.get(feature_id, EventTotal(count=0, sum=Decimal(0)))


class Feature(_Answer):
    """A feature as Autumn keeps it. `type` is metered, boolean, credit_system or ai_credit_system.

    `credit_schema` of a credit system has what its credits pay for: bodies with `metered_feature_id` and `credit_cost`.
    """

    id: str
    name: str | None
    type: str
    consumable: bool = False
    archived: bool = False
    credit_schema: tuple[dict[str, Any], ...] | None = None


class Plan(_Answer):
    """A plan as Autumn keeps it; `items` are its raw bodies."""

    id: str
    name: str | None
    group: str | None = None
    version: int = 1
    add_on: bool = False
    auto_enable: bool = False
    archived: bool = False
    price: dict[str, Any] | None = None
    items: tuple[dict[str, Any], ...] = ()


class RequiredAction(_Answer):
    """What stands between a customer and their plan.

    `code` is `3ds_required`, `payment_method_required`, `payment_failed` or `payment_processing`; `reason` is for
    people. The plan is not paid for while there is one.
    """

    code: str
    reason: str = ""


class Invoice(_Answer):
    """An invoice; by its schema, `total` is in the smallest unit of the currency."""

    status: str | None = None
    total: Amount = Decimal(0)
    currency: str = ""
    hosted_invoice_url: str | None = None


class AttachResult(_Answer):
    """The answer of `billing.attach` and `billing.update`.

    `payment_url` is where the customer has to go to pay, or None; without it and without a `required_action`, it is
    done.
    """

    customer_id: str | None
    payment_url: str | None = None
    entity_id: str | None = None
    invoice: Invoice | None = None
    required_action: RequiredAction | None = None


class LineItem(_Answer):
    """One line of what a change costs; below zero where it gives back."""

    display_name: str
    description: str = ""
    plan_id: str | None = None
    feature_id: str | None = None
    quantity: Amount = Decimal(1)
    total: Amount


class NextCycle(_Answer):
    """What is due next time."""

    starts_at: int
    total: Amount
    line_items: tuple[LineItem, ...] = ()


class PlanChange(_Answer):
    """A plan that comes or goes, and when, in milliseconds; None is at once."""

    plan_id: str
    effective_at: int | None = None


class Preview(_Answer):
    """What an attach or an update would cost: `total` now, in units of `currency` such as 20 for $20."""

    customer_id: str | None
    total: Amount
    subtotal: Amount
    currency: str
    line_items: tuple[LineItem, ...] = ()
    next_cycle: NextCycle | None = None
    incoming: tuple[PlanChange, ...] = ()
    outgoing: tuple[PlanChange, ...] = ()
    redirect_to_checkout: bool | None = None


class PaymentSetup(_Answer):
    """The answer of `billing.setup_payment`: where the customer leaves a card."""

    customer_id: str | None
    url: str


class PortalResult(_Answer):
    """The answer of `billing.open_customer_portal`."""

    customer_id: str | None
    url: str
