"""events.list and events.aggregate: what was used, one by one and added up."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from fastapi_autumn.emulator import _lists
from fastapi_autumn.emulator._clock import DAY, HOUR, SECOND, add_interval
from fastapi_autumn.emulator._customer import load
from fastapi_autumn.emulator._entitlements import rounded
from fastapi_autumn.emulator._errors import invalid_inputs
from fastapi_autumn.emulator._http import Answer, Call, Operation
from fastapi_autumn.emulator._shapes import number
from fastapi_autumn.emulator._store import Document
from fastapi_autumn.emulator._validation import Fields

_PER_SECOND = 5
_RANGES = {"24h": DAY, "7d": 7 * DAY, "30d": 30 * DAY, "90d": 90 * DAY,
           "last_cycle": 30 * DAY, "1bc": 30 * DAY, "3bc": 90 * DAY}  # fmt: skip
_BINS = ("day", "hour", "week", "month")
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
    where, values = _where(customer_id, entity_id, features, custom)
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
    """Add events up by feature in bins of an hour, day, week or month (UTC), and by a property if asked to."""
    fields = call.fields()
    customer_id = fields.string("customer_id")
    entity_id = fields.string("entity_id")
    features = _features(fields, required=True)
    span = fields.choice("range", tuple(_RANGES))
    size = fields.choice("bin_size", _BINS) or "day"
    group = fields.string("group_by")
    custom = _custom_range(fields)
    fields.check()
    if customer_id is not None:
        load(call.store, customer_id)
    start, end = custom or (call.now - _RANGES[span or "30d"], call.now)
    if not 0 <= end - start <= 1_000 * DAY:
        raise invalid_inputs("custom_range: start has to come before end, and at most 1000 days before it")
    bins = _bins(start, end, size)
    where, values = _where(customer_id, entity_id, features, (bins[0], end))
    # A list of nothing but commas names no feature, and without one the query would find them all.
    rows = _sums(call, where, values, group) if features else []
    return _series(bins, features, rows, group)


def _series(bins: list[int], features: list[str], rows: list[Any], group: str | None) -> Document:
    series: list[Document] = []
    for period in bins:
        series.append({"period": period, "values": dict.fromkeys(features, Decimal(0))})
        if group:
            series[-1]["grouped_values"] = {feature: {} for feature in features}
    total: Document = {}
    for hour, feature, value, count, key in rows:
        place = series[max(index for index, period in enumerate(bins) if period <= hour)]
        place["values"][feature] += Decimal(repr(value))
        if group and key is not None:
            groups = place["grouped_values"][feature]
            groups[str(key)] = groups.get(str(key), Decimal(0)) + Decimal(repr(value))
        entry = total.setdefault(feature, {"count": 0, "sum": Decimal(0)})
        entry["count"] += count
        entry["sum"] += Decimal(repr(value))
    for place in series:
        place["values"] = {feature: number(rounded(value)) for feature, value in place["values"].items()}
        for feature, groups in place.get("grouped_values", {}).items():
            place["grouped_values"][feature] = {key: number(rounded(value)) for key, value in groups.items()}
    for entry in total.values():
        entry["sum"] = number(rounded(entry["sum"]))
    return {"list": series, "total": total}


def _sums(call: Call, where: str, values: list[Any], group: str | None) -> list[Any]:
    """Add up by hour, the smallest bin; the larger ones are put together from hours."""
    names = (group or "").removeprefix("properties.").split(".")
    path = "$." + ".".join(json.dumps(name) for name in names) if group else None
    return call.store.rows(
        f"SELECT timestamp / {HOUR} * {HOUR} AS hour, feature_id, sum(value), count(*), "  # noqa: S608 - constants
        "CASE WHEN ? IS NULL THEN NULL ELSE json_extract(properties, ?) END AS part "
        f"FROM events e JOIN customers c ON c.seq = e.customer WHERE {where} GROUP BY hour, feature_id, part",
        path, path, *values,
    )  # fmt: skip


def _where(
    customer_id: str | None, entity_id: str | None, features: list[str], span: tuple[int, int] | None
) -> tuple[str, list[Any]]:
    where, values = "1", list[Any]()
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


def _bins(start: int, end: int, size: str) -> list[int]:
    bins = [_floor(start, size)]
    while (following := add_interval(bins[-1], size)) <= end:
        bins.append(following)
    return bins


def _floor(time: int, size: str) -> int:
    if size in ("hour", "day"):
        length = HOUR if size == "hour" else DAY
        return time // length * length
    day = datetime.fromtimestamp(time // 1_000, UTC).replace(hour=0, minute=0, second=0)
    if size == "month":
        return int(day.replace(day=1).timestamp()) * 1_000
    return int(day.timestamp()) * 1_000 - day.weekday() * DAY


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
