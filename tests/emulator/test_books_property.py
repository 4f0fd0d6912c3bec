"""The books balance: after any sequence of grants, uses, refunds, holds, resets and upgrades."""

import json
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from emulator.conftest import CATALOG, Time
from fastapi_autumn.emulator import ApiError, Emulator
from fastapi_autumn.emulator.books._balances import deduct, in_order
from fastapi_autumn.emulator.books._entitlements import Entitlement, slots_of

ANN = {"customer_id": "ann"}
USE = ANN | {"feature_id": "usage"}
DAY = 86_400_000

units = st.sampled_from([1, 3, 7.5, 0.1, 20, 55, 600])
steps = st.one_of(
    st.tuples(st.just("use"), units),
    st.tuples(st.just("refund"), units),
    st.tuples(st.just("check"), units),
    st.tuples(st.just("overflow"), units),
    st.tuples(st.just("recalculate")),
    st.tuples(st.just("hold"), units),
    st.tuples(st.sampled_from(["confirm", "release"]), st.integers(0, 3), st.none() | st.sampled_from([0, 2, 30])),
    st.tuples(st.just("grant"), st.sampled_from([1, 5, 40])),
    st.tuples(st.just("top up"), st.sampled_from([100, 500])),
    st.tuples(st.just("upgrade")),
    st.tuples(st.just("wait"), st.sampled_from([1, 20, 40])),
)


class Books:
    """An emulator with one customer, and what a step changed in it."""

    def __init__(self):
        self.time = Time()
        self.emulator = Emulator(":memory:", catalog=CATALOG, clock=self.time)
        self.emulator.call("customers.get_or_create", ANN)
        self.holds = 0

    def credits(self):
        """What is granted and what is left, past zero too."""
        shown = self.emulator.call("customers.get", ANN)["balances"].get("credits")
        if shown is None:
            return Decimal(0), Decimal(0)
        granted, usage = (Decimal(str(shown[key])) for key in ("granted", "usage"))
        return granted, granted - usage

    def logged(self):
        """What the event log says was taken, all in all."""
        rows = self.emulator._store.rows("SELECT deductions FROM events WHERE deductions IS NOT NULL")
        taken = [entry["value"] for (text,) in rows for entry in json.loads(text)]
        return sum((Decimal(str(value)) for value in taken), Decimal(0))

    def do(self, step):
        """Do one step; what Autumn would refuse is refused, and changes nothing."""
        before = self.credits()
        try:
            self._do(step)
        except ApiError:
            assert self.credits() == before

    def _do(self, step):
        call = self.emulator.call
        match step:
            case ("use", number):
                call("balances.track", USE | {"value": number})
            case ("refund", number):
                call("balances.track", USE | {"value": -number})
            case ("overflow", number):
                call("balances.track", USE | {"value": number, "overage_behavior": "overflow"})
            case ("recalculate",):
                call("balances.recalculate", ANN | {"feature_id": "credits"})
            case ("check", number):
                call("balances.check", USE | {"required_balance": number, "send_event": True})
            case ("hold", number):
                lock = {"enabled": True, "lock_id": f"h{self.holds}", "expires_at": self.time.now + DAY}
                self.holds += 1
                call("balances.check", USE | {"required_balance": number, "lock": lock})
            case (("confirm" | "release") as action, number, override):
                more = {} if override is None or action == "release" else {"override_value": override}
                call("balances.finalize", {"lock_id": f"h{number}", "action": action} | more)
            case ("grant", number):
                call("balances.create", ANN | {"feature_id": "credits", "included_grant": number})
            case ("top up", number):
                quantities = [{"feature_id": "credits", "quantity": number}]
                bought = {"plan_id": "top_up", "feature_quantities": quantities, "no_billing_changes": True}
                call("billing.attach", ANN | bought)
            case ("upgrade",):
                call("billing.attach", ANN | {"plan_id": "pro", "no_billing_changes": True})
            case ("wait", days):
                self.time.now += days * DAY


@given(st.lists(steps, max_size=25))
def test_nothing_is_created_or_lost_but_by_the_rules(sequence):
    """What a balance falls by is what the log says was taken, and only a grant, a reset or another plan adds to it."""
    books = Books()
    for step in sequence:
        granted, left = books.credits()
        logged = books.logged()
        books.do(step)
        granted_now, left_now = books.credits()
        taken = books.logged() - logged
        if step[0] in ("grant", "top up"):
            # What is bought in advance comes in packs of 500.
            assert left_now - left + taken == (500 if step[0] == "top up" else step[1])
        elif step[0] not in ("upgrade", "wait"):
            assert left - left_now == taken
            assert step[0] != "refund" or 0 <= -taken <= step[1]
            assert step[0] not in ("use", "check", "hold") or 0 <= taken <= Decimal(str(step[1]))
            assert step[0] != "overflow" or taken == Decimal(str(step[1]))
            assert step[0] != "recalculate" or taken == 0
            # What is used up and came with no plan is forgotten, and takes its grant along.
            assert granted_now <= granted
    books.emulator.close()


def held(identifier, balance, created_at):
    return Entitlement(
        id=identifier, feature_id="credits", created_at=created_at, included=Decimal(40), balance=Decimal(balance)
    )


@given(
    amounts=st.lists(st.decimals(min_value=-30, max_value=30, places=2), min_size=2, max_size=2),
    order=st.permutations([("a", 40, 0), ("b", 25, 1), ("c", 0, 2)]),
)
def test_equal_orders_give_equal_books(amounts, order):
    """Two uses, or two refunds, in either order, and balances listed in any order, end in the same balances."""
    one, other = amounts
    if (one < 0) != (other < 0):
        other = -other

    def after(first, second, listed):
        entitlements = [held(*each) for each in listed]
        for number in (first, second):
            slots = in_order(slots_of(entitlements, None), credit_systems=frozenset())
            deduct(slots, number, costs={"credits": Decimal(1)})
        return sorted((each.id, each.balance) for each in entitlements)

    assert after(one, other, order) == after(other, one, sorted(order))
