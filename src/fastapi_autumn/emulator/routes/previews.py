"""billing.preview_attach and .preview_multi_attach: what buying would cost today. Nothing is prorated."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator.books._clock import add_interval
from fastapi_autumn.emulator.books._entitlements import number
from fastapi_autumn.emulator.books._grants import is_prepaid
from fastapi_autumn.emulator.http._call import Call, Operation
from fastapi_autumn.emulator.routes.billing import Attach, Payment, read_attach, read_multi_attach


def preview_attach(call: Call) -> Any:
    """Tell what attaching a plan would cost today, what would come and what would go."""
    wanted, payment, _ = read_attach(call)
    return _preview(call, [wanted], payment)


def preview_multi_attach(call: Call) -> Any:
    """Tell the same of several plans at once."""
    return _preview(call, *read_multi_attach(call))


def _preview(call: Call, wanted: Sequence[Attach], payment: Payment) -> Document:
    lines = [line for attach in wanted for line in _lines(call, attach)]
    total = number(sum(line["total"] for line in lines))
    going = [attach.current for attach in wanted if attach.current is not None]
    to_page = payment.leads_to_a_page(wanted)
    return {
        "customer_id": wanted[0].customer.id,
        "line_items": lines,
        "subtotal": total,
        "total": total,
        "currency": "usd",
        "incoming": [_change(attach.plan["id"], attach.quantities) for attach in wanted],
        "outgoing": [_change(plan.plan_id, plan.quantities) | {"effective_at": call.now} for plan in going],
        "redirect_to_checkout": to_page,
        "checkout_type": "stripe_checkout" if to_page else None,
    }


def _lines(call: Call, wanted: Attach) -> list[Document]:
    plan, lines = wanted.plan, []
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
        quantity = wanted.quantities.get(item["feature_id"], 0)
        if is_prepaid(item) and quantity > item["included"]:
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


def _day(time: int) -> str:
    moment = datetime.fromtimestamp(time / 1_000, UTC)
    return f"{moment.day} {moment:%b %Y}"


ROUTES = {
    ("POST", "/v1/billing.preview_attach"): Operation("billing.preview_attach", preview_attach, writes=False),
    ("POST", "/v1/billing.preview_multi_attach"): Operation(
        "billing.preview_multi_attach", preview_multi_attach, writes=False
    ),
}
