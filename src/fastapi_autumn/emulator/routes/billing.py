"""billing.*: plans on customers. No money moves: the payment side is a page that anybody can confirm or decline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator._errors import ApiError, invalid_request
from fastapi_autumn.emulator.books import _lifecycle
from fastapi_autumn.emulator.books._catalog import is_free
from fastapi_autumn.emulator.books._customer import AttachedPlan, Customer
from fastapi_autumn.emulator.books._entitlements import amount
from fastapi_autumn.emulator.books._grants import bought, buy_more, is_prepaid
from fastapi_autumn.emulator.http._call import Call, Operation
from fastapi_autumn.emulator.http._validation import Fields
from fastapi_autumn.emulator.routes._metering import customer_of, save


@dataclass(slots=True)
class Attach:
    """A plan that is to be put on a customer."""

    customer: Customer
    plan: Document
    quantities: dict[str, float]
    entity_id: str | None

    @property
    def current(self) -> AttachedPlan | None:
        """The plan that this one would replace."""
        return _lifecycle.current_plan(self.customer, self.plan, self.entity_id)

    @property
    def wants_money(self) -> bool:
        """Whether something has to be paid for, now or after a trial with a card."""
        trial = _lifecycle.offered_trial(self.customer, self.plan)
        return not is_free(self.plan) and not (trial and not trial["card_required"])


@dataclass(slots=True, frozen=True)
class Payment:
    """How what is bought is to be paid for."""

    free_of_billing: bool
    redirect_mode: str
    success_url: str | None

    def leads_to_a_page(self, wanted: Sequence[Attach]) -> bool:
        """Whether the customer has to pay on a page before they have what they want."""
        if self.free_of_billing or not any(attach.wants_money for attach in wanted):
            return False
        return self.redirect_mode == "always" or not wanted[0].customer.has_card


def attach(call: Call) -> Any:
    """Put a plan on a customer: at once, after the check-out page, or at the end of the cycle for a downgrade."""
    wanted, payment, schedule = read_attach(call)
    current = wanted.current
    if current is not None and current.plan_id == wanted.plan["id"]:
        raise ApiError(
            409,
            "plan_already_attached",
            f"Cannot attach because the customer's current product '{wanted.plan['name']}' "
            "is the same as the product being attached",
        )
    if current is not None and _is_later(call, wanted, current, schedule):
        _lifecycle.end_with_cycle(call.catalog, current, call.now)
        _lifecycle.schedule(call.catalog, wanted.customer, current, wanted.plan, wanted.quantities)
        save(call, wanted.customer)
        return {"customer_id": wanted.customer.id, "payment_url": None}
    return _bought(call, [wanted], payment)


def multi_attach(call: Call) -> Any:
    """Put several plans on a customer, all of them at once or after one check-out page."""
    return _bought(call, *read_multi_attach(call))


def update(call: Call) -> Any:
    """Cancel a plan now or at the end of its cycle, take that back, or change what was bought in advance."""
    fields = call.fields()
    customer_id, plan_id = fields.known_id(), fields.string("plan_id")
    subscription_id = fields.string("subscription_id", nullable=True)
    entity_id = fields.string("entity_id", nullable=True)
    actions = ("cancel_immediately", "cancel_end_of_cycle", "uncancel")
    action = fields.choice("cancel_action", actions)
    free_of_billing = fields.boolean("no_billing_changes")
    quantities = _read_quantities(fields)
    fields.check()
    customer = customer_of(call, customer_id)
    if plan_id is not None:
        call.catalog.plan(plan_id)
    if entity_id is not None:
        customer.entity(entity_id)
    attached = _target(call, customer, entity_id, plan_id, subscription_id)
    if attached is None:
        wanted = f"for plan '{plan_id}' on " if plan_id else "for "
        if subscription_id is not None:
            wanted = f"with subscription_id '{subscription_id}' for "
        raise ApiError(404, "cus_product_not_found", f"No active subscription found {wanted}customer '{customer_id}'")
    plan = call.catalog.plan(attached.plan_id, attached.version)
    _refuse_update(plan, attached, action, quantities, free_of_billing=free_of_billing)
    for feature_id, quantity in quantities.items():
        _buy(customer, attached, feature_id, quantity)
    if action == "cancel_immediately" or (action and attached.status == "scheduled"):
        _lifecycle.cancel(call.catalog, customer, attached, call.now)
    elif action == "cancel_end_of_cycle":
        _lifecycle.cancel_later(call.catalog, customer, attached, call.now)
    elif action == "uncancel":
        _lifecycle.uncancel(customer, attached)
    save(call, customer)
    return {"customer_id": customer.id, "payment_url": None}


def open_customer_portal(call: Call) -> Any:
    """Give the address of a page that stands in for Stripe's portal."""
    fields = call.fields()
    customer_id = fields.known_id()
    fields.string("return_url", nullable=True)
    fields.check()
    customer = customer_of(call, customer_id)
    return {"customer_id": customer.id, "url": f"{call.base_url}/portal/{customer.number}"}


def setup_payment(call: Call) -> Any:
    """Give the address of a page where the customer leaves a card, which the stand-in believes."""
    fields = call.fields()
    customer_id = fields.known_id()
    success_url = fields.string("success_url", nullable=True)
    fields.check()
    customer = customer_of(call, customer_id)
    identifier = call.store.new_id("cs_setup")
    call.store.put_ticket("checkout", identifier, {"customer": customer.number, "success_url": success_url})
    return {"customer_id": customer.id, "url": f"{call.base_url}/checkout/{identifier}"}


def read_attach(call: Call) -> tuple[Attach, Payment, str | None]:
    """Read what is wanted, how it is paid for, and when it is to start, if that was said."""
    fields = call.fields()
    customer_id, payment = fields.known_id(), _read_payment(fields)
    schedule = fields.choice("plan_schedule", ("immediate", "end_of_cycle"))
    wanted = _read_plan(call, fields, customer_id, fields.string("entity_id", nullable=True))
    return wanted, payment, schedule


def read_multi_attach(call: Call) -> tuple[list[Attach], Payment]:
    """Read several plans; one of them at most may take the place of another, and none sells what another sells."""
    fields = call.fields()
    customer_id, payment = fields.known_id(), _read_payment(fields)
    everywhere = fields.string("entity_id", nullable=True)
    items = fields.objects("plans")
    if not items:
        fields.fail("plans", "Too small: expected array to have >=1 items")
    fields.check()
    wanted: list[Attach] = []
    for item in items:
        entity_id = item.string("entity_id", nullable=True) if "entity_id" in item else everywhere
        wanted.append(_read_plan(call, item, customer_id, entity_id))
        wanted[-1].customer = wanted[0].customer
    replaced = [attach for attach in wanted if attach.current is not None]
    if len(replaced) > 1:
        named = ", ".join(attach.plan["id"] for attach in replaced)
        raise invalid_request(f"Only one plan of a multi-attach may replace another; {named} would")
    sold: dict[str, str] = {}
    for each in wanted:
        identifier = each.plan["id"]
        for feature_id in (item["feature_id"] for item in each.plan["items"] if is_prepaid(item)):
            if sold.setdefault(feature_id, identifier) != identifier:
                raise invalid_request(
                    f'Feature "{feature_id}" has prepaid pricing in both plan "{sold[feature_id]}" and plan '
                    f'"{identifier}". Multi-attach does not support the same prepaid feature across multiple plans.'
                )
    return wanted, payment


def _read_payment(fields: Fields) -> Payment:
    redirect = fields.choice("redirect_mode", ("always", "if_required", "never")) or "if_required"
    success_url = fields.string("success_url", nullable=True)
    return Payment(fields.boolean("no_billing_changes"), redirect, success_url)


def _read_plan(call: Call, fields: Fields, customer_id: str, entity_id: str | None) -> Attach:
    plan_id, version = fields.text("plan_id"), fields.integer("version")
    quantities = _read_quantities(fields)
    fields.check()
    customer = customer_of(call, customer_id)
    plan = call.catalog.plan(plan_id, version)
    if entity_id is not None:
        customer.entity(entity_id)
    for feature_id in quantities:
        call.catalog.feature(feature_id)
    return Attach(customer, plan, quantities, entity_id)


def _read_quantities(fields: Fields) -> dict[str, float]:
    return {item.text("feature_id"): item.number("quantity") or 0 for item in fields.objects("feature_quantities")}


def _is_later(call: Call, wanted: Attach, current: AttachedPlan, schedule: str | None) -> bool:
    """Whether the plan starts when the current cycle ends: asked for, or because it is a downgrade."""
    if schedule is not None:
        return schedule == "end_of_cycle"
    return not call.catalog.is_upgrade(call.catalog.plan(current.plan_id, current.version), wanted.plan)


def _bought(call: Call, wanted: Sequence[Attach], payment: Payment) -> Document:
    """Attach plans, or say what has to be done first."""
    customer = wanted[0].customer
    answer: Document = {"customer_id": customer.id, "payment_url": None}
    if payment.leads_to_a_page(wanted):
        if payment.redirect_mode == "never":
            action = {"code": "payment_method_required", "reason": "The customer has no payment method"}
            return answer | {"required_action": action}
        return answer | {"payment_url": _checkout(call, wanted, payment)}
    for each in wanted:
        _lifecycle.attach(
            call.catalog,
            customer,
            each.plan,
            now=call.now,
            quantities=each.quantities,
            paid=not payment.free_of_billing,
            entity_id=each.entity_id,
        )
    save(call, customer)
    return answer


def _target(
    call: Call, customer: Customer, entity_id: str | None, plan_id: str | None, subscription_id: str | None
) -> AttachedPlan | None:
    """Find the plan that is meant: of the entity or of the customer, an active one before a scheduled one.

    Where none is named it is the one that is paid for, or else the main one, or else an add-on; the newest of several.
    """

    def key(plan: AttachedPlan) -> tuple[object, ...]:
        named = plan_id is not None or subscription_id is not None
        paid = not is_free(call.catalog.plan(plan.plan_id, plan.version))
        rank = (plan.one_off, plan.add_on, not paid) if not named else ()
        return plan.status != "active", *rank, -plan.started_at

    here = [plan for plan in customer.plans if plan.entity_id == entity_id]
    if subscription_id is not None:
        here = [plan for plan in here if plan.id == subscription_id]
    elif plan_id is not None:
        here = [plan for plan in here if plan.plan_id == plan_id]
    return min(here, key=key, default=None)


def _refuse_update(
    plan: Document,
    attached: AttachedPlan,
    action: str | None,
    quantities: dict[str, float],
    *,
    free_of_billing: bool,
) -> None:
    """Refuse what cannot be done to a plan as it is."""
    scheduled = attached.status == "scheduled"
    if action == "cancel_end_of_cycle" and (is_free(plan) or attached.one_off):
        kind = "One-off" if attached.one_off else "Free"
        raise invalid_request(f"{kind} products do not have billing cycles; use cancel: 'immediately' instead.")
    if scheduled and action == "uncancel":
        raise invalid_request("Cannot uncancel a subscription that is scheduled")
    if scheduled and action is None and not free_of_billing:
        raise invalid_request(
            f"Subscription for '{plan['name']}' is scheduled and cannot be updated until it becomes active"
        )
    sold = {item["feature_id"]: item["price"] for item in plan["items"] if is_prepaid(item)}
    for feature_id, quantity in quantities.items():
        if feature_id not in sold:
            raise invalid_request(
                f"Invalid feature quantity passed in (feature ID: {feature_id}). "
                "This feature has no prepaid price on the updated product."
            )
        bought_once = sold[feature_id]["interval"] == "one_off"
        changed = bought(amount(quantity), sold[feature_id]) != bought(
            amount(attached.quantities.get(feature_id, 0)), sold[feature_id]
        )
        if bought_once and ((attached.one_off and changed) or len(quantities) > 1):
            raise invalid_request(
                "Cannot update a one-off prepaid quantity alongside other subscription changes. "
                "Update the plan first, then adjust the quantity separately."
            )
        if bought_once and action is not None:
            raise invalid_request(
                "A manual top-up can only change feature quantities; fields like customize, cancel_action, and "
                "billing_cycle_anchor are not allowed"
            )


def _checkout(call: Call, wanted: Sequence[Attach], payment: Payment) -> str:
    customer = wanted[0].customer
    customer.stripe_id = customer.stripe_id or call.store.new_id("cus")
    save(call, customer)
    identifier = call.store.new_id("cs_test")
    plans = [
        {
            "plan_id": each.plan["id"],
            "version": each.plan["version"],
            "quantities": each.quantities,
            "entity_id": each.entity_id,
        }
        for each in wanted
    ]
    ticket = {"customer": customer.number, "plans": plans, "success_url": payment.success_url}
    call.store.put_ticket("checkout", identifier, ticket)
    return f"{call.base_url}/checkout/{identifier}"


def _buy(customer: Customer, attached: AttachedPlan, feature_id: str, quantity: float) -> None:
    """Change how many units of a prepaid item the customer has; what was used stays used.

    What is bought once, beside something that is subscribed to, is bought again and not changed.
    """
    for held in customer.entitlements:
        if held.product_id == attached.id and held.feature_id == feature_id and held.price is not None:
            if held.interval == "one_off":
                if not attached.one_off:
                    buy_more(customer, held, bought(amount(quantity), held.price))
                continue
            prepaid = bought(amount(quantity) - held.included, held.price)
            held.balance += prepaid - held.prepaid
            held.prepaid = prepaid
            attached.quantities[feature_id] = quantity


ROUTES = {
    ("POST", "/v1/billing.attach"): Operation("billing.attach", attach),
    ("POST", "/v1/attach"): Operation("billing.attach", attach),
    ("POST", "/v1/billing.multi_attach"): Operation("billing.multi_attach", multi_attach),
    ("POST", "/v1/billing.update"): Operation("billing.update", update),
    ("POST", "/v1/billing.open_customer_portal"): Operation("billing.open_customer_portal", open_customer_portal),
    ("POST", "/v1/billing.setup_payment"): Operation("billing.setup_payment", setup_payment),
}
