"""events.list and events.aggregate: what was used, one by one and added up."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator._errors import invalid_inputs, invalid_request
from fastapi_autumn.emulator.books._clock import DAY, HOUR, SECOND
from fastapi_autumn.emulator.books._customer import Customer
from fastapi_autumn.emulator.books._entitlements import number
from fastapi_autumn.emulator.books._series import add_up, add_up_deductions, bins_of
from fastapi_autumn.emulator.http import _lists, _log
from fastapi_autumn.emulator.http._call import Answer, Call, Operation
from fastapi_autumn.emulator.http._customers import load
from fastapi_autumn.emulator.http._validation import Fields, kind_of

_PER_SECOND = 5
_RANGES = {"24h": DAY, "7d": 7 * DAY, "30d": 30 * DAY, "90d": 90 * DAY,
           "last_cycle": 30 * DAY, "1bc": 30 * DAY, "3bc": 90 * DAY}  # fmt: skip
_BINS = ("day", "hour", "week", "month")
# What else than a property events can be grouped by, and where it is. `$feature_id` groups deductions only.
_COLUMNS = {
    "$customer_id": "c.id", "$entity_id": "entity_id", "$feature_id": "feature_id",
    "$plan_id": "json_extract(deductions, '$[0].plan_id')",
}  # fmt: skip
_GROUPS = 9
_MOST_GROUPS = 250
_MOST_FILTERS = 5
_MICROSECONDS = 1_000
_NEVER = 2**53


def list_(call: Call) -> Any:
    """List events, the newest first. More than five calls a second for one customer get a 429 in plain text."""
    fields = call.fields()
    page = _lists.read(call, fields)
    customer_id = fields.string("customer_id")
    entity_id = fields.string("entity_id")
    features = _features(fields, required=False)
    custom = _custom_range(fields)
    fields.check()
    if _too_often(call, customer_id):
        text = "Too many requests, please try again later."
        return Answer(429, text, {"retry-after": "1"}, "text/plain; charset=UTF-8")
    where, values = _where(call, customer_id, entity_id, features, custom)
    if page.cursor:
        where += " AND (timestamp, e.seq) < (?, (SELECT seq FROM events WHERE id = ? AND timestamp = ?))"
        time = page.cursor["t"] // _MICROSECONDS
        values += [time, page.cursor["id"], time]
    rows = call.store.rows(
        "SELECT e.id, timestamp, feature_id, c.id, value, properties, deductions, entity_id "  # noqa: S608 - constants
        f"FROM events e JOIN customers c ON c.seq = e.customer WHERE {where} "
        "ORDER BY timestamp DESC, e.seq DESC LIMIT ? OFFSET ?",
        *values, page.limit + 1, page.offset,
    )  # fmt: skip
    shown = [_event(row) for row in rows[: page.limit]]
    more = len(rows) > page.limit
    if page.by_cursor:
        after = _lists.cursor(shown[-1]["id"], shown[-1]["timestamp"] * _MICROSECONDS) if more else None
        return {"list": shown, "next_cursor": after}
    return {"list": shown, "has_more": more, "total": len(shown), "offset": page.offset, "limit": page.limit}


def aggregate(call: Call) -> Any:
    """Add events up by feature in bins of an hour, day, week or month (UTC), by group and by balance if asked to."""
    fields = call.fields()
    customer_id = fields.string("customer_id")
    entity_id = fields.string("entity_id")
    features = _features(fields, required=True)
    span = fields.choice("range", tuple(_RANGES))
    size = fields.choice("bin_size", _BINS) or "day"
    group = fields.string("group_by")
    custom = _custom_range(fields)
    wanted = _property_filter(fields)
    most = fields.integer("max_groups", least=1, most=_MOST_GROUPS) or _GROUPS
    deducted = fields.choice("aggregate_on", ("deducted",)) is not None
    if custom is not None and span is not None:
        fields.fail("custom_range.range", "Only one of range or custom_range may be provided")
    fields.check()
    if deducted:
        _refuse_with_deductions(customer_id, group, wanted)
    customer = None if customer_id is None else load(call.store, customer_id)
    start, end = custom or (call.now - _RANGES[span or "30d"], call.now)
    if not 0 <= end - start <= 1_000 * DAY:
        raise invalid_inputs("custom_range: start has to come before end, and at most 1000 days before it")
    bins = bins_of(start, end, size)
    where, values = _where(call, customer_id, entity_id, features, (bins[0], end))
    for name, value in wanted.items():
        where += " AND CAST(json_extract(properties, ?) AS TEXT) = ?"
        values += [_path(name), value]
    by = None if group in ("", "$feature_id") else group
    # A list of nothing but commas names no feature, and without one the query would find them all.
    rows = _sums(call, where, values, by) if features else []
    answer = add_up(bins, features, rows, grouped=by is not None, most=most)
    if not deducted or customer is None:
        return answer
    split = None if group in ("", "$customer_id") else group
    taken = _deductions(call, customer, where, values, group=split, features=features) if features else []
    cost = partial(_credit_cost, call) if split == "$feature_id" else None
    return answer | {"deductions": add_up_deductions(bins, taken, grouped=split is not None, most=most, cost=cost)}


def _refuse_with_deductions(customer_id: str | None, group: str | None, wanted: dict[str, str]) -> None:
    """Autumn keeps what was deducted apart from the events, by customer and without their properties."""
    if customer_id is None:
        raise invalid_request("customer_id is required when aggregate_on is set")
    if group == "$plan_id":
        raise invalid_request(
            "group_by $plan_id is not supported when aggregate_on is set \N{EM DASH} deductions already include "
            "plan_id per balance"
        )
    if wanted:
        raise invalid_request("filter_by is not supported when aggregate_on is set")


def _sums(call: Call, where: str, values: list[Any], group: str | None) -> list[Any]:
    """Add up by hour, the smallest bin; the larger ones are put together from hours."""
    part, names = _group(group)
    return call.store.rows(
        f"SELECT timestamp / {HOUR} * {HOUR} AS hour, feature_id, sum(value), count(*), {part} AS part "  # noqa: S608 - constants
        f"FROM events e JOIN customers c ON c.seq = e.customer WHERE {where} GROUP BY hour, feature_id, part",
        *names, *values,
    )  # fmt: skip


def _deductions(
    call: Call, customer: Customer, where: str, values: list[Any], *, group: str | None, features: list[str]
) -> list[Any]:
    """Add up by hour and balance, and say what is known of each balance today."""
    part, names = _group(group)
    rows = call.store.rows(
        f"SELECT timestamp / {HOUR} * {HOUR} AS hour, json_extract(d.value, '$.feature_id') AS held, "  # noqa: S608 - constants
        "json_extract(d.value, '$.balance_id') AS balance, json_extract(d.value, '$.plan_id'), "
        "json_extract(d.value, '$.reset.interval'), "
        f"sum(json_extract(d.value, '$.value')), count(*), {part} AS part "
        "FROM events e JOIN customers c ON c.seq = e.customer, json_each(e.deductions) d "
        f"WHERE {where} GROUP BY hour, held, balance, part",
        *names, *values,
    )  # fmt: skip
    owned = {held.id: held for held in customer.entitlements}
    # Several sources convert at different rates, so that one number would be wrong.
    source = features[0] if len(features) == 1 and features[0] not in call.catalog.credit_systems else None
    found = []
    for hour, feature_id, balance_id, plan_id, interval, taken, count, key in rows:
        held = owned.get(balance_id)
        shown = {
            "feature_id": feature_id,
            "feature_type": "credit_system" if feature_id in call.catalog.credit_systems else "metered",
            "balance_id": balance_id,
            "entity_id": held.entity_id if held else None,
            "plan_id": plan_id,
            "reset": interval and {"interval": interval, "resets_at": held.next_reset_at if held else None},
            "credit_cost": _credit_cost(call, source, feature_id) if source else None,
        }
        found.append((hour, shown, taken, count, "" if key is None else key))
    return found


def _credit_cost(call: Call, source: str, balance: str) -> float | None:
    """Return what a unit of a feature costs in a credit system, as of today; None for its own balance."""
    cost = None if source == balance else call.catalog.costs.get(source, {}).get(balance)
    return None if cost is None else number(cost)


def _group(group: str | None) -> tuple[str, list[str]]:
    """Return the SQL that tells an event's group, and its parameters."""
    if group is None:
        return "NULL", []
    return (_COLUMNS[group], []) if group in _COLUMNS else ("json_extract(properties, ?)", [_path(group)])


def _path(name: str) -> str:
    """Write the path of a property; `properties.a.b` and `a.b` are the same."""
    return "$." + ".".join(json.dumps(part) for part in name.removeprefix("$").removeprefix("properties.").split("."))


def _property_filter(fields: Fields) -> dict[str, str]:
    wanted = fields.mapping("filter_by", nullable=False) or {}
    for name, value in wanted.items():
        if not isinstance(value, str):
            fields.fail(f"filter_by.{name}", f"Invalid input: expected string, received {kind_of(value)}")
    if len(wanted) > _MOST_FILTERS:
        fields.fail("filter_by", f"Maximum {_MOST_FILTERS} filters allowed")
    return wanted


def _where(
    call: Call, customer_id: str | None, entity_id: str | None, features: list[str], span: tuple[int, int] | None
) -> tuple[str, list[Any]]:
    where, values = "1", list[Any]()
    hidden = _log.hidden_from(call.store, now=call.now, quiet_ms=call.event_quiet_ms)
    if hidden is not None:
        where += " AND e.seq < ?"
        values.append(hidden)
    if customer_id is not None:
        where += " AND e.customer = (SELECT seq FROM customers WHERE id = ?)"
        values.append(customer_id)
    if entity_id is not None:
        where += " AND entity_id = ?"
        values.append(entity_id)
    if features:
        where += f" AND feature_id IN ({','.join('?' * len(features))})"
        values += features
    if span is not None:
        where += " AND timestamp BETWEEN ? AND ?"
        values += span
    return where, values


def _event(row: Any) -> Document:
    identifier, timestamp, feature_id, customer_id, value, properties, deductions, entity_id = row
    shown: Document = {
        "id": identifier,
        "timestamp": timestamp,
        "feature_id": feature_id,
        "customer_id": customer_id,
        "value": json.loads(value),
        "properties": json.loads(properties),
        "deductions": json.loads(deductions) if deductions else None,
    }
    return shown | {"entity_id": entity_id} if entity_id else shown


def _features(fields: Fields, *, required: bool) -> list[str]:
    value = fields.raw("feature_id")
    if value is None and not required and "feature_id" not in fields:
        return []
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not found or not all(isinstance(item, str) and item for item in found):
        fields.fail("feature_id", "Invalid input")
        return []
    return [part for item in dict.fromkeys(found) for part in item.split(",") if part]


def _custom_range(fields: Fields) -> tuple[int, int] | None:
    custom = fields.object("custom_range")
    if custom is None:
        return None
    start, end = custom.time("start"), custom.time("end")
    return start or 0, _NEVER if end is None else end


def _too_often(call: Call, customer_id: str | None) -> bool:
    """Count calls for one customer within a second of the clock."""
    second = call.now // SECOND
    return not any(
        call.store.claim("events", f"{customer_id}:{slot}", now=call.now, until=(second + 1) * SECOND)
        for slot in range(_PER_SECOND)
    )


ROUTES = {
    ("POST", "/v1/events.list"): Operation("events.list", list_),
    ("POST", "/v1/events/list"): Operation("events.list", list_),
    ("POST", "/v1/events.aggregate"): Operation("events.aggregate", aggregate, writes=False),
    ("POST", "/v1/events/aggregate"): Operation("events.aggregate", aggregate, writes=False),
    ("POST", "/v1/query"): Operation("events.aggregate", aggregate, writes=False),
}
