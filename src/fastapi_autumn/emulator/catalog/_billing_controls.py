"""Reading billing controls: the limits, alerts and top-ups of a plan, a customer or an entity."""

from __future__ import annotations

from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator.books._controls import text_of
from fastapi_autumn.emulator.http._validation import Fields

_WINDOWS = ("day", "week", "month", "year")


def read_controls(fields: Fields, name: str = "billing_controls") -> Document | None:
    """Read billing controls; only the kinds that were sent."""
    controls = fields.object(name)
    if controls is None:
        return None
    readers = {
        "auto_topups": _read_auto_topup,
        "spend_limits": _read_spend_limit,
        "usage_limits": _read_usage_limit,
        "usage_alerts": _read_usage_alert,
        "overage_allowed": _read_overage,
    }
    return {kind: [one(item) for item in controls.objects(kind)] for kind, one in readers.items() if kind in controls}


def _given(item: Document) -> Document:
    return {key: value for key, value in item.items() if value is not None}


def _as_sent(fields: Fields, name: str) -> bool | None:
    return fields.boolean(name) if name in fields else None


def _read_overage(fields: Fields) -> Document:
    return {"feature_id": fields.text("feature_id"), "enabled": fields.boolean("enabled")}


def _read_spend_limit(fields: Fields) -> Document:
    return _given(
        {
            "feature_id": fields.string("feature_id"),
            "enabled": fields.boolean("enabled"),
            "limit_type": fields.choice("limit_type", ("absolute", "usage_percentage")),
            "overage_limit": fields.number("overage_limit", least=0),
            "skip_overage_billing": _as_sent(fields, "skip_overage_billing"),
        }
    )


def _read_usage_limit(fields: Fields) -> Document:
    return _given(
        {
            "feature_id": fields.text("feature_id"),
            "enabled": fields.boolean("enabled", default=True),
            "limit": fields.number("limit", required=True, least=0),
            "interval": fields.choice("interval", _WINDOWS, required=True),
            "anchor": fields.choice("anchor", ("billing_cycle", "utc")),
            "filter": _read_filter(fields.object("filter")),
        }
    )


def _read_filter(fields: Fields | None) -> Document | None:
    if fields is None:
        return None
    wanted = fields.mapping("properties", nullable=False)
    if wanted is None:
        fields.fail("properties", "Invalid input: expected record, received undefined")
    for name, value in (wanted or {}).items():
        if not isinstance(value, str | int | float):
            fields.fail(f"properties.{name}", "Invalid input")
    return {"properties": {name: text_of(value) for name, value in (wanted or {}).items()}}


def _read_usage_alert(fields: Fields) -> Document:
    kinds = ("usage", "usage_percentage", "remaining", "remaining_percentage")
    return _given(
        {
            "feature_id": fields.string("feature_id"),
            "enabled": fields.boolean("enabled", default=True),
            "threshold": fields.number("threshold", required=True, least=0),
            "threshold_type": fields.choice("threshold_type", kinds, required=True),
            "name": fields.string("name"),
        }
    )


def _read_auto_topup(fields: Fields) -> Document:
    limit = fields.object("purchase_limit")
    return _given(
        {
            "feature_id": fields.text("feature_id"),
            "enabled": fields.boolean("enabled"),
            "threshold": fields.number("threshold", required=True),
            "quantity": fields.number("quantity", required=True, least=1),
            "purchase_limit": limit
            and {
                "interval": limit.choice("interval", ("hour", "day", "week", "month"), required=True),
                "interval_count": limit.number("interval_count", least=1) or 1,
                "limit": limit.number("limit", required=True, least=1),
            },
            "invoice_mode": _as_sent(fields, "invoice_mode"),
        }
    )
