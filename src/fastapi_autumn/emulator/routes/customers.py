"""customers.*: the people who pay."""

from __future__ import annotations

from typing import Any

from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator._errors import ApiError, invalid_request
from fastapi_autumn.emulator.books._customer import Customer
from fastapi_autumn.emulator.catalog._billing_controls import read_controls
from fastapi_autumn.emulator.http import _customers, _lists, _shapes
from fastapi_autumn.emulator.http._call import Call, Operation
from fastapi_autumn.emulator.http._validation import Fields
from fastapi_autumn.emulator.routes._metering import caught_up, create_customer, customer_of, save

_NEVER = 2**53
_AFTER = {
    "ASC": " AND (created_at, seq) > (?, (SELECT seq FROM customers WHERE id IS ?))",
    "DESC": " AND (created_at, seq) < (?, (SELECT seq FROM customers WHERE id IS ?))",
}
_PROFILE = ("name", "email", "fingerprint", "stripe_id")


def get_or_create(call: Call) -> Any:
    """Return the customer, made if need be. What is known of a name or e-mail stays; what is missing is filled in."""
    fields = call.fields()
    customer_id = fields.customer_id()
    profile = _read_profile(fields)
    controls = read_controls(fields)
    auto_enable = fields.string("auto_enable_plan_id", nullable=True)
    expand = fields.strings("expand")
    fields.check()
    customer = _find(call, customer_id, profile.get("email"))
    if customer is None:
        if auto_enable is not None:
            _refuse_paid(call, auto_enable)
        if customer_id is None and not profile.get("email"):
            raise invalid_request("Email is required when customer_id is null")
        customer = create_customer(call, customer_id, profile | {"billing_controls": controls})
    else:
        missing = [key for key in _PROFILE if getattr(customer, key) is None and profile.get(key) is not None]
        for key in missing:
            setattr(customer, key, profile[key])
        if missing or (customer.id is None and customer_id is not None):
            customer.id = customer_id
            save(call, customer)
    return _shapes.customer(call.catalog, customer, now=call.now, env=call.env, expand=expand)


def get(call: Call) -> Any:
    """Return the customer, or 404."""
    fields = call.fields()
    customer_id = fields.known_id()
    expand = fields.strings("expand")
    fields.check()
    return _shapes.customer(call.catalog, customer_of(call, customer_id), now=call.now, env=call.env, expand=expand)


def get_by_path(call: Call) -> Any:
    """Return the customer of `GET /v1/customers/{id}`, with `expand` in the query."""
    customer = customer_of(call, call.path["id"])
    expand = call.query.get("expand", "").split(",")
    return _shapes.customer(call.catalog, customer, now=call.now, env=call.env, expand=expand)


def update(call: Call) -> Any:
    """Change a customer's profile, or the billing controls (each kind is replaced as a whole)."""
    fields = call.fields()
    customer_id = fields.known_id()
    profile = _read_profile(fields)
    controls = read_controls(fields)
    renamed = fields.string("new_customer_id", nullable=True)
    if renamed is not None:
        fields.check_id("new_customer_id", renamed)
    config = fields.mapping("config")
    receipts = fields.boolean("send_email_receipts") if "send_email_receipts" in fields else None
    fields.check()
    customer = customer_of(call, customer_id)
    for key in _PROFILE:
        if key in fields:
            setattr(customer, key, profile.get(key))
    if "metadata" in fields:
        merged = {**customer.metadata, **(profile.get("metadata") or {})}
        customer.metadata = {key: value for key, value in merged.items() if value is not None}
    customer.billing_controls |= controls or {}
    customer.config |= config or {}
    if receipts is not None:
        customer.send_email_receipts = receipts
    if renamed is not None and renamed != customer.id:
        if call.store.row("SELECT 1 FROM customers WHERE id = ?", renamed):
            raise ApiError(409, "customer_already_exists", f"Customer {renamed} already exists")
        customer.id = renamed
    save(call, customer)
    return _shapes.customer(call.catalog, customer, now=call.now, env=call.env)


def delete(call: Call) -> Any:
    """Forget a customer, with events and locks."""
    customer_id = call.path.get("id")
    if customer_id is None:
        fields = call.fields()
        customer_id = fields.known_id()
        fields.check()
    number = _customers.load(call.store, customer_id).number
    call.store.run("DELETE FROM customers WHERE seq = ?", number)
    for table in ("customer_plans", "events", "locks"):
        call.store.run(f"DELETE FROM {table} WHERE customer = ?", number)  # noqa: S608 - three constant names
    return {"success": True}


def list_(call: Call) -> Any:
    """List customers, the newest first unless asked otherwise, with a cursor (from 2.3.0) or with an offset."""
    fields = call.fields()
    page = _lists.read(call, fields)
    where, values = _filter(call, fields)
    narrowing = _lists.Narrowing.read(fields)
    order = (fields.choice("sort_order", ("asc", "desc")) or "desc").upper()
    fields.check()
    where, values = _with_plan(where, values, narrowing)
    after, start = where, list(values)
    if page.cursor:
        after += _AFTER[order]
        start += [page.cursor["t"], page.cursor["id"]]
    rows = call.store.rows(
        f"SELECT seq FROM customers WHERE {after} "  # noqa: S608 - built from constants
        f"ORDER BY created_at {order}, seq {order} LIMIT ? OFFSET ?",
        *start, -1 if narrowing else page.limit + 1, 0 if narrowing else page.offset,
    )  # fmt: skip
    found = [customer for (number,) in rows if (customer := _customers.load_number(call.store, number)) is not None]
    if narrowing:
        found = [customer for customer in found if narrowing.wants(customer)][page.offset :]
    wanted, more = found[: page.limit], len(found) > page.limit
    shown = [_shapes.customer(call.catalog, caught_up(call, who), now=call.now, env=call.env) for who in wanted]
    if page.by_cursor:
        return {"list": shown, "next_cursor": _lists.cursor(wanted[-1].id, wanted[-1].created_at) if more else None}
    total = call.store.row("SELECT count(*) FROM customers")
    matching = call.store.row(f"SELECT count(*) FROM customers WHERE {where}", *values)  # noqa: S608 - as above
    return {
        "list": shown,
        "total": len(shown),
        "total_count": total[0] if total else 0,
        "total_filtered_count": matching[0] if matching else 0,
        "limit": page.limit,
        "offset": page.offset,
        "has_more": more,
    }


def _read_profile(fields: Fields) -> Document:
    profile: Document = {
        "name": fields.string("name", nullable=True),
        "email": fields.email(),
        "fingerprint": fields.string("fingerprint", nullable=True),
        "metadata": fields.mapping("metadata"),
        "stripe_id": fields.string("stripe_id", nullable=True),
    }
    return profile


def _find(call: Call, customer_id: str | None, email: str | None) -> Customer | None:
    """Find by id; a null id means the customer without an id who has this e-mail address."""
    if customer_id is None:
        row = call.store.row("SELECT seq FROM customers WHERE id IS NULL AND email = ?", email)
    else:
        row = call.store.row("SELECT seq FROM customers WHERE id = ?", customer_id)
    found = _customers.load_number(call.store, row[0]) if row else None
    return caught_up(call, found) if found else None


def _refuse_paid(call: Call, plan_id: str) -> None:
    plan = call.catalog.plan(plan_id)
    trial = plan.get("free_trial")
    if (plan["price"] or any(item["price"] for item in plan["items"])) and not (trial and not trial["card_required"]):
        raise invalid_request(
            "Auto-enable plan must be a free product, or have a free trial with 'card_required' as false"
        )


def _filter(call: Call, fields: Fields) -> tuple[str, list[Any]]:
    where, values = "1", list[Any]()
    search = fields.string("search") or call.query.get("search")
    if search:
        where += " AND (id LIKE ? OR name LIKE ? OR email LIKE ?)"
        values += [f"%{search}%"] * 3
    created = fields.object("created_at_range")
    if created is not None:
        where += " AND created_at BETWEEN ? AND ?"
        values += [created.time("start") or 0, created.time("end") or _NEVER]
    return where, values


def _with_plan(where: str, values: list[Any], narrowing: _lists.Narrowing) -> tuple[str, list[Any]]:
    """Look only at those who have, or had, one of the plans that are named."""
    if not narrowing.versions:
        return where, values
    marks = ",".join("?" * len(narrowing.versions))
    where += f" AND seq IN (SELECT customer FROM customer_plans WHERE plan_id IN ({marks}))"  # noqa: S608 - marks
    return where, [*values, *narrowing.versions]


ROUTES = {
    ("POST", "/v1/customers.get_or_create"): Operation("customers.get_or_create", get_or_create),
    ("POST", "/v1/customers.get"): Operation("customers.get", get, writes=False),
    ("POST", "/v1/customers.list"): Operation("customers.list", list_, writes=False),
    ("POST", "/v1/customers.update"): Operation("customers.update", update),
    ("POST", "/v1/customers.delete"): Operation("customers.delete", delete),
    ("POST", "/v1/customers/list"): Operation("customers.list", list_, writes=False),
    ("GET", "/v1/customers"): Operation("customers.list", list_, writes=False),
    ("POST", "/v1/customers"): Operation("customers.get_or_create", get_or_create),
    ("GET", "/v1/customers/{id}"): Operation("customers.get", get_by_path, writes=False),
    ("DELETE", "/v1/customers/{id}"): Operation("customers.delete", delete),
}
