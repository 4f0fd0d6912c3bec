"""What Autumn's own records say at the end, held against what the customers saw."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx

from chaos.client import Call
from chaos.moments import Moments
from chaos.settings import PRICES, SHUTDOWN_TIMEOUT

LONGEST_WAIT_SECONDS = 30.0
"""How long a call may be in memory only. It is 0.2 seconds, unless many processes wait for a processor."""
LONGEST_STOP_SECONDS = 2 * (5 + 4 * SHUTDOWN_TIMEOUT)
"""uvicorn waits 5 seconds for calls that are under way, then four steps have a time-out each. Twice that, as above."""


@dataclass(slots=True)
class Charge:
    """All events of one charge."""

    id: str
    customer: str
    net: Decimal = Decimal(0)
    call: int | None = None
    price: Decimal | None = None
    held: bool = False
    settlements: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Books:
    """The result of one run. What is wrong has to be 0, and what is measured within its bound."""

    kept: int = 0
    given_back: int = 0
    held: int = 0
    used: Decimal = Decimal(0)
    free_after_a_kill: int = 0
    """Calls that were served, and given back because their worker was killed before the commit after them."""

    drift: Decimal = Decimal(0)
    unbalanced_customers: int = 0
    wrong_amounts: int = 0
    """Charges whose events come to neither nothing nor the price."""
    failed_and_paid: int = 0
    served_and_unpaid: int = 0
    delivered_twice: int = 0
    left_in_the_outbox: int = 0
    examples: list[str] = field(default_factory=list)

    longest_wait: float = 0.0
    """Seconds from the end of a call to the commit after it, while there could be one."""
    longest_wait_before_a_kill: float = 0.0
    """The same for what was excused."""
    longest_stop: float = 0.0
    """Seconds from SIGTERM to the end of a worker."""

    @property
    def balance(self) -> bool:
        return (
            not (
                self.drift
                or self.unbalanced_customers
                or self.wrong_amounts
                or self.failed_and_paid
                or self.served_and_unpaid
                or self.delivered_twice
                or self.left_in_the_outbox
            )
            and max(self.longest_wait, self.longest_wait_before_a_kill) <= LONGEST_WAIT_SECONDS
            and self.longest_stop <= LONGEST_STOP_SECONDS
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
        charge_id = properties["charge_id"]
        charge = charges.setdefault(charge_id, Charge(charge_id, event["customer_id"]))
        charge.net += Decimal(str(event["value"]))
        if "call" in properties:
            charge.call, charge.price = int(properties["call"]), Decimal(PRICES[properties["model"]])
            charge.held = properties["charging"] == "hold"
        if "reason" in properties:
            charge.settlements[str(event["value"])] += 1
    return charges


async def audit(autumn: httpx.AsyncClient, calls: Sequence[Call], *, left: int, moments: Moments) -> Books:
    """Compare calls, events and balances."""
    books = Books(left_in_the_outbox=left)
    charges = charges_in(await events_of(autumn))
    by_call = {charge.call: charge for charge in charges.values() if charge.call is not None}
    nets: defaultdict[str, Decimal] = defaultdict(Decimal)
    for charge in charges.values():
        nets[charge.customer] += charge.net
        if charge.net not in {0, charge.price}:
            books.wrong_amounts += 1
            books.examples.append(f"wrong amount: {charge}")
        if any(count > 1 for count in charge.settlements.values()):
            books.delivered_twice += 1
            books.examples.append(f"delivered twice: {charge}")
        books.held += charge.held
        books.kept += bool(charge.net)
        books.given_back += not charge.net
    for call in calls:
        charge = by_call.get(call.number)
        paid = charge is not None and charge.net != 0
        if call.has_failed and paid:
            books.failed_and_paid += 1
            books.examples.append(f"failed and paid: {call} {charge}")
        if not call.has_succeeded:
            continue
        if moments.is_excused(call):
            books.free_after_a_kill += not paid
            books.longest_wait_before_a_kill = max(books.longest_wait_before_a_kill, moments.wait(call))
            continue
        if call.number in moments.committed:
            wait = moments.wait(call)
            books.longest_wait = max(books.longest_wait, wait)
            if wait > LONGEST_WAIT_SECONDS:
                books.examples.append(f"unwritten for {wait:.3f} s until {moments.committed[call.number]}: {call}")
        if not paid:
            books.served_and_unpaid += 1
            books.examples.append(f"served and unpaid: {call} {charge}")
    for customer in sorted({call.customer for call in calls}):
        response = await autumn.post("/v1/customers.get_or_create", json={"customer_id": customer})
        balance = response.raise_for_status().json()["balances"]["ai_usage"]
        used = Decimal(str(balance["usage"]))
        books.used += used
        books.drift += abs(used - nets[customer])
        books.unbalanced_customers += used != nets[customer]
    books.longest_stop = max((ended - told for told, ended in moments.stopped.values()), default=0.0)
    return books
