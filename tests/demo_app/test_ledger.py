"""The ledger of the demo, put together from a customer and Autumn's events."""

from decimal import Decimal

from demo_app.ledger import ledger
from fastapi_autumn.models import Balance, BalanceBreakdown, CustomerRecord, Event, Purchase, Subscription


def event(number: int, value: str, **properties: str) -> Event:
    return Event(
        id=f"evt_{number}",
        timestamp=number,
        feature_id="ai_usage",
        customer_id="ada",
        value=Decimal(value),
        properties=properties,
    )


def balance(granted: int, usage: int, *parts: BalanceBreakdown) -> Balance:
    return Balance(
        feature_id="ai_credits",
        granted=Decimal(granted),
        remaining=Decimal(max(0, granted - usage)),
        usage=Decimal(usage),
        unlimited=False,
        overage_allowed=True,
        breakdown=parts,
    )


def test_a_charge_and_its_refund_are_one_row():
    """Both events have the charge's id, and the row says what it came to, why, and what was left."""
    events = [event(2, "-5", charge_id="c-1", reason="failed"), event(1, "5", charge_id="c-1", model="gpt-4o")]
    (row,) = ledger(CustomerRecord(id="ada"), events, balance(50, 0))

    assert (row["name"], row["taken"], row["cost"], row["reason"], row["after"]) == ("gpt-4o", 5, 0, "failed", 50)


def test_balances_run_back_through_a_top_up():
    """What a top-up added is known, so older rows have their balance too."""
    top_up = BalanceBreakdown(plan_id="top_up", prepaid_grant=Decimal(500))
    record = CustomerRecord(id="ada", purchases=(Purchase(plan_id="top_up", started_at=2),))
    rows = ledger(record, [event(3, "1"), event(1, "5", charge_id="c-1")], balance(550, 6, top_up))

    assert [(row["name"], row["after"]) for row in rows] == [("usage", 544), ("top_up", 545), ("usage", 45)]


def test_balances_before_a_change_of_plans_are_not_made_up():
    """Nobody can tell from what is left now what there was before another plan."""
    record = CustomerRecord(id="ada", subscriptions=(Subscription(plan_id="pro", status="active", started_at=2),))
    rows = ledger(record, [event(3, "1"), event(1, "5")], balance(2000, 1))

    assert [row["after"] for row in rows] == [1999, 2000, None]


def test_overage_is_below_zero():
    """A balance stops at 0, and the ledger goes on."""
    assert [row["after"] for row in ledger(CustomerRecord(id="ada"), [event(1, "60")], balance(50, 60))] == [-10]
