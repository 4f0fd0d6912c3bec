"""The operations `billing.*`: what costs money, and what shows its price before."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fastapi_autumn import models
from fastapi_autumn.client._bodies import RedirectMode, given, names_customer, quantities
from fastapi_autumn.client._calls import Caller, Repeat

__all__ = ["Billing"]

CancelAction = Literal["cancel_immediately", "cancel_end_of_cycle", "uncancel"]


class Billing:
    """The operations `billing.*`.

    What may cost money is repeated only when nothing was sent: a 429 here is Autumn's guard against two purchases at
    once. After an `Uncertain`, look at the customer before trying again.
    """

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def attach(
        self,
        customer_id: str,
        plan_id: str,
        *,
        entity_id: str | None = None,
        success_url: str | None = None,
        feature_quantities: Mapping[str, int] | None = None,
        discounts: Sequence[Mapping[str, str]] | None = None,
        metadata: Mapping[str, str] | None = None,
        redirect_mode: RedirectMode = "if_required",
        no_billing_changes: bool | None = None,
        idempotency_key: str | None = None,
    ) -> models.AttachResult:
        """Put the customer on a plan, or return where they have to go to pay for it.

        Args:
            customer_id: Who.
            plan_id: Which plan.
            entity_id: One entity of the customer instead.
            success_url: Where the check-out brings them back to.
            feature_quantities: Feature id to units, for what is bought in advance.
            discounts: Such as `{"promotion_code": "WELCOME"}` or `{"reward_id": ...}`.
            metadata: Kept at Stripe.
            redirect_mode: When to return a check-out although the plan could be attached at once.
            no_billing_changes: Leave Stripe alone.
            idempotency_key: Under which Autumn does it once within a day.

        Raises:
            RequestRejected: 409 `plan_already_attached`, 404 `product_not_found`.
            RateLimited: Another attach or update of this customer is under way.
            Uncertain: It may have been bought.
        """
        body = given(
            customer_id=customer_id,
            plan_id=plan_id,
            entity_id=entity_id,
            success_url=success_url,
            feature_quantities=quantities(feature_quantities),
            discounts=discounts,
            metadata=metadata,
            redirect_mode=redirect_mode,
            no_billing_changes=no_billing_changes,
        )
        return await self._buy("billing.attach", body, idempotency_key)

    async def multi_attach(
        self,
        customer_id: str,
        plans: Sequence[models.PlanChoice],
        *,
        entity_id: str | None = None,
        success_url: str | None = None,
        discounts: Sequence[Mapping[str, str]] | None = None,
        redirect_mode: RedirectMode = "if_required",
        idempotency_key: str | None = None,
    ) -> models.AttachResult:
        """Put the customer on several plans in one purchase; otherwise as `attach`."""
        body = given(
            customer_id=customer_id,
            plans=[
                given(plan_id=plan.plan_id, feature_quantities=quantities(plan.feature_quantities)) for plan in plans
            ],
            entity_id=entity_id,
            success_url=success_url,
            discounts=discounts,
            redirect_mode=redirect_mode,
        )
        return await self._buy("billing.multi_attach", body, idempotency_key)

    async def update(
        self,
        customer_id: str,
        plan_id: str,
        *,
        entity_id: str | None = None,
        feature_quantities: Mapping[str, int] | None = None,
        cancel_action: CancelAction | None = None,
        refund_last_payment: Literal["prorated", "full"] | None = None,
        proration_behavior: Literal["prorate_immediately", "none"] | None = None,
        redirect_mode: RedirectMode = "if_required",
        no_billing_changes: bool | None = None,
        idempotency_key: str | None = None,
    ) -> models.AttachResult:
        """Change a plan that the customer is on: other quantities, cancel, or take a cancellation back.

        Raises:
            RequestRejected: 404 `cus_product_not_found`; 400 for the end of a cycle that a free plan does not have.
            RateLimited: Another attach or update of this customer is under way.
            Uncertain: It may have been changed.
        """
        body = given(
            customer_id=customer_id,
            plan_id=plan_id,
            entity_id=entity_id,
            feature_quantities=quantities(feature_quantities),
            cancel_action=cancel_action,
            refund_last_payment=refund_last_payment,
            proration_behavior=proration_behavior,
            redirect_mode=redirect_mode,
            no_billing_changes=no_billing_changes,
        )
        return await self._buy("billing.update", body, idempotency_key)

    async def preview_attach(
        self,
        customer_id: str,
        plan_id: str,
        *,
        entity_id: str | None = None,
        feature_quantities: Mapping[str, int] | None = None,
        discounts: Sequence[Mapping[str, str]] | None = None,
    ) -> models.Preview:
        """Return what `attach` would cost now and in the next cycle, and which plans would come and go."""
        body = given(
            customer_id=customer_id,
            plan_id=plan_id,
            entity_id=entity_id,
            feature_quantities=quantities(feature_quantities),
            discounts=discounts,
            redirect_mode="if_required",
        )
        return await self._preview("billing.preview_attach", body)

    async def preview_update(
        self,
        customer_id: str,
        plan_id: str,
        *,
        entity_id: str | None = None,
        feature_quantities: Mapping[str, int] | None = None,
        cancel_action: CancelAction | None = None,
    ) -> models.Preview:
        """Return what `update` would cost or give back."""
        body = given(
            customer_id=customer_id,
            plan_id=plan_id,
            entity_id=entity_id,
            feature_quantities=quantities(feature_quantities),
            cancel_action=cancel_action,
            redirect_mode="if_required",
        )
        return await self._preview("billing.preview_update", body)

    async def setup_payment(
        self, customer_id: str, *, entity_id: str | None = None, success_url: str | None = None
    ) -> models.PaymentSetup:
        """Return the address where the customer leaves a card without buying anything."""
        body = given(customer_id=customer_id, entity_id=entity_id, success_url=success_url)
        return await self._caller.read(
            models.PaymentSetup,
            "billing.setup_payment",
            body,
            repeat=Repeat.IDEMPOTENT,
            about=names_customer(customer_id, entity_id),
        )

    async def open_customer_portal(self, customer_id: str, *, return_url: str | None = None) -> models.PortalResult:
        """Return the address where the customer manages payment and invoices."""
        body = given(customer_id=customer_id, return_url=return_url)
        return await self._caller.read(
            models.PortalResult,
            "billing.open_customer_portal",
            body,
            repeat=Repeat.IDEMPOTENT,
            about=names_customer(customer_id),
        )

    async def _buy(self, operation: str, body: Mapping[str, Any], idempotency_key: str | None) -> models.AttachResult:
        return await self._caller.read(
            models.AttachResult,
            operation,
            body,
            idempotency_key=idempotency_key,
            repeat=Repeat.IF_UNREACHED,
            about=names_customer(body["customer_id"], body.get("entity_id")),
        )

    async def _preview(self, operation: str, body: Mapping[str, Any]) -> models.Preview:
        about = names_customer(body["customer_id"], body.get("entity_id"))
        return await self._caller.read(models.Preview, operation, body, repeat=Repeat.IDEMPOTENT, about=about)
