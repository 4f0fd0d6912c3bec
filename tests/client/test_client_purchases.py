"""What the operations that cost or grant something do with answers, also with lost ones."""

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from client.answers import BALANCE
from fastapi_autumn import AutumnClient, AutumnSettings, Customer
from fastapi_autumn.catalog import Catalog, templates
from fastapi_autumn.client import UNCHANGED
from fastapi_autumn.emulator import EMULATOR_KEY, Emulator, Fault
from fastapi_autumn.errors import AmountError, CustomerNotFound, DuplicateRequest, Uncertain, UnexpectedAnswer
from fastapi_autumn.transports import AsgiTransport


@pytest.fixture
def emulator() -> Emulator:
    return Emulator(":memory:", catalog=Catalog.from_source(templates.TEMPLATES["credits"], Path("autumn_config.py")))


@pytest.fixture
async def real(emulator: Emulator) -> AsyncIterator[AutumnClient]:
    """A client that talks to an emulator which knows Ada."""
    settings = AutumnSettings(_env_file=None, max_retries=0)
    async with AutumnClient(settings, transport=AsgiTransport(emulator, timeout=5), secret_key=EMULATOR_KEY) as client:
        await client.customers.get_or_create(Customer("ada"))
        yield client


async def granted(client: AutumnClient) -> Decimal:
    return (await client.customers.get("ada")).balances["ai_credits"].granted - 50


async def test_a_grant_is_given_once(real: AutumnClient) -> None:
    """The same key again, at once or after the credits are used, gives nothing more and says so."""
    assert await real.balances.grant("ada", "ai_credits", 100, key="welcome:ada") is True
    assert await real.balances.grant("ada", "ai_credits", 100, key="welcome:ada") is False
    assert await real.balances.grant("ada", "ai_credits", 5, key="welcome:ada:2") is True
    assert await granted(real) == 105


@pytest.mark.parametrize("key", ["welcome", "willkommen \N{WAVING HAND SIGN}", "k" * 300])
async def test_a_grant_is_for_one_customer_and_one_feature(key: str, real: AutumnClient) -> None:
    """Two customers have the same reason, in any script and at any length, and each gets theirs once."""
    await real.customers.get_or_create(Customer("bob"))
    for customer in ("ada", "bob"):
        assert await real.balances.grant(customer, "ai_credits", 100, key=key) is True
        assert await real.balances.grant(customer, "ai_credits", 100, key=key) is False


async def test_a_grant_whose_answer_was_lost_is_found(real: AutumnClient, emulator: Emulator) -> None:
    """The work was done and the answer dropped: the balance shows it, and nothing is given twice."""
    emulator.faults.add("balances.create", Fault(kind="drop", times=1))
    assert await real.balances.grant("ada", "ai_credits", 100, key="welcome:ada") is True
    assert await granted(real) == 100


async def test_a_grant_that_never_arrived_can_be_tried_again(real: AutumnClient, emulator: Emulator) -> None:
    """Nothing shows it, so the outcome stays unknown; the next call with the key finds out."""
    emulator.faults.add("balances.create", Fault(kind="fail", status=502, times=1))
    with pytest.raises(Uncertain):
        await real.balances.grant("ada", "ai_credits", 100, key="welcome:ada")
    assert await real.balances.grant("ada", "ai_credits", 100, key="welcome:ada") is True
    assert await granted(real) == 100


async def test_a_used_up_grant_is_not_given_again(client: AutumnClient, autumn: Any) -> None:
    """Autumn drops a grant that is used up; then its memory of the key says no, and the caller is told that much."""
    autumn.post("/customers.get").respond(json={"id": "ada", "balances": {"ai_credits": BALANCE}})
    created = autumn.post("/balances.create").respond(
        409, json={"code": "duplicate_idempotency_key", "message": "Another request", "env": "live"}
    )
    with pytest.raises(DuplicateRequest):
        await client.balances.grant("ada", "ai_credits", 100, key="welcome:ada")
    assert created.call_count == 1
    assert created.calls.last.request.headers["idempotency-key"].startswith("grant:")


async def test_a_grant_of_an_entity_is_looked_up_there(client: AutumnClient, autumn: Any) -> None:
    """What belongs to one seat is in that seat's balances."""
    has = {**BALANCE, "breakdown": [{"id": "k1"}]}
    autumn.post("/entities.get").respond(json={"id": "seat1", "customer_id": "ada", "balances": {"ai_credits": has}})
    assert await client.balances.grant("ada", "ai_credits", 100, key="k1", entity_id="seat1") is False


async def test_grants_amounts_only(real: AutumnClient) -> None:
    """Nothing, and less than nothing, is no grant; nobody's grant is an error of its own."""
    for amount in (0, -1, float("nan")):
        with pytest.raises(AmountError):
            await real.balances.grant("ada", "ai_credits", amount, key="k")
    with pytest.raises(CustomerNotFound):
        await real.balances.grant("nobody", "ai_credits", 1, key="k")


async def test_the_new_operations_work_together(real: AutumnClient) -> None:
    """Balances, entities, plans and purchases, against the emulator: what is written can be read back."""
    await real.balances.create("ada", "ai_credits", included_grant=7, balance_id="extra")
    await real.balances.update("ada", "ai_credits", balance_id="extra", remaining=3)
    extra = next(
        part for part in (await real.customers.get("ada")).balances["ai_credits"].breakdown if part.id == "extra"
    )
    assert extra.remaining == 3
    await real.balances.delete("ada", balance_id="extra")
    assert await granted(real) == 0

    plan = await real.plans.get("pro")
    preview = await real.billing.preview_attach("ada", "pro")
    assert preview.total > 0
    assert preview.currency == "usd"
    assert [change.plan_id for change in preview.incoming] == [plan.id]
    await real.billing.attach("ada", "pro", no_billing_changes=True)
    await real.billing.update("ada", "pro", cancel_action="cancel_end_of_cycle", no_billing_changes=True)
    assert (await subscription(real)).canceled_at is not None
    await real.billing.update("ada", "pro", cancel_action="uncancel", no_billing_changes=True)
    assert (await subscription(real)).canceled_at is None

    await real.customers.update("ada", name="Ada", email="ada@example.com")
    assert (await real.customers.update("ada", name=None)).email == "ada@example.com"
    await real.customers.delete("ada")
    with pytest.raises(CustomerNotFound):
        await real.customers.get("ada")
    assert repr(UNCHANGED) == "UNCHANGED"


async def subscription(client: AutumnClient) -> Any:
    return next(plan for plan in (await client.customers.get("ada")).subscriptions if plan.plan_id == "pro")


async def test_what_stands_between_a_customer_and_their_plan_is_told(client: AutumnClient, autumn: Any) -> None:
    """A payment that failed must not look like a finished purchase."""
    autumn.post("/billing.attach").respond(
        json={
            "customer_id": "ada",
            "payment_url": None,
            "invoice": {
                "status": "open",
                "stripe_id": "in_1",
                "total": 2000,
                "currency": "usd",
                "hosted_invoice_url": None,
            },
            "required_action": {"code": "payment_failed", "reason": "Your card was declined."},
        }
    )
    result = await client.billing.attach("ada", "pro")
    assert result.required_action is not None
    assert (result.required_action.code, result.required_action.reason) == ("payment_failed", "Your card was declined.")
    assert result.invoice is not None
    assert (result.invoice.total, result.invoice.currency) == (2000, "usd")


async def test_another_entitys_record_is_no_answer(client: AutumnClient, autumn: Any) -> None:
    """The record names the entity and its customer, and both are those that were asked for."""
    for answer in ({"id": "seat2", "customer_id": "ada"}, {"id": "seat1", "customer_id": "bob"}):
        autumn.post("/entities.get").respond(json=answer)
        with pytest.raises(UnexpectedAnswer):
            await client.entities.get("ada", "seat1")
    autumn.post("/entities.get").respond(json={"id": "seat1", "customer_id": None})
    assert (await client.entities.get("ada", "seat1")).id == "seat1"


async def test_a_correction_is_one_thing(client: AutumnClient) -> None:
    """To set what remains and to add to it at once has no meaning that two people would agree on."""
    with pytest.raises(ValueError, match="one of remaining"):
        await client.balances.update("ada", "ai_credits", remaining=3, add_to_balance=4)


async def test_goes_through_the_pages_of_events(client: AutumnClient, autumn: Any) -> None:
    """All events, in order, whatever the number of pages."""
    event = {"id": "1", "timestamp": 5, "feature_id": "f", "customer_id": "ada", "value": 1}
    pages = [
        {"list": [event, {**event, "id": "2"}], "next_cursor": "c1"},
        {"list": [{**event, "id": "3", "deductions": [{"balance_id": "b", "feature_id": "f", "value": 0.1}]}]},
    ]
    route = autumn.post("/events.list").mock(side_effect=[httpx.Response(200, json=page) for page in pages])
    found = [event async for event in client.events.iterate(customer_id="ada", page=2)]
    assert [event.id for event in found] == ["1", "2", "3"]
    assert found[2].deductions is not None
    assert found[2].deductions[0].value == Decimal("0.1")
    assert b'"start_cursor":"c1"' in route.calls.last.request.content
