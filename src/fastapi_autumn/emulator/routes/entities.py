"""entities.*: the seats, teams or projects of a customer that have balances of their own."""

from __future__ import annotations

from typing import Any

from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator._errors import ApiError, not_found
from fastapi_autumn.emulator.books._customer import Customer
from fastapi_autumn.emulator.catalog._billing_controls import read_controls
from fastapi_autumn.emulator.http import _lists, _shapes
from fastapi_autumn.emulator.http._call import Call, Operation
from fastapi_autumn.emulator.http._validation import Fields
from fastapi_autumn.emulator.routes._metering import customer_of, save


def create(call: Call) -> Any:
    """Make an entity. It uses one of its feature (a seat), and gets what plans give to each entity of that feature."""
    fields = call.fields()
    customer_id, entity_id = fields.known_id(), fields.text("entity_id")
    feature_id = fields.text("feature_id")
    name = fields.string("name", nullable=True)
    fields.check()
    customer = customer_of(call, customer_id)
    call.catalog.feature(feature_id)
    if any(entity["id"] == entity_id for entity in customer.entities):
        raise ApiError(409, "entity_already_exists", f"Entity {entity_id} already exists")
    entity: Document = {"id": entity_id, "name": name, "feature_id": feature_id, "created_at": call.now}
    customer.entities.append(entity)
    for held in customer.entitlements:
        if held.entity_feature_id == feature_id:
            held.entities[entity_id] = held.granted
    # The answer shows the seats as they were; the new one counts from the next look on.
    shown = _shapes.entity(call.catalog, customer, entity, now=call.now, env=call.env, created=True)
    _count(customer, feature_id, 1)
    save(call, customer)
    return shown


def get(call: Call) -> Any:
    """Return an entity with its own balances and those of the customer."""
    fields = call.fields()
    customer, entity = _find(call, fields)
    expand = fields.strings("expand")
    fields.check()
    return _shapes.entity(call.catalog, customer, entity, now=call.now, env=call.env, expand=expand)


def list_(call: Call) -> Any:
    """List entities, of one customer or of all, the newest first."""
    fields = call.fields()
    customer_id = fields.string("customer_id")
    page = _lists.read(call, fields)
    narrowing = _lists.Narrowing.read(fields)
    search = (fields.string("search") or "").lower()
    fields.check()
    customers = _all_with_entities(call) if customer_id is None else [customer_of(call, customer_id)]
    found = [
        (customer, entity)
        for customer in customers
        for entity in customer.entities
        if narrowing.wants(customer, entity["id"]) and search in f"{entity['id']}\n{entity['name'] or ''}".lower()
    ]
    found.sort(key=lambda pair: pair[1]["created_at"], reverse=True)
    start = page.offset
    if page.cursor:
        ids = [entity["id"] for _, entity in found]
        start = ids.index(page.cursor["id"]) + 1 if page.cursor["id"] in ids else 0
    wanted = found[start : start + page.limit]
    shown = [_shapes.entity(call.catalog, who, entity, now=call.now, env=call.env) for who, entity in wanted]
    last = wanted[-1][1] if start + page.limit < len(found) else None
    return {"list": shown, "next_cursor": _lists.cursor(last["id"], last["created_at"]) if last else None}


def _all_with_entities(call: Call) -> list[Customer]:
    rows = call.store.rows("SELECT id FROM customers WHERE json_array_length(doc, '$.entities') > 0 ORDER BY seq")
    return [customer_of(call, customer_id) for (customer_id,) in rows]


def update(call: Call) -> Any:
    """Change an entity's name or its billing controls."""
    fields = call.fields()
    customer, entity = _find(call, fields)
    name = fields.string("name", nullable=True)
    controls = read_controls(fields)
    fields.check()
    if name is not None:
        entity["name"] = name
    if controls is not None:
        entity["billing_controls"] = {**entity.get("billing_controls", {}), **controls}
    save(call, customer)
    return _shapes.entity(call.catalog, customer, entity, now=call.now, env=call.env)


def delete(call: Call) -> Any:
    """Forget an entity and its balances; its seat is free again."""
    customer, entity = _find(call, call.fields())
    customer.entities.remove(entity)
    for held in customer.entitlements:
        held.entities.pop(entity["id"], None)
        held.rollovers = [left for left in held.rollovers if left.entity_id != entity["id"]]
    customer.plans = [plan for plan in customer.plans if plan.entity_id != entity["id"]]
    customer.entitlements = [held for held in customer.entitlements if held.entity_id != entity["id"]]
    _count(customer, entity["feature_id"], -1)
    save(call, customer)
    return {"success": True}


def _find(call: Call, fields: Fields) -> tuple[Customer, Document]:
    """Find an entity of a customer; without a customer id, the entity of whoever has it."""
    customer_id, entity_id = fields.string("customer_id"), fields.text("entity_id")
    fields.check()
    if customer_id is None:
        row = call.store.row(
            "SELECT c.id FROM customers c, json_each(c.doc, '$.entities') e WHERE json_extract(e.value, '$.id') = ?",
            entity_id,
        )
        if row is None:
            raise not_found("entity", entity_id)
        customer_id = row[0]
    customer = customer_of(call, customer_id)
    return customer, customer.entity(entity_id)


def _count(customer: Customer, feature_id: str, entities: int) -> None:
    held = next(iter(customer.metered([feature_id])), None)
    if held is not None:
        held.balance -= entities


ROUTES = {
    ("POST", "/v1/entities.create"): Operation("entities.create", create),
    ("POST", "/v1/entities.get"): Operation("entities.get", get, writes=False),
    ("POST", "/v1/entities.list"): Operation("entities.list", list_, writes=False),
    ("POST", "/v1/entities.update"): Operation("entities.update", update),
    ("POST", "/v1/entities.delete"): Operation("entities.delete", delete),
}
