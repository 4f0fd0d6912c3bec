"""What Autumn tells webhooks, by type. Unknown types and unknown fields are kept as they came."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from fastapi_autumn.models import Subscription

__all__ = [
    "AutoTopUpFailed",
    "AutoTopUpSucceeded",
    "BillingUpdated",
    "LimitReached",
    "PlanUpdate",
    "ProductsUpdated",
    "UsageAlert",
    "UsageAlertTriggered",
    "WebhookEvent",
    "read_event",
]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class WebhookEvent(_Part):
    """Something that Autumn tells. Types without a class of their own come as this one."""

    TYPE: ClassVar[str] = ""

    type: str
    """Autumn's name for it, such as `balances.limit_reached`."""
    message_id: str
    """The sender's id of the message; the same however often it is sent."""
    data: Mapping[str, Any]
    """All that was sent about it, also what has no field here."""

    @property
    def about(self) -> str | None:
        """The id of the customer that it is about, where it names one."""
        customer = self.data.get("customer")
        found = self.data.get("customer_id") or (customer.get("id") if isinstance(customer, Mapping) else None)
        return found if isinstance(found, str) else None


class _OfACustomer(WebhookEvent):
    customer_id: str
    entity_id: str | None = None


class PlanUpdate(_Part):
    """One change of a customer's plans."""

    action: str
    """`activated`, `scheduled`, `updated` or `expired`."""
    subscription: Subscription | None = None
    """The subscription after the change; None for what was bought once."""
    purchase: Mapping[str, JsonValue] | None = None
    """What was bought once, after the change."""
    previous_attributes: Mapping[str, JsonValue] | None = None
    """What was different before; None for what is new."""
    item_changes: tuple[Mapping[str, JsonValue], ...] = ()


class BillingUpdated(_OfACustomer):
    """A customer's plans have changed: bought, cancelled, renewed, expired."""

    TYPE: ClassVar[str] = "billing.updated"

    plan_changes: tuple[PlanUpdate, ...]
    tags: tuple[str, ...] = ()
    """Such as `trial_ended` and `phase_changed`."""


class LimitReached(_OfACustomer):
    """A customer has used a feature up, as far as a limit goes."""

    TYPE: ClassVar[str] = "balances.limit_reached"

    feature_id: str
    limit_type: str
    """`included`, `max_purchase`, `spend_limit` or `usage_limit`."""
    filter: Mapping[str, JsonValue] | None = None
    """What a usage limit counts, if not everything."""
    usage_limit: Mapping[str, JsonValue] | None = None
    """The limit with its window, from newer servers."""


class UsageAlert(_Part):
    """A threshold that somebody set in `billing_controls`."""

    name: str | None = None
    threshold: Decimal
    threshold_type: str
    """`usage` or `remaining`, in units; `usage_percentage` or `remaining_percentage`."""


class UsageAlertTriggered(_OfACustomer):
    """A customer's use has crossed a threshold. It is told again only after use has fallen below it."""

    TYPE: ClassVar[str] = "balances.usage_alert_triggered"

    feature_id: str
    usage_alert: UsageAlert


class AutoTopUpSucceeded(_OfACustomer):
    """What ran low was bought again."""

    TYPE: ClassVar[str] = "billing.auto_topup_succeeded"

    feature_id: str
    quantity_granted: Decimal
    threshold: Decimal
    balance_after: Decimal
    invoice_mode: bool = False
    invoice: Mapping[str, JsonValue] | None = None


class AutoTopUpFailed(_OfACustomer):
    """What runs low could not be bought again."""

    TYPE: ClassVar[str] = "billing.auto_topup_failed"

    feature_id: str
    reason: str
    """Such as `missing_payment_method`, `charge_failed` or `purchase_limit_reached`."""
    quantity: Decimal | None = None
    threshold: Decimal | None = None
    balance: Decimal | None = None
    invoice_mode: bool = False
    error: Mapping[str, JsonValue] | None = None


class ProductsUpdated(WebhookEvent):
    """A customer's plans have changed, in the shape of earlier versions of Autumn's API."""

    TYPE: ClassVar[str] = "customer.products.updated"

    scenario: str
    """Such as `new`, `upgrade`, `cancel`, `renew` and `update_prepaid_quantity`."""
    customer: Mapping[str, Any]
    updated_product: Mapping[str, Any]
    entity: Mapping[str, Any] | None = None


_CLASSES = {
    kind.TYPE: kind
    for kind in (
        BillingUpdated,
        LimitReached,
        UsageAlertTriggered,
        AutoTopUpSucceeded,
        AutoTopUpFailed,
        ProductsUpdated,
    )
}


class _Body(_Part):
    type: str = Field(min_length=1)
    data: dict[str, Any] = Field(default_factory=dict)


def read_event(message_id: str, body: bytes) -> WebhookEvent:
    """Read a message whose signature fits.

    Raises:
        ValidationError: It is not one of Autumn's, or one of a known type lacks what that type has.
    """
    read = _Body.model_validate_json(body)
    head = {"type": read.type, "message_id": message_id, "data": read.data}
    return _CLASSES.get(read.type, WebhookEvent).model_validate(read.data | head)
