"""What Autumn's own records say at the end, held against what the customers saw."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx

from chaos.client import Call
from chaos.settings import PRICES


@dataclass(slots=True)
class Charge:
    """All events of one charge."""

    customer: str
    net: Decimal = Decimal(0)
    call: int | None = None
    price: Decimal | None = None
    settlements: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Books:
    """The result of one run; every number but the first four has to be 0."""

    kept: int = 0
    given_back: int = 0
    given_back_after_a_kill: int = 0
    used: Decimal = Decimal(0)
    drift: Decimal = Decimal(0)
    unbalanced_customers: int = 0
    wrong_amounts: int = 0
    """Charges whose events come to neither nothing nor the price."""
    failed_and_paid: int = 0
    served_and_unpaid: int = 0
    delivered_twice: int = 0
    left_in_the_outbox: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def balance(self) -> bool:
        return not (
            self.drift
            or self.unbalanced_customers
            or self.wrong_amounts
            or self.failed_and_paid
            or self.served_and_unpaid
            or self.delivered_twice
            or self.left_in_the_outbox
        )


async def events_of(autumn: httpx.AsyncClient) -> list[dict[str, Any]]:
    """Every event, page by page, no faster than Autumn allows."""
    events: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        response = await autumn.post("/v1/events.list", json={"start_cursor": cursor, "limit": 1000})
        if response.status_code == 429:
            await asyncio.sleep(1)
            continue
        page = response.raise_for_status().json()
        events += page["list"]
        cursor = page["next_cursor"]
    return events


def charges_in(events: Sequence[dict[str, Any]]) -> dict[str, Charge]:
    charges: dict[str, Charge] = {}
    for event in events:
        properties = event["properties"]
        charge = charges.setdefault(properties["charge_id"], Charge(event["customer_id"]))
        charge.net += Decimal(str(event["value"]))
        if "call" in properties:
            charge.call, charge.price = int(properties["call"]), Decimal(PRICES[properties["model"]])
        if "reason" in properties:
            charge.settlements[str(event["value"])] += 1
    return charges


async def audit(
    autumn: httpx.AsyncClient, calls: Sequence[Call], *, left: int, died_soon_after: Callable[[Call], bool]
) -> Books:
    """Compare calls, events and balances."""
    books = Books(left_in_the_outbox=left)
    charges = charges_in(await events_of(autumn))
    by_call = {charge.call: charge for charge in charges.values() if charge.call is not None}
    nets: defaultdict[str, Decimal] = defaultdict(Decimal)
    for charge_id, charge in charges.items():
        nets[charge.customer] += charge.net
        if charge.net not in {0, charge.price}:
            books.wrong_amounts += 1
            books.examples.append(f"wrong amount: {charge_id} {charge}")
        if any(count > 1 for count in charge.settlements.values()):
            books.delivered_twice += 1
            books.examples.append(f"delivered twice: {charge_id} {charge}")
        books.kept += bool(charge.net)
        books.given_back += not charge.net
    for call in calls:
        charge = by_call.get(call.number)
        paid = charge is not None and charge.net != 0
        if call.has_failed and paid:
            books.failed_and_paid += 1
            books.examples.append(f"failed and paid: {call} {charge}")
        if call.has_succeeded and not paid:
            if died_soon_after(call):
                books.given_back_after_a_kill += 1
            else:
                books.served_and_unpaid += 1
                books.examples.append(f"served and unpaid: {call} {charge}")
    for customer in sorted({call.customer for call in calls}):
        response = await autumn.post("/v1/customers.get_or_create", json={"customer_id": customer})
        balance = response.raise_for_status().json()["balances"]["ai_usage"]
        used = Decimal(str(balance["usage"]))
        books.used += used
        books.drift += abs(used - nets[customer])
        books.unbalanced_customers += used != nets[customer]
    return books
