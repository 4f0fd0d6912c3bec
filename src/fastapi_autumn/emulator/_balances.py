"""The arithmetic of balances: pure functions over entitlements, with no database and no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Literal, TypeAlias

from fastapi_autumn.emulator._clock import add_interval, next_after
from fastapi_autumn.emulator._entitlements import (
    EXACT,
    ZERO,
    Entitlement,
    Limits,
    Move,
    Rollover,
    Slot,
    amount,
    rounded,
)

OverageBehavior: TypeAlias = Literal["cap", "reject", "overflow"]

_NO_LIMITS = Limits()
# The order of intervals by length; what never resets is used up last.
_LENGTH = {"minute": 1, "hour": 60, "day": 1_440, "week": 10_080, "month": 43_200, "quarter": 129_600,
           "semi_annual": 259_200, "year": 525_600}  # fmt: skip


class InsufficientBalance(Exception):
    """The whole amount was asked for and is not there; nothing was moved."""


def in_order(
    slots: Iterable[Slot],
    *,
    credit_systems: frozenset[str],
    entity_id: str | None = None,
    refund: bool = False,
) -> list[Slot]:
    """Sort slots by when they are used up.

    The feature's own balance before credit systems, unlimited first, what is in overage last (and first for a
    refund), the shortest reset interval first, what never resets last, what expires soonest first, plans before
    add-ons, the oldest first.
    """

    def key(slot: Slot) -> tuple[object, ...]:
        entitlement = slot.entitlement
        of_entity = slot.entity_id is not None or entitlement.entity_id is not None
        in_overage = entitlement.is_usage_based and slot.balance <= 0
        length = _LENGTH.get(entitlement.interval or "", 0) * entitlement.interval_count
        return (
            of_entity != (entity_id is not None),
            entitlement.feature_id in credit_systems,
            not entitlement.unlimited,
            in_overage != refund,
            entitlement.next_reset_at is None,
            length,
            entitlement.expires_at is None,
            entitlement.expires_at or 0,
            entitlement.add_on,
            entitlement.created_at,
        )

    return sorted(slots, key=key)


def overage_left(slots: Sequence[Slot], feature_id: str, limits: Limits) -> Decimal | None:
    """Return how far usage of a feature may still go past zero; None for without limit."""
    if limits.overage_allowed.get(feature_id) is False:
        return ZERO
    mine = [slot for slot in slots if slot.entitlement.feature_id == feature_id]
    total: Decimal | None = ZERO
    if limits.overage_allowed.get(feature_id):
        total = None
    else:
        for slot in mine:
            if slot.entitlement.is_usage_based:
                most = slot.entitlement.max_purchase
                total = None if most is None or total is None else total + most
    if feature_id in limits.spend and total != ZERO:
        total = limits.spend[feature_id]
    if total is None:
        return None
    return max(ZERO, total - sum((max(ZERO, -slot.balance) for slot in mine), ZERO))


def is_allowed(slots: Sequence[Slot], feature_id: str, required: Decimal, limits: Limits = _NO_LIMITS) -> bool:
    """Tell whether a feature's balance covers `required` credits, overage included."""
    mine = [slot for slot in slots if slot.entitlement.feature_id == feature_id]
    if not mine:
        return False
    if required < 0 or any(slot.entitlement.unlimited for slot in mine):
        return True
    window = limits.usage_left.get(feature_id)
    if window is not None and required > window:
        return False
    room = overage_left(slots, feature_id, limits)
    return room is None or available(mine) + room >= required


def available(slots: Iterable[Slot]) -> Decimal:
    """Add up what is left above zero, rollovers included."""
    total = ZERO
    for slot in slots:
        total += max(ZERO, slot.balance) + sum((left.balance for left in slot.entitlement.rollovers), ZERO)
    return total


def deduct(
    slots: Sequence[Slot],
    units: Decimal,
    *,
    costs: Mapping[str, Decimal],
    limits: Limits = _NO_LIMITS,
    behavior: OverageBehavior = "cap",
) -> list[Move]:
    """Take `units` of a feature out of its slots, in their order; negative units give back.

    `costs` says what one unit takes out of each feature's balance (1 for its own, the credit cost for a credit
    system). `cap` takes what is there, `reject` raises `InsufficientBalance` and takes nothing, `overflow` takes the
    rest from the first slot, past zero. Giving back stops at what was granted, except with `overflow`.
    """
    if units < 0:
        return _give_back(slots, -units, costs, overflow=behavior == "overflow")
    payment = _Payment(units, costs, limits)
    for slot in slots:
        payment.take_rollovers(slot)
    for slot in slots:
        payment.take(slot, None if slot.entitlement.unlimited else max(ZERO, slot.balance))
    for slot in slots:
        feature_id = slot.entitlement.feature_id
        if slot.entitlement.is_usage_based or limits.overage_allowed.get(feature_id):
            payment.take(slot, overage_left(slots, feature_id, limits))
    if rounded(payment.left) > 0 and slots:
        if behavior == "reject":
            put_back(slots, payment.moves)
            raise InsufficientBalance
        if behavior == "overflow":
            payment.limits = _NO_LIMITS
            payment.take(slots[0], None)
    return payment.moves


def put_back(slots: Iterable[Slot], moves: Sequence[Move], units: Decimal | None = None) -> list[Move]:
    """Undo moves, the last one first: all of them, or only `units` of the feature. Nothing caps what comes back.

    Returns the moves that were made. An entitlement that is gone by now gets nothing.
    """
    by_place = {(slot.entitlement.id, slot.entity_id): slot for slot in slots}
    undone = []
    for move in reversed(moves):
        share = move.units if units is None else min(move.units, units)
        slot = by_place.get((move.entitlement_id, move.entity_id))
        if share == 0 or slot is None:
            continue
        credits_ = rounded(move.credits if share == move.units else move.credits * share / move.units)
        back = next((item for item in slot.entitlement.rollovers if item.id == move.rollover_id), None)
        if back is None:
            slot.add(credits_)
        else:
            back.balance, back.used = rounded(back.balance + credits_), rounded(back.used - credits_)
        undone.append(Move(move.entitlement_id, move.entity_id, move.rollover_id, -credits_, -share))
        if units is not None:
            units -= share
    return undone


def settle(
    slots: Sequence[Slot],
    held: Sequence[Move],
    *,
    held_units: Decimal,
    final_units: Decimal,
    costs: Mapping[str, Decimal],
    limits: Limits = _NO_LIMITS,
    behavior: OverageBehavior = "cap",
) -> list[Move]:
    """Turn a hold of `held_units` into a use of `final_units`: give the difference back, or take more."""
    if final_units >= held_units:
        return deduct(slots, final_units - held_units, costs=costs, limits=limits, behavior=behavior)
    moves = put_back(slots, held, held_units - max(ZERO, final_units))
    if final_units < 0:
        moves += deduct(slots, final_units, costs=costs)
    return moves


def set_remaining(slots: Sequence[Slot], remaining: Decimal) -> None:
    """Make the balances add up to `remaining`: take the surplus in order, or add what is missing to the first."""
    difference = remaining - sum((slot.balance for slot in slots), ZERO)
    for slot in slots:
        if difference < 0:
            taken = min(max(ZERO, slot.balance), -difference)
            slot.add(-taken)
            difference += taken
    if difference != 0 and slots:
        slots[0].add(difference)


def reset_if_due(entitlement: Entitlement, now: int, new_id: str) -> bool:
    """Start the next period if it has begun: grant anew, and roll over what was left where the plan says so."""
    entitlement.rollovers = [left for left in entitlement.rollovers if not 0 < left.expires_at <= now]
    due = entitlement.next_reset_at
    if due is None or due > now or entitlement.interval is None:
        return False
    if entitlement.rollover is not None and entitlement.balance > 0:
        _roll_over(entitlement, due, new_id)
    entitlement.balance = entitlement.granted
    entitlement.entities = dict.fromkeys(entitlement.entities, entitlement.granted)
    entitlement.next_reset_at = next_after(entitlement.anchor, entitlement.interval, entitlement.interval_count, now)
    return True


def _roll_over(entitlement: Entitlement, due: int, new_id: str) -> None:
    rule = entitlement.rollover or {}
    expires_at = 0
    if rule["expiry_duration_type"] != "forever":
        expires_at = add_interval(due, rule["expiry_duration_type"], rule["expiry_duration_length"])
    entitlement.rollovers.append(Rollover(new_id, entitlement.balance, ZERO, expires_at))
    most = None
    if rule.get("max") is not None:
        most = amount(rule["max"])
    elif rule.get("max_percentage") is not None:
        most = rounded(entitlement.granted * amount(rule["max_percentage"]) / 100)
    if most is None:
        return
    excess = sum((left.balance for left in entitlement.rollovers), ZERO) - most
    for left in entitlement.rollovers:
        dropped = min(left.balance, max(ZERO, excess))
        left.balance -= dropped
        excess -= dropped
    entitlement.rollovers = [left for left in entitlement.rollovers if left.balance > 0]


class _Payment:
    """An amount that is being taken from one slot after the other; `left` is what is still to be paid."""

    def __init__(self, units: Decimal, costs: Mapping[str, Decimal], limits: Limits) -> None:
        self.left = units
        self.limits = limits
        self.moves: list[Move] = []
        self._costs = costs
        self._used: dict[str, Decimal] = {}

    def take_rollovers(self, slot: Slot) -> None:
        """Take from what was rolled over, what expires first first."""
        held = slot.entitlement
        for rollover in sorted(held.rollovers, key=lambda item: item.expires_at or float("inf")):
            credits_ = self._credits(slot, rollover.balance)
            if credits_ > 0 and not held.unlimited:
                rollover.balance, rollover.used = rollover.balance - credits_, rollover.used + credits_
                self._pay(slot, credits_, rollover.id)

    def take(self, slot: Slot, most: Decimal | None) -> None:
        """Take up to `most` credits from a slot (None: as many as it needs)."""
        credits_ = self._credits(slot, most)
        if credits_ > 0:
            slot.add(-credits_)
            self._pay(slot, credits_, None)

    def _credits(self, slot: Slot, most: Decimal | None) -> Decimal:
        feature_id = slot.entitlement.feature_id
        credits_ = EXACT.multiply(self.left, self._costs[feature_id])
        if most is not None:
            credits_ = min(credits_, most)
        window = self.limits.usage_left.get(feature_id)
        if window is not None:
            credits_ = min(credits_, max(ZERO, window - self._used.get(feature_id, ZERO)))
        return rounded(credits_)

    def _pay(self, slot: Slot, credits_: Decimal, rollover_id: str | None) -> None:
        feature_id = slot.entitlement.feature_id
        units = _units(credits_, self.left, self._costs[feature_id])
        self._used[feature_id] = self._used.get(feature_id, ZERO) + credits_
        self.left -= units
        self.moves.append(Move(slot.entitlement.id, slot.entity_id, rollover_id, credits_, units))


def _units(credits_: Decimal, left: Decimal, cost: Decimal) -> Decimal:
    """Say how many units some credits pay for; all that are left, if only rounding stands between."""
    if credits_ >= rounded(EXACT.multiply(left, cost)):
        return left
    return EXACT.divide(credits_, cost)


def _give_back(slots: Sequence[Slot], units: Decimal, costs: Mapping[str, Decimal], *, overflow: bool) -> list[Move]:
    moves: list[Move] = []

    def give(slot: Slot, most: Decimal | None, rollover: Rollover | None = None) -> None:
        nonlocal units
        cost = costs[slot.entitlement.feature_id]
        needed = EXACT.multiply(units, cost)
        credits_ = rounded(needed if most is None else min(needed, most))
        if credits_ <= 0:
            return
        if rollover is None:
            slot.add(credits_)
        else:
            rollover.balance, rollover.used = rollover.balance + credits_, rollover.used - credits_
        share = _units(credits_, units, cost)
        units -= share
        place = None if rollover is None else rollover.id
        moves.append(Move(slot.entitlement.id, slot.entity_id, place, -credits_, -share))

    for slot in slots:
        give(slot, max(ZERO, slot.entitlement.granted - slot.balance))
    for slot in slots:
        for rollover in slot.entitlement.rollovers:
            give(slot, rollover.used, rollover)
    if overflow and slots:
        give(slots[0], None)
    return moves
