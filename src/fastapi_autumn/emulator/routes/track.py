"""balances.track, by feature, by event name, by tokens and in batches: use that has already happened."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator._errors import ApiError, duplicate_idempotency_key, invalid_inputs, invalid_request
from fastapi_autumn.emulator.books import _tokens
from fastapi_autumn.emulator.books._balances import InsufficientBalance, OverageBehavior, set_used
from fastapi_autumn.emulator.books._clock import DAY
from fastapi_autumn.emulator.books._customer import Customer
from fastapi_autumn.emulator.books._entitlements import ZERO, Move, number
from fastapi_autumn.emulator.http import _shapes
from fastapi_autumn.emulator.http._call import NEWEST, Answer, Call, Operation
from fastapi_autumn.emulator.http._validation import Fields, many
from fastapi_autumn.emulator.routes import locks
from fastapi_autumn.emulator.routes._metering import (
    OVERAGE_BEHAVIORS,
    Meter,
    customer_of,
    customer_or_new,
    record_event,
    save,
    units_of,
)
from fastapi_autumn.emulator.routes._reactions import Watch

_BATCH = 1_000


@dataclass(slots=True)
class _Track:
    customer_id: str
    value: Decimal
    entity_id: str | None
    properties: Document | None
    timestamp: int | None
    behavior: OverageBehavior
    skip_event: bool
    lock: locks.Lock | None = None


def track(call: Call) -> Any:
    """Record the use of a feature (`value`, 1 if not given), and take what is there of it."""
    fields = call.fields()
    request, features = _read(call, fields)
    customer = customer_or_new(call, request.customer_id, fields.raw("customer_data"))
    with_key(call, fields)
    if request.entity_id is not None:
        customer.entity(request.entity_id)
    answer = _take(call, customer, features, request)
    if fields.boolean("async"):
        return Answer(202, {key: answer[key] for key in ("customer_id", "value")} | {"balance": None})
    return _in_version(call, features[0], answer)


def batch_track(call: Call) -> Any:
    """Do many tracks, each on its own: one that cannot be done is left out without a word."""
    return _batch(call, track)


def track_tokens(call: Call) -> Any:
    """Price the tokens of one call to a model, and take that from an AI credit system."""
    fields = call.fields()
    customer_id = fields.known_id()
    feature_id = fields.string("feature_id")
    model_id = fields.text("model_id")
    usage = {
        name: fields.integer(name, required=name in ("input_tokens", "output_tokens"), least=0)
        for name in _tokens.KINDS
    }
    properties = fields.mapping("properties")
    behavior = _read_behavior(fields)
    entity_id = fields.string("entity_id", nullable=True)
    fields.check()
    customer = customer_of(call, customer_id)
    system = _ai_credit_system(call, customer, feature_id)
    counted = {name: count for name, count in usage.items() if count is not None}
    price = _tokens.price(system, model_id, counted, call.rates)
    with_key(call, fields)
    if entity_id is not None:
        customer.entity(entity_id)
    request = _Track(
        customer_id, price.cost, entity_id, {**price.properties, **(properties or {})}, None, behavior,
        skip_event=False,
    )  # fmt: skip
    # No tokens at all take 1: Autumn reads the value 0 as "not given".
    return _take(call, customer, [system["id"]], request, zero_takes=Decimal(1))


def batch_track_tokens(call: Call) -> Any:
    """Do many track_tokens, as `batch_track` does."""
    return _batch(call, track_tokens)


def set_usage(call: Call) -> Any:
    """Set the usage of a feature's own balance (the older `/v1/usage`)."""
    fields = call.fields()
    customer_id, feature_id = fields.known_id(), fields.text("feature_id")
    value = fields.number("value")
    fields.check()
    customer = customer_of(call, customer_id)
    call.catalog.feature(feature_id)
    meter = Meter.of(call, customer, feature_id)
    own = [slot for slot in meter.slots if slot.entitlement.feature_id == feature_id]
    set_used(own, units_of(value), meter.costs)
    save(call, customer)
    return {"success": True}


def with_key(call: Call, fields: Fields) -> None:
    """Claim the `idempotency_key` of the body; the claim goes away with the request if it fails."""
    key = fields.string("idempotency_key", nullable=True)
    fields.check()
    if key is not None and not call.store.claim("body", key, now=call.now, until=call.now + DAY):
        raise duplicate_idempotency_key(f"track:{key}")


def _read(call: Call, fields: Fields) -> tuple[_Track, list[str]]:
    customer_id = fields.known_id()
    feature_id = fields.string("feature_id")
    event_name = fields.string("event_name")
    value = fields.number("value")
    entity_id = fields.string("entity_id", nullable=True)
    properties = fields.mapping("properties")
    timestamp = fields.time("timestamp")
    if timestamp is not None and timestamp > call.now:
        fields.fail("timestamp", "timestamp cannot be in the future")
    behavior = _read_behavior(fields)
    skip_event = fields.boolean("skip_event")
    lock = locks.read(fields.object("lock"), call.now)
    fields.boolean("async")
    fields.check()
    if (feature_id is None) == (event_name is None):
        raise invalid_inputs("input: Either feature_id or event_name must be provided")
    if feature_id is not None:
        features = [call.catalog.feature(feature_id)["id"]]
    else:
        features = [key for key, found in call.catalog.features.items() if event_name in found["event_names"]]
        if not features:
            raise invalid_request(f"No features found for event name: {event_name}", status=404)
    request = _Track(customer_id, units_of(value), entity_id, properties, timestamp, behavior, skip_event, lock)
    return request, features


def _read_behavior(fields: Fields) -> OverageBehavior:
    behavior = fields.raw("overage_behavior") or "cap"
    if behavior not in OVERAGE_BEHAVIORS:
        fields.fail("overage_behavior", "Invalid input")
    return cast("OverageBehavior", behavior)


def _take(
    call: Call, customer: Customer, features: list[str], request: _Track, *, zero_takes: Decimal = ZERO
) -> Document:
    deductions: list[Document] = []
    shown: Document = {}
    balances: Document = {}
    watched: list[tuple[Watch, list[Move]]] = []
    for feature_id in features:
        meter = Meter.of(call, customer, feature_id, request.entity_id, request.properties)
        if request.lock is not None and not call.catalog.features[feature_id]["consumable"]:
            raise invalid_request("Lock is not supported for allocated features")
        watch = Watch.of(meter)
        try:
            moves = meter.move(request.value or zero_takes, request.behavior)
        except InsufficientBalance:
            text = number(request.value)
            raise ApiError(
                400, "insufficient_balance", f"Insufficient balance to deduct {text} from feature {feature_id}"
            ) from None
        watched.append((watch, moves))
        if request.lock is not None and moves:
            locks.refuse_taken(call, request.lock)
            locks.keep(meter, request.lock, moves, request.properties)
        if not request.skip_event:
            record_event(
                call, customer, feature_id, request.value, moves,
                properties=request.properties, entity_id=request.entity_id, timestamp=request.timestamp,
            )  # fmt: skip
        key = meter.moved(moves)
        shown |= {key: meter.balance(key)}
        balances |= meter.balances() or ({feature_id: meter.balance(feature_id)} if len(features) > 1 else {})
        deductions += _shapes.deductions(customer, moves)
    for watch, moves in watched:
        watch.react(moves)
    save(call, customer)
    found = [balance for balance in shown.values() if balance is not None]
    balance = found[0] if len(found) == 1 else None
    answer: Document = {"customer_id": request.customer_id, "value": number(request.value), "balance": balance}
    if request.entity_id is not None:
        answer["entity_id"] = request.entity_id
    if balances:
        answer["balances"] = balances
    return answer | {"deductions": deductions}


def _batch(call: Call, one: Any) -> Answer:
    for body in many(call.body, most=_BATCH):
        call.body = body
        try:
            with call.store.part():
                one(call)
        except ApiError as error:
            if error.code == "invalid_inputs":
                raise
    # The recorded server answers 200. The contract says 202, and clients newer than that server take nothing else.
    return Answer(202 if call.version > NEWEST else 200, {"success": True})


def _ai_credit_system(call: Call, customer: Customer, feature_id: str | None) -> Document:
    if feature_id is not None:
        system = call.catalog.feature(feature_id)
        if system["type"] != "ai_credit_system":
            raise invalid_request(f"Feature {feature_id} is not an AI credit system feature")
        return system
    systems = [feature for feature in call.catalog.features.values() if feature["type"] == "ai_credit_system"]
    held = {item.feature_id for item in customer.entitlements}
    systems.sort(key=lambda feature: feature["id"] not in held)
    if not systems:
        raise invalid_request("No AI credit system feature found")
    return systems[0]


def _in_version(call: Call, feature_id: str, answer: Document) -> Document:
    if call.version >= (2, 1, 0):
        return answer
    if call.version >= (2, 0, 0):
        old = {"customer_id": answer["customer_id"], "value": answer["value"]}
        old["balance"] = _shapes.balance_2_0(answer["balance"])
        if "balances" in answer:
            old["balances"] = {key: _shapes.balance_2_0(shown) for key, shown in answer["balances"].items()}
        return old
    shown = answer["balance"]["feature_id"] if answer["balance"] else feature_id
    return {"id": "placeholder", "code": "event_received", "customer_id": answer["customer_id"], "feature_id": shown}


ROUTES = {
    ("POST", "/v1/balances.track"): Operation("balances.track", track),
    ("POST", "/v1/track"): Operation("balances.track", track),
    ("POST", "/v1/events"): Operation("balances.track", track),
    ("POST", "/v1/balances.batch_track"): Operation("balances.batch_track", batch_track),
    ("POST", "/v1/balances.track_tokens"): Operation("balances.track_tokens", track_tokens),
    ("POST", "/v1/track_tokens"): Operation("balances.track_tokens", track_tokens),
    ("POST", "/v1/balances.batch_track_tokens"): Operation("balances.batch_track_tokens", batch_track_tokens),
    ("POST", "/v1/usage"): Operation("balances.usage", set_usage),
}
