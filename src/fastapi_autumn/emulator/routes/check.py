"""balances.check: may the customer use a feature, and, with an event or a lock, use it at once."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator._errors import invalid_inputs, invalid_request
from fastapi_autumn.emulator.books._balances import InsufficientBalance
from fastapi_autumn.emulator.books._customer import Customer
from fastapi_autumn.emulator.books._entitlements import number
from fastapi_autumn.emulator.catalog._preview import preview
from fastapi_autumn.emulator.http import _shapes
from fastapi_autumn.emulator.http._call import Call, Operation, parse_object
from fastapi_autumn.emulator.http._validation import Fields
from fastapi_autumn.emulator.routes import locks
from fastapi_autumn.emulator.routes._metering import (
    Meter,
    customer_of,
    customer_or_new,
    record_event,
    rounded_input,
    save,
    units_of,
)
from fastapi_autumn.emulator.routes._reactions import Watch, buy_what_runs_low, runs_low


@dataclass(slots=True)
class _Check:
    customer_id: str
    feature_id: str
    units: Decimal
    entity_id: str | None
    moves_credits: bool
    skip_event: bool
    properties: Document | None
    lock: locks.Lock | None
    with_preview: bool
    expand: list[str]


def check(call: Call) -> Any:
    """Answer whether the balance covers `required_balance`; with `send_event` or `lock`, take it in the same breath."""
    fields = call.fields()
    request = _read(call, fields)
    customer = customer_or_new(call, request.customer_id, fields.raw("customer_data"))
    product_id = fields.string("product_id")
    if product_id is not None:
        return _check_product(customer, product_id)
    feature = call.catalog.feature(request.feature_id)
    if request.entity_id is not None:
        customer.entity(request.entity_id)
    if feature["type"] == "boolean":
        answer = _check_flag(request, customer)
    else:
        meter = Meter.of(call, customer, request.feature_id, request.entity_id, request.properties)
        answer = _check_and_take(meter, feature, request) if request.moves_credits else _check_only(meter, request)
    if request.with_preview:
        answer["preview"] = None if answer["allowed"] else preview(call.catalog, customer, request.feature_id)
    return _in_version(call, request, answer)


def moves_credits(body: Any) -> bool:
    """Whether a check takes something, and so has to write."""
    fields = parse_object(body)
    return bool(fields.get("send_event")) or bool(parse_object(fields.get("lock")).get("enabled"))


def _read(call: Call, fields: Fields) -> _Check:
    customer_id = fields.known_id() if moves_credits(call.body) else fields.text("customer_id")
    feature_id = fields.string("feature_id")
    product_id = fields.string("product_id")
    entity_id = fields.string("entity_id", nullable=True)
    required = fields.number("required_balance")
    quantity = fields.number("required_quantity")
    send_event = fields.boolean("send_event")
    with_preview = fields.boolean("with_preview")
    properties = fields.mapping("properties")
    lock = locks.read(fields.object("lock"), call.now)
    expand = fields.strings("expand")
    skip_event = fields.boolean("skip_event")
    fields.check()
    if call.publishable and (send_event or lock is not None):
        raise invalid_request("Can't use send_event: true with a publishable key. Use your secret API key instead.")
    if (feature_id is None) == (product_id is None):
        raise invalid_inputs("input: Must provide either product_id or feature_id")
    return _Check(
        customer_id=customer_id,
        feature_id=feature_id or "",
        units=units_of(required if required is not None else quantity),
        entity_id=entity_id,
        moves_credits=send_event or lock is not None,
        skip_event=skip_event,
        properties=properties,
        lock=lock,
        with_preview=with_preview,
        expand=expand,
    )


def _answer(request: _Check, *, allowed: bool, required: float, balance: Document | None) -> Document:
    answer: Document = {"allowed": allowed, "customer_id": request.customer_id}
    if request.entity_id is not None:
        answer["entity_id"] = request.entity_id
    return answer | {"required_balance": required, "balance": balance, "flag": None}


def _check_flag(request: _Check, customer: Customer) -> Document:
    if request.moves_credits:
        raise invalid_request(
            "send_event cannot be used with boolean features, which are flags rather than usage-tracked."
        )
    held = customer.flag(request.feature_id)
    required = number(rounded_input(request.units))
    answer = _answer(request, allowed=held is not None, required=required, balance=None)
    return answer | {"flag": _shapes.flag(held) if held else None}


def _check_only(meter: Meter, request: _Check) -> Document:
    shown = meter.evaluated(request.units)
    answer = _answer(
        request,
        allowed=meter.allows(shown, request.units),
        required=meter.in_shown_units(shown, request.units),
        balance=meter.balance(shown, expand="balance.feature" in request.expand),
    )
    if runs_low(meter, shown):
        # To look is enough for an automatic top-up, and the answer is the one from before it.
        call = meter.call
        with call.store.transaction():
            newest = customer_of(call, request.customer_id)
            buy_what_runs_low(Meter.of(call, newest, shown), shown)
            save(call, newest)
    return answer


def _check_and_take(meter: Meter, feature: Document, request: _Check) -> Document:
    call, customer = meter.call, meter.customer
    if request.lock is not None and not feature["consumable"]:
        raise invalid_request("Lock is not supported for allocated features")
    shown = meter.evaluated(request.units)
    if not meter.slots and request.units > 0:
        # Nobody could pay, so nothing is converted either: the amount comes back as it was sent.
        return _answer(request, allowed=False, required=number(rounded_input(request.units)), balance=None)
    watch = Watch.of(meter)
    try:
        moves = meter.move(request.units, "reject")
    except InsufficientBalance:
        return _answer(
            request,
            allowed=False,
            required=meter.in_shown_units(shown, request.units),
            balance=meter.balance(shown, expand="balance.feature" in request.expand),
        )
    if request.lock is not None and meter.slots:
        # A check that is denied does not look at the id.
        locks.refuse_taken(call, request.lock)
        locks.keep(meter, request.lock, moves, request.properties)
    if not request.skip_event:
        record_event(
            call,
            customer,
            request.feature_id,
            request.units,
            moves,
            properties=request.properties,
            entity_id=request.entity_id,
        )
    save(call, customer)
    answer = _answer(
        request,
        allowed=True,
        required=meter.in_shown_units(shown, request.units),
        balance=meter.balance(meter.moved(moves), expand="balance.feature" in request.expand),
    )
    balances = meter.balances()
    if watch.react(moves):
        save(call, customer)
    return answer if balances is None else answer | {"balances": balances}


def _check_product(customer: Customer, product_id: str) -> Document:
    attached = next((plan for plan in customer.plans if plan.plan_id == product_id), None)
    answer: Document = {
        "customer_id": customer.id,
        "code": "product_found" if attached else "product_not_found",
        "product_id": product_id,
        "allowed": attached is not None and attached.status == "active",
    }
    return answer | {"status": attached.status} if attached else answer


def _in_version(call: Call, request: _Check, answer: Document) -> Document:
    if call.version >= (2, 1, 0):
        return answer
    if call.version >= (2, 0, 0):
        del answer["flag"]
        answer["balance"] = _shapes.balance_2_0(answer["balance"])
        if "balances" in answer:
            answer["balances"] = {key: _shapes.balance_2_0(shown) for key, shown in answer["balances"].items()}
        return answer
    return _shapes.check_1_2(call.catalog, answer, request.feature_id)


ROUTES = {
    ("POST", "/v1/balances.check"): Operation("balances.check", check, moves_credits),
    ("POST", "/v1/check"): Operation("balances.check", check, moves_credits),
    ("POST", "/v1/entitled"): Operation("balances.check", check, moves_credits),
}
