"""billing.*: plans on customers. No money moves: the payment side is a page that anybody can confirm or decline."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator._errors import ApiError, invalid_request
from fastapi_autumn.emulator.books import _lifecycle
from fastapi_autumn.emulator.books._catalog import is_free, total_price
from fastapi_autumn.emulator.books._clock import add_interval
from fastapi_autumn.emulator.books._customer import AttachedPlan, Customer
from fastapi_autumn.emulator.books._entitlements import amount, number
from fastapi_autumn.emulator.books._grants import bought
from fastapi_autumn.emulator.http._call import Call, Operation
from fastapi_autumn.emulator.routes._metering import customer_of, save


@dataclass(slots=True)
class _Attach:
    customer: Customer
    plan: Document
    quantities: dict[str, float]
    entity_id: str | None
    free_of_billing: bool
    schedule: str | None
    redirect_mode: str
    success_url: str | None

    @property
    def current(self) -> AttachedPlan | None:
        """The plan that this one would replace."""
        return _lifecycle.current_plan(self.customer, self.plan, self.entity_id)


def attach(call: Call) -> Any:
    """Put a plan on a customer: at once, after the check-out page, or at the end of the cycle for a downgrade."""
    request = _read(call)
    customer, plan, current = request.customer, request.plan, request.current
    if current is not None and current.plan_id == plan["id"] and current.canceled_at is None:
        raise ApiError(
            409,
            "plan_already_attached",
            f"Cannot attach because the customer's current product '{plan['name']}' "
            "is the same as the product being attached",
        )
    if current is not None and _is_later(call, request, current):
        _schedule(call, request, current)
        save(call, customer)
        return {"customer_id": customer.id, "payment_url": None}
    if _needs_checkout(request):
        if request.redirect_mode == "never":
            action = {"code": "payment_method_required", "reason": "The customer has no payment method"}
            return {"customer_id": customer.id, "payment_url": None, "required_action": action}
        return {"customer_id": customer.id, "payment_url": _checkout(call, request)}
    _lifecycle.attach(call.catalog, customer, plan,
        now=call.now, quantities=request.quantities, paid=not request.free_of_billing, entity_id=request.entity_id,
    )  # fmt: skip
    save(call, customer)
    return {"customer_id": customer.id, "payment_url": None}


def preview_attach(call: Call) -> Any:
    """Tell what attaching a plan would cost today, what would come and what would go."""
    request = _read(call)
    current = request.current
    lines = _lines(call, request)
    total = number(sum(line["total"] for line in lines))
    return {
        "customer_id": request.customer.id,
        "line_items": lines,
        "subtotal": total,
        "total": total,
        "currency": "usd",
        "incoming": [_change(request.plan["id"], request.quantities)],
        "outgoing": [_change(current.plan_id, current.quantities) | {"effective_at": call.now}] if current else [],
        "redirect_to_checkout": _needs_checkout(request),
        "checkout_type": "stripe_checkout" if _needs_checkout(request) else None,
    }


def update(call: Call) -> Any:
    """Cancel a plan now or at the end of its cycle, take that back, or change what was bought in advance."""
    fields = call.fields()
    customer_id, plan_id = fields.known_id(), fields.string("plan_id")
    subscription_id = fields.string("subscription_id", nullable=True)
    actions = ("cancel_immediately", "cancel_end_of_cycle", "uncancel")
    action = fields.choice("cancel_action", actions)
    quantities = {
        item.text("feature_id"): item.number("quantity") or 0 for item in fields.objects("feature_quantities")
    }
    fields.check()
    customer = customer_of(call, customer_id)
    if plan_id is not None:
        call.catalog.plan(plan_id)
    attached = _target(customer, plan_id, subscription_id)
    if attached is None:
        wanted = f"for plan '{plan_id}' on" if subscription_id is None else f"with id '{subscription_id}' for"
        raise ApiError(404, "cus_product_not_found", f"No active subscription found {wanted} customer '{customer_id}'")
    plan = call.catalog.plan(attached.plan_id, attached.version)
    if action == "cancel_end_of_cycle" and is_free(plan):
        raise invalid_request("Free products do not have billing cycles; use cancel: 'immediately' instead.")
    if action == "cancel_immediately" or (action and attached.status == "scheduled"):
        _lifecycle.cancel(call.catalog, customer, attached, call.now)
    elif action == "cancel_end_of_cycle":
        _lifecycle.end_with_cycle(call.catalog, attached, call.now)
        follower = None if attached.entity_id else _lifecycle.automatic_plan(call.catalog, attached)
        if follower is not None:
            _lifecycle.schedule(call.catalog, customer, attached, follower)
    elif action == "uncancel":
        attached.canceled_at = attached.expires_at = None
        _lifecycle.unschedule(customer, attached.group, attached.entity_id)
    for feature_id, quantity in quantities.items():
        _buy(customer, attached, feature_id, quantity)
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


def _read(call: Call) -> _Attach:
    fields = call.fields()
    customer_id, plan_id = fields.known_id(), fields.text("plan_id")
    quantities = {
        item.text("feature_id"): item.number("quantity") or 0 for item in fields.objects("feature_quantities")
    }
    entity_id = fields.string("entity_id", nullable=True)
    version = fields.integer("version")
    free_of_billing = fields.boolean("no_billing_changes")
    schedule = fields.choice("plan_schedule", ("immediate", "end_of_cycle"))
    redirect = fields.choice("redirect_mode", ("always", "if_required", "never")) or "if_required"
    success_url = fields.string("success_url", nullable=True)
    fields.check()
    customer = customer_of(call, customer_id)
    plan = call.catalog.plan(plan_id, version)
    if entity_id is not None:
        customer.entity(entity_id)
    for feature_id in quantities:
        call.catalog.feature(feature_id)
    return _Attach(customer, plan, quantities, entity_id, free_of_billing, schedule, redirect, success_url)


def _is_later(call: Call, request: _Attach, current: AttachedPlan) -> bool:
    """Whether the plan starts when the current cycle ends: asked for, or a downgrade from a plan that is paid for."""
    if request.schedule == "immediate":
        return False
    before = call.catalog.plan(current.plan_id, current.version)
    return request.schedule == "end_of_cycle" or total_price(request.plan) < total_price(before)


def _schedule(call: Call, request: _Attach, current: AttachedPlan) -> None:
    _lifecycle.end_with_cycle(call.catalog, current, call.now)
    _lifecycle.schedule(call.catalog, request.customer, current, request.plan, request.quantities)


def _target(customer: Customer, plan_id: str | None, subscription_id: str | None) -> AttachedPlan | None:
    """Find the plan that is meant: an active one before a scheduled one, the newest first."""
    wanted = {plan_id, subscription_id} - {None}
    found = [plan for plan in customer.plans if {plan.plan_id, plan.id} & wanted]
    found.sort(key=lambda plan: (plan.status != "active", -plan.started_at))
    return found[0] if found else None


def _needs_checkout(request: _Attach) -> bool:
    trial = request.plan.get("free_trial")
    if request.free_of_billing or is_free(request.plan) or (trial and not trial["card_required"]):
        return False
    return request.redirect_mode == "always" or not request.customer.has_card


def _checkout(call: Call, request: _Attach) -> str:
    customer = request.customer
    customer.stripe_id = customer.stripe_id or call.store.new_id("cus")
    save(call, customer)
    identifier = call.store.new_id("cs_test")
    call.store.put_ticket(
        "checkout",
        identifier,
        {
            "customer": customer.number,
            "plan_id": request.plan["id"],
            "version": request.plan["version"],
            "quantities": request.quantities,
            "entity_id": request.entity_id,
            "success_url": request.success_url,
        },
    )
    return f"{call.base_url}/checkout/{identifier}"


def _lines(call: Call, request: _Attach) -> list[Document]:
    plan, lines = request.plan, []
    if plan["price"]:
        price = plan["price"]
        period = None
        text = f"{plan['name']} - Base Price"
        if price["interval"] != "one_off":
            end = add_interval(call.now, price["interval"], price.get("interval_count", 1))
            period = {"start": call.now, "end": end}
            text += f" (from {_day(call.now)} to {_day(end)})"
        lines.append(_line(plan, text, price["amount"]) | ({"period": period} if period else {}))
    for item in plan["items"]:
        quantity = request.quantities.get(item["feature_id"], 0)
        if item["price"] and item["price"]["billing_method"] == "prepaid" and quantity > item["included"]:
            packs = -(-(quantity - item["included"]) // item["price"]["billing_units"])
            cost = packs * (item["price"].get("amount") or 0)
            name = call.catalog.features[item["feature_id"]]["name"]
            line = _line(plan, f"{plan['name']} - {quantity} {name}", cost)
            lines.append(line | {"feature_id": item["feature_id"], "quantity": quantity})
    return lines


def _line(plan: Document, text: str, total: float) -> Document:
    return {
        "display_name": plan["name"],
        "description": text,
        "subtotal": total,
        "total": total,
        "discounts": [],
        "plan_id": plan["id"],
        "feature_id": None,
        "quantity": 1,
    }


def _change(plan_id: str, quantities: dict[str, Any]) -> Document:
    return {
        "plan_id": plan_id,
        "feature_quantities": [{"feature_id": key, "quantity": value} for key, value in quantities.items()],
        "effective_at": None,
        "canceled_at": None,
        "expires_at": None,
    }


def _buy(customer: Customer, attached: AttachedPlan, feature_id: str, quantity: float) -> None:
    """Change how many units of a prepaid item the customer has; what was used stays used."""
    for held in customer.entitlements:
        if held.product_id == attached.id and held.feature_id == feature_id and held.price is not None:
            prepaid = bought(amount(quantity) - held.included, held.price)
            held.balance += prepaid - held.prepaid
            held.prepaid = prepaid
            attached.quantities[feature_id] = quantity


def _day(time: int) -> str:
    moment = datetime.fromtimestamp(time / 1_000, UTC)
    return f"{moment.day} {moment:%b %Y}"


ROUTES = {
    ("POST", "/v1/billing.attach"): Operation("billing.attach", attach),
    ("POST", "/v1/attach"): Operation("billing.attach", attach),
    ("POST", "/v1/billing.preview_attach"): Operation("billing.preview_attach", preview_attach, writes=False),
    ("POST", "/v1/billing.update"): Operation("billing.update", update),
    ("POST", "/v1/billing.open_customer_portal"): Operation("billing.open_customer_portal", open_customer_portal),
    ("POST", "/v1/billing.setup_payment"): Operation("billing.setup_payment", setup_payment),
}
