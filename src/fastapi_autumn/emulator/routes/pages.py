"""The pages a customer would see at Stripe: check-out and portal. They say that no money moves."""

from __future__ import annotations

import html
from typing import Any, TypeGuard

from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator.books import _lifecycle
from fastapi_autumn.emulator.books._customer import Customer
from fastapi_autumn.emulator.catalog import _display
from fastapi_autumn.emulator.http import _customers
from fastapi_autumn.emulator.http._call import Answer, Call, Operation

_STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:12vh auto;padding:0 1rem}"
    "button{font:inherit;min-height:2.75rem;padding:.5rem 1.2rem;margin:0 .5rem .5rem 0}"
    "main{overflow-wrap:anywhere}"
)
_NOTE = "<p><small>This is the Autumn emulator. No money moves, and no card is asked for.</small></p>"


def page(title: str, body: str, *, status: int = 200) -> Answer:
    """Make an HTML page. `title` is text, `body` is HTML."""
    text = html.escape(title)
    document = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><title>{text}</title>'
        f"<style>{_STYLE}</style></head><body><main><h1>{text}</h1>{body}{_NOTE}</main></body></html>"
    )
    return Answer(status, document, {"cache-control": "no-store"}, "text/html; charset=utf-8")


def checkout(call: Call) -> Any:
    """Show what is being bought, to be confirmed or declined."""
    session = call.store.ticket("checkout", call.path["id"])
    if session is None:
        return page("This check-out is closed", "<p>It was confirmed or declined before.</p>", status=404)
    return page("Check-out", f"{_summary(call, session)}{_buttons(call.path['id'])}")


def confirm(call: Call) -> Any:
    """Pay, so to speak: remember a card and attach the plan."""
    session = call.store.take_ticket("checkout", call.path["id"])
    customer = _customers.load_number(call.store, session["customer"]) if session else None
    if session is None or customer is None:
        return page("This check-out is closed", "<p>It was confirmed or declined before.</p>", status=404)
    customer.has_card = True
    _lifecycle.catch_up(call.catalog, customer, call.now)
    for wanted in session.get("plans", ()):
        if _has(customer, wanted["plan_id"], wanted["entity_id"]):
            continue
        plan = call.catalog.plan(wanted["plan_id"], wanted["version"])
        _lifecycle.attach(call.catalog, customer, plan,
            now=call.now, quantities=wanted["quantities"], paid=True, entity_id=wanted["entity_id"],
        )  # fmt: skip
    _customers.save(call.store, customer)
    return _leave(session, "Thank you", "<p>The payment was accepted.</p>")


def decline(call: Call) -> Any:
    """Do not pay; nothing is attached."""
    session = call.store.take_ticket("checkout", call.path["id"]) or {}
    target = session.get("success_url")
    back = f'<p><a href="{html.escape(target)}">Back</a></p>' if _is_web_address(target) else ""
    return page("Declined", f"<p>Nothing was bought.</p>{back}")


def portal(call: Call) -> Any:
    """Show the plans of a customer."""
    number = call.path["number"]
    customer = _customers.load_number(call.store, int(number)) if number.isdigit() else None
    if customer is None:
        return page("Unknown customer", "", status=404)
    plans = "".join(f"<li>{html.escape(plan.plan_id)}: {plan.status}</li>" for plan in customer.plans)
    return page("Customer portal", f"<p>{html.escape(str(customer.id))}</p><ul>{plans}</ul>")


def _has(customer: Customer, plan_id: str, entity_id: str | None) -> bool:
    plans = (plan for plan in customer.plans if plan.entity_id == entity_id and not plan.one_off)
    return any(plan.plan_id == plan_id for plan in plans)


def _summary(call: Call, session: Document) -> str:
    plans = session.get("plans", ())
    return "".join(_summary_of(call, wanted) for wanted in plans) or "<p>Add a payment method.</p>"


def _summary_of(call: Call, wanted: Document) -> str:
    plan = call.catalog.plan(wanted["plan_id"], wanted["version"])
    lines = [_display.base_price(plan["price"])] if plan["price"] else []
    lines += [item["display"] for item in plan["items"] if item["price"]]
    texts = "".join(f"<li>{html.escape(' '.join(line.values()))}</li>" for line in lines)
    bought = "".join(f"<li>{html.escape(f'{quantity:,} {key}')}</li>" for key, quantity in wanted["quantities"].items())
    return f"<h2>{html.escape(plan['name'])}</h2><ul>{texts}{bought}</ul>"


def _buttons(identifier: str) -> str:
    # Relative, because the page may be served below a prefix.
    action = html.escape(identifier)
    return (
        f'<form method="post"><button formaction="{action}/confirm">Confirm</button>'
        f'<button formaction="{action}/decline">Decline</button></form>'
    )


def _is_web_address(target: Any) -> TypeGuard[str]:
    return isinstance(target, str) and target.startswith(("http://", "https://"))


def _leave(session: Document, title: str, body: str) -> Answer:
    target = session.get("success_url")
    if _is_web_address(target):
        return Answer(303, "", {"location": target}, "text/plain")
    return page(title, body)


ROUTES = {
    ("GET", "/checkout/{id}"): Operation("pages.checkout", checkout, writes=False, public=True),
    ("POST", "/checkout/{id}/confirm"): Operation("pages.confirm", confirm, public=True),
    ("POST", "/checkout/{id}/decline"): Operation("pages.decline", decline, public=True),
    ("GET", "/portal/{number}"): Operation("pages.portal", portal, writes=False, public=True),
}
