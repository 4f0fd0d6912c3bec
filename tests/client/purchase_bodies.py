"""What each operation on entities, plans, features and purchases sends: the call, its body, and an answer."""

from typing import Any

from client.bodies import DONE, PAGE
from fastapi_autumn import models

ENTITY = {"id": "e1", "name": "Ada", "customer_id": "cus_123"}
PREVIEWED = {"customer_id": "cus_123", "total": 20, "subtotal": 20, "currency": "usd"}
ATTACHED = {"customer_id": "cus_123", "payment_url": None}

SENT: dict[str, tuple[Any, Any, Any]] = {
    "features.list": (lambda client: client.features.list(), {}, {"list": []}),
    "plans.list": (lambda client: client.plans.list(), {}, {"list": []}),
    "plans.list, old ones too": (
        lambda client: client.plans.list(include_archived=True),
        {"include_archived": True},
        {"list": []},
    ),
    "billing.attach": (
        lambda client: client.billing.attach(
            "cus_123", "pro", success_url="https://x.y/s", feature_quantities={"seats": 3}
        ),
        {
            "customer_id": "cus_123",
            "plan_id": "pro",
            "feature_quantities": [{"feature_id": "seats", "quantity": 3}],
            "redirect_mode": "if_required",
            "success_url": "https://x.y/s",
        },
        ATTACHED,
    ),
    "billing.attach, no money": (
        lambda client: client.billing.attach("cus_123", "pro", redirect_mode="never", no_billing_changes=True),
        {"customer_id": "cus_123", "plan_id": "pro", "redirect_mode": "never", "no_billing_changes": True},
        ATTACHED,
    ),
    "billing.open_customer_portal": (
        lambda client: client.billing.open_customer_portal("cus_123", return_url="https://x.y"),
        {"customer_id": "cus_123", "return_url": "https://x.y"},
        {"customer_id": "cus_123", "url": "https://billing.stripe.com/p/session"},
    ),
    "entities.create": (
        lambda client: client.entities.create("cus_123", "e1", feature_id="seats", name="Ada"),
        {"customer_id": "cus_123", "entity_id": "e1", "feature_id": "seats", "name": "Ada"},
        ENTITY,
    ),
    "entities.get": (
        lambda client: client.entities.get("cus_123", "e1"),
        {"customer_id": "cus_123", "entity_id": "e1"},
        ENTITY,
    ),
    "entities.list": (
        lambda client: client.entities.list(customer_id="cus_123", search="ada"),
        {"customer_id": "cus_123", "start_cursor": "", "limit": 50, "search": "ada"},
        PAGE,
    ),
    "entities.update": (
        lambda client: client.entities.update("cus_123", "e1", billing_controls={"spend_limits": []}),
        {"customer_id": "cus_123", "entity_id": "e1", "billing_controls": {"spend_limits": []}},
        ENTITY,
    ),
    "entities.delete": (
        lambda client: client.entities.delete("cus_123", "e1"),
        {"customer_id": "cus_123", "entity_id": "e1"},
        DONE,
    ),
    "plans.get": (
        lambda client: client.plans.get("pro", version=2),
        {"plan_id": "pro", "version": 2},
        {"id": "pro", "name": "Pro"},
    ),
    "billing.attach, an entity": (
        lambda client: client.billing.attach(
            "cus_123", "pro", entity_id="e1", discounts=[{"promotion_code": "HI"}], metadata={"a": "b"}
        ),
        {
            "customer_id": "cus_123",
            "plan_id": "pro",
            "entity_id": "e1",
            "discounts": [{"promotion_code": "HI"}],
            "metadata": {"a": "b"},
            "redirect_mode": "if_required",
        },
        ATTACHED,
    ),
    "billing.multi_attach": (
        lambda client: client.billing.multi_attach(
            "cus_123", [models.PlanChoice("pro"), models.PlanChoice("seats", {"seats": 3})], success_url="https://x.y"
        ),
        {
            "customer_id": "cus_123",
            "plans": [
                {"plan_id": "pro"},
                {"plan_id": "seats", "feature_quantities": [{"feature_id": "seats", "quantity": 3}]},
            ],
            "success_url": "https://x.y",
            "redirect_mode": "if_required",
        },
        ATTACHED,
    ),
    "billing.update": (
        lambda client: client.billing.update("cus_123", "pro", cancel_action="cancel_end_of_cycle"),
        {
            "customer_id": "cus_123",
            "plan_id": "pro",
            "cancel_action": "cancel_end_of_cycle",
            "redirect_mode": "if_required",
        },
        ATTACHED,
    ),
    "billing.update, quantities": (
        lambda client: client.billing.update(
            "cus_123", "pro", feature_quantities={"seats": 4}, proration_behavior="none"
        ),
        {
            "customer_id": "cus_123",
            "plan_id": "pro",
            "feature_quantities": [{"feature_id": "seats", "quantity": 4}],
            "proration_behavior": "none",
            "redirect_mode": "if_required",
        },
        ATTACHED,
    ),
    "billing.preview_attach": (
        lambda client: client.billing.preview_attach("cus_123", "pro"),
        {"customer_id": "cus_123", "plan_id": "pro", "redirect_mode": "if_required"},
        PREVIEWED,
    ),
    "billing.preview_update": (
        lambda client: client.billing.preview_update("cus_123", "pro", cancel_action="cancel_immediately"),
        {
            "customer_id": "cus_123",
            "plan_id": "pro",
            "cancel_action": "cancel_immediately",
            "redirect_mode": "if_required",
        },
        PREVIEWED,
    ),
    "billing.setup_payment": (
        lambda client: client.billing.setup_payment("cus_123", success_url="https://x.y"),
        {"customer_id": "cus_123", "success_url": "https://x.y"},
        {"customer_id": "cus_123", "url": "https://checkout.stripe.com/setup"},
    ),
}
