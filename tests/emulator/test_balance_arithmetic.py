"""The pure arithmetic of balances."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_autumn.emulator.books._balances import (
    InsufficientBalance,
    available,
    deduct,
    in_order,
    is_allowed,
    put_back,
    reset_if_due,
    set_total,
    settle,
)
from fastapi_autumn.emulator.books._clock import DAY
from fastapi_autumn.emulator.books._entitlements import Entitlement, Limits, Rollover, Window, slots_of

ONE = {"credits": Decimal(1)}
USAGE_BASED = {"amount": 1, "billing_units": 1, "billing_method": "usage_based", "max_purchase": None}


def held(identifier="a", balance="10", **changes):
    """Make an entitlement of credits with its grant untouched, unless said otherwise."""
    values = {"included": Decimal(balance), "balance": Decimal(balance), "feature_id": "credits", "created_at": 0}
    return Entitlement(id=identifier, **{**values, **changes})


def ordered(*entitlements):
    return in_order(slots_of(entitlements, None), credit_systems=frozenset({"credits"}))


def window(left, *, of_balance=True):
    """Make a usage limit with this much left."""
    return Window("credits||", "credits", of_balance, "day 0", Decimal(left))


def moved(moves):
    return [(move.entitlement_id, move.credits) for move in moves]


def test_the_shortest_interval_is_used_first_and_what_never_resets_last():
    """Balances are drawn on in Autumn's order, whatever order they are held in."""
    month = held("month", interval="month", next_reset_at=1)
    day = held("day", interval="day", next_reset_at=1)
    top_up = held("top-up", interval="one_off", add_on=True)
    expiring = held("expiring", interval="one_off", expires_at=5, created_at=9)
    grant = held("grant", interval="one_off", created_at=8)
    names = [slot.entitlement.id for slot in ordered(top_up, expiring, month, grant, day)]
    assert names == ["day", "month", "grant", "expiring", "top-up"]


def test_a_features_own_balance_goes_before_a_credit_system():
    """Credits are spared as long as the feature has a balance of its own."""
    own, credits_ = held("own", feature_id="usage"), held("credits", interval="minute", next_reset_at=1)
    moves = deduct(ordered(credits_, own), Decimal(12), costs={"usage": Decimal(1), "credits": Decimal("2.5")})
    assert moved(moves) == [("own", 10), ("credits", 5)]


def test_cap_takes_what_is_there():
    """An amount above the balance takes the balance down to zero and no further."""
    slots = ordered(held("a"), held("b", created_at=1))
    assert moved(deduct(slots, Decimal(25), costs=ONE)) == [("a", 10), ("b", 10)]


def test_reject_takes_nothing_when_it_cannot_take_all():
    """A rejected amount leaves every balance as it was."""
    slots = ordered(held("a"), held("b", created_at=1))
    with pytest.raises(InsufficientBalance):
        deduct(slots, Decimal("20.0000000001"), costs=ONE, behavior="reject")
    assert [slot.balance for slot in slots] == [10, 10]


def test_overflow_goes_past_zero_in_the_first_balance():
    """What no balance covers is owed by the first one."""
    slots = ordered(held("a"), held("b", created_at=1))
    deduct(slots, Decimal(25), costs=ONE, behavior="overflow")
    assert [slot.balance for slot in slots] == [-5, 0]


def test_overflow_keeps_to_a_limit_on_spending():
    """With a limit of 4 on what is owed, an overflowing use of 25 takes 14 of 10, and the limit on usage none of it."""
    slots = ordered(held())
    limits = Limits(spend={"credits": Decimal(4)}, windows=[window(2)])
    assert moved(deduct(slots, Decimal(25), costs=ONE, limits=limits, behavior="overflow")) == [("a", 10), ("a", 4)]


def test_overage_is_used_after_everything_that_is_paid_for():
    """A usage-based balance goes below zero only once the top-up is empty."""
    slots = ordered(held("pro", price=USAGE_BASED, interval="month", next_reset_at=1), held("top-up", add_on=True))
    deduct(slots, Decimal(25), costs=ONE)
    assert {slot.entitlement.id: slot.balance for slot in slots} == {"pro": -5, "top-up": 0}


def test_max_purchase_and_spend_limits_end_overage():
    """Overage stops at max_purchase, and earlier at a spend limit."""
    price = {**USAGE_BASED, "max_purchase": 20}
    limits = Limits(spend={"credits": Decimal(5)})
    assert is_allowed(ordered(held(price=price)), "credits", Decimal(30))
    assert not is_allowed(ordered(held(price=price)), "credits", Decimal(31))
    assert is_allowed(ordered(held(price=price)), "credits", Decimal(15), limits)
    assert not is_allowed(ordered(held(price=price)), "credits", Decimal(16), limits)
    slots = ordered(held(price=price))
    assert moved(deduct(slots, Decimal(99), costs=ONE, limits=limits)) == [("a", 10), ("a", 5)]


def test_a_usage_limit_refuses_what_the_balance_would_cover():
    """A window with 3 left refuses 4, and a capped amount stops at 3."""
    limits = Limits(windows=[window(3)])
    assert not is_allowed(ordered(held()), "credits", Decimal(4), limits)
    assert moved(deduct(ordered(held()), Decimal(4), costs=ONE, limits=limits)) == [("a", 3)]
    assert [(item.left, item.used) for item in limits.windows] == [(0, 3)]


def test_a_limit_on_a_feature_counts_its_units_whatever_pays():
    """A window with 3 units left lets 3 units through, which is 7.5 credits at a cost of 2.5."""
    limits = Limits(windows=[window(3, of_balance=False)])
    moves = deduct(ordered(held()), Decimal(9), costs={"credits": Decimal("2.5")}, limits=limits)
    assert moved(moves) == [("a", Decimal("7.5"))]


def test_a_refund_gives_nothing_back_to_a_usage_limit():
    """Only what is undone of a hold comes back to a window; a negative use does not."""
    limits = Limits(windows=[window(3)])
    slots = ordered(held(balance="10", included=Decimal(20)))
    deduct(slots, Decimal(-2), costs=ONE, limits=limits)
    assert limits.windows[0].left == 3


def test_giving_back_stops_at_what_was_granted():
    """A refund of more than was used returns what was used."""
    slots = ordered(held("a", included=Decimal(10), balance=Decimal(4)))
    assert moved(deduct(slots, Decimal(-100), costs=ONE)) == [("a", -6)]
    assert moved(deduct(slots, Decimal(-1), costs=ONE)) == []


def test_a_smaller_confirmation_undoes_the_last_moves_first():
    """A hold of 55 over two balances that ends as 52 gives 3 back to the second one."""
    slots = ordered(held("free", "50", interval="month", next_reset_at=1), held("top-up", "500", add_on=True))
    hold = deduct(slots, Decimal(55), costs=ONE)
    settle(slots, hold, final_units=Decimal(52), costs=ONE)
    assert [slot.balance for slot in slots] == [0, 498]


def test_a_released_hold_is_not_capped():
    """A refund during a hold and the release afterwards both count: 55 of 50, as at Autumn."""
    slots = ordered(held("a", "50"))
    hold = deduct(slots, Decimal(5), costs=ONE)
    deduct(slots, Decimal(-5), costs=ONE)
    put_back(slots, hold)
    assert slots[0].balance == 55


def test_a_release_whose_balance_is_gone_goes_to_the_others():
    """What cannot be undone is given to what is there, as far as something of it was used."""
    gone, stays = held("gone", "5"), held("stays", "10", created_at=1)
    hold = deduct(ordered(gone, stays), Decimal(8), costs=ONE)
    slots = ordered(stays)
    undone, given = settle(slots, hold, final_units=Decimal(0), costs=ONE)
    assert (moved(undone), moved(given)) == ([("stays", -3)], [])
    assert slots[0].balance == 10


def test_a_refund_fills_what_is_owed_first():
    """Overage is given back before anything else, whatever the order of use."""
    grant = held("grant", "10", interval="day", next_reset_at=1)
    pro = held("pro", price=USAGE_BASED, interval="month", next_reset_at=1)
    grant.balance, pro.balance = Decimal(0), Decimal(-5)
    assert moved(deduct(ordered(grant, pro), Decimal(-8), costs=ONE)) == [("pro", -5), ("grant", -3)]


def test_a_refund_does_not_go_into_what_was_rolled_over():
    """A rollover that was used stays used."""
    entitlement = held(rollovers=[Rollover("r1", Decimal(0), Decimal(3), 0)])
    assert moved(deduct(ordered(entitlement), Decimal(-3), costs=ONE)) == []


def test_seats_that_are_taken_are_taken():
    """What is not used up may go past what was granted, unless it has to be there in full."""
    limits = Limits(allocated=frozenset({"credits"}))
    slots = ordered(held())
    assert moved(deduct(slots, Decimal(12), costs=ONE, limits=limits)) == [("a", 10), ("a", 2)]
    with pytest.raises(InsufficientBalance):
        deduct(slots, Decimal(1), costs=ONE, limits=limits, behavior="reject")


def test_an_unlimited_balance_goes_anywhere():
    """What is unlimited takes and gives without bounds, below zero too."""
    slots = ordered(held(unlimited=True, balance="0"))
    assert moved(deduct(slots, Decimal(-7), costs=ONE)) == [("a", -7)]
    assert moved(deduct(slots, Decimal(3), costs=ONE)) == [("a", 3)]


def test_rollovers_are_used_first():
    """What was rolled over goes before the period's grant, what expires first before what does not."""
    entitlement = held(rollovers=[Rollover("r1", Decimal(3), Decimal(0), 0), Rollover("r2", Decimal(2), Decimal(0), 9)])
    moves = deduct(ordered(entitlement), Decimal(6), costs=ONE)
    assert [(move.rollover_id, move.credits) for move in moves] == [("r2", 2), ("r1", 3), (None, 1)]


def test_what_entities_hold_does_not_touch_what_others_rolled_over():
    """Where a balance per entity pays first, rollovers of the customer's own balance are left where they are."""
    own = held("own", rollovers=[Rollover("r", Decimal(7), Decimal(0), 9)])
    shared = held("shared", entity_feature_id="seats", entities={"e": Decimal(10)})
    slots = in_order(slots_of([own, shared], "e"), credit_systems=frozenset(), entity_id="e")
    assert moved(deduct(slots, Decimal(12), costs=ONE)) == [("shared", 10), ("own", 2)]


def test_a_reset_grants_anew_and_rolls_over_up_to_the_maximum():
    """Seven of ten left, at most four kept: the next period has ten and a rollover of four."""
    rule = {"max": 4, "max_percentage": None, "expiry_duration_type": "forever", "expiry_duration_length": 1}
    entitlement = held(balance="10", interval="day", next_reset_at=DAY, rollover=rule)
    entitlement.balance = Decimal(7)
    assert not reset_if_due(entitlement, DAY - 1, "r")
    assert reset_if_due(entitlement, DAY, "r")
    assert entitlement.balance == 10
    assert [(left.balance, left.expires_at) for left in entitlement.rollovers] == [(4, 0)]
    assert entitlement.next_reset_at == 2 * DAY


def test_each_entity_rolls_over_its_own():
    """Two of ten and nothing are left: one entity has two and ten in the next period, and the other ten."""
    rule = {"max": 4, "max_percentage": None, "expiry_duration_type": "forever", "expiry_duration_length": 1}
    entitlement = held(balance="10", interval="day", next_reset_at=DAY, rollover=rule, entity_feature_id="seats")
    entitlement.entities = {"ann": Decimal(2), "bob": Decimal(0)}
    assert reset_if_due(entitlement, DAY, "r")
    ann, bob = (slots_of([entitlement], name) for name in ("ann", "bob"))
    assert (available(ann), available(bob), available(ann + bob)) == (12, 10, 22)
    moves = deduct(ann, Decimal(5), costs=ONE)
    assert [(move.rollover_id, move.credits) for move in moves] == [("r", 2), (None, 3)]
    put_back(ann, moves)
    assert (available(ann), available(bob)) == (12, 10)
    assert reset_if_due(entitlement, 2 * DAY, "s")
    assert [(left.id, left.entity_id, left.balance) for left in entitlement.rollovers] == [
        ("s", "ann", 4),
        ("s", "bob", 4),
    ]


def test_setting_what_remains_takes_in_order_and_adds_to_the_first():
    """balances.update with `remaining` empties balances in their order; an increase goes to the first."""
    slots = ordered(held("a", "50", interval="month", next_reset_at=1), held("b", "25", created_at=1))
    set_total(slots, Decimal(7), ONE)
    assert [slot.balance for slot in slots] == [0, 7]
    set_total(slots, Decimal(12), ONE)
    assert [slot.balance for slot in slots] == [5, 7]


AMOUNTS = st.decimals(min_value=-60, max_value=60, places=3)
COSTS = st.sampled_from(["1", "2.5", "0.3", "7"])


@given(amounts=st.lists(AMOUNTS, max_size=12), cost=COSTS, usage_based=st.booleans())
def test_what_moves_is_what_the_balances_change_by(amounts, cost, usage_based):
    """After any sequence of use and refunds, grants less balances equal the sum of all moves, to the last place."""
    price = USAGE_BASED if usage_based else None
    entitlements = [held("a", "40", price=price), held("b", "15", interval="one_off", add_on=True)]
    total = Decimal(0)
    for units in amounts:
        moves = deduct(ordered(*entitlements), units, costs={"credits": Decimal(cost)})
        total += sum(move.credits for move in moves)
        used = sum(item.granted - item.balance for item in entitlements)
        assert used == total
        assert all(item.balance <= item.granted for item in entitlements)
        assert usage_based or all(item.balance >= 0 for item in entitlements)
