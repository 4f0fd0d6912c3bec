"""The arithmetic of balances: pure functions over entitlements, with no database and no clock.

Taking goes in three rounds over the same order of balances: what was rolled over, then down to zero, then past zero
where that is allowed. Giving back goes in two: up to zero first, wherever something is owed, and then up to what was
granted. It never goes into what was rolled over, and it moves nothing into a balance that is full.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Literal, TypeAlias

from fastapi_autumn.emulator.books._clock import next_after
from fastapi_autumn.emulator.books._entitlements import (
    EXACT,
    ZERO,
    Entitlement,
    Limits,
    Move,
    Slot,
    rounded,
)
from fastapi_autumn.emulator.books._rollovers import roll_over

OverageBehavior: TypeAlias = Literal["cap", "reject", "overflow", "set"]
"""What happens to what no balance covers: left out, refused with all the rest, or owed. `set` is a correction by hand,
which knows no bounds at all."""

LimitType: TypeAlias = Literal["included", "max_purchase", "spend_limit", "usage_limit"]
"""What ends the use of a feature, in the words of `balances.limit_reached`."""

_NO_LIMITS = Limits()
# The order of intervals by length; what never resets is used up last.
_LENGTH = {"minute": 1, "hour": 60, "day": 1_440, "week": 10_080, "month": 43_200, "quarter": 129_600,
           "semi_annual": 259_200, "year": 525_600}  # fmt: skip


class InsufficientBalance(Exception):
    """The whole amount was asked for and is not there; nothing was moved."""


def in_order(slots: Iterable[Slot], *, credit_systems: frozenset[str], entity_id: str | None = None) -> list[Slot]:
    """Sort slots by when they are used up.

    What belongs to the level that is asked for (the customer, or one entity) goes first, the feature's own balance
    before credit systems, unlimited first, what never resets last, the shortest reset interval first, plans before
    add-ons, the oldest first.
    """

    def key(slot: Slot) -> tuple[object, ...]:
        entitlement = slot.entitlement
        of_entity = slot.entity_id is not None or entitlement.entity_id is not None
        length = _LENGTH.get(entitlement.interval or "", 0) * entitlement.interval_count
        return (
            of_entity != (entity_id is not None),
            entitlement.feature_id in credit_systems,
            not entitlement.unlimited,
            entitlement.next_reset_at is None,
            length,
            entitlement.entity_id or "",
            entitlement.add_on,
            entitlement.created_at,
        )

    return sorted(slots, key=key)


def overage_left(slots: Sequence[Slot], feature_id: str, limits: Limits) -> tuple[Decimal | None, LimitType]:
    """Return how far usage of a feature may still go past zero (None: without limit), and what ends it there."""
    if limits.overage_allowed.get(feature_id) is False:
        return ZERO, "included"
    mine = [slot for slot in slots if slot.entitlement.feature_id == feature_id]
    usage_based = [slot.entitlement for slot in mine if slot.entitlement.is_usage_based]
    if not usage_based and not limits.overage_allowed.get(feature_id):
        return ZERO, "included"
    if feature_id in limits.spend:
        return max(ZERO, limits.spend[feature_id] - _owed(mine)), "spend_limit"
    limits_ = [held.max_purchase for held in usage_based]
    if not usage_based or None in limits_:
        return None, "max_purchase"
    return max(ZERO, sum((most for most in limits_ if most is not None), ZERO) - _owed(mine)), "max_purchase"


def is_allowed(
    slots: Sequence[Slot], feature_id: str, required: Decimal, limits: Limits = _NO_LIMITS, cost: Decimal = Decimal(1)
) -> bool:
    """Tell whether a feature's balance covers `required` credits, overage included.

    `cost` is what one unit of the feature that is used costs there: limits on that feature count its units.
    """
    if not any(slot.entitlement.feature_id == feature_id for slot in slots):
        return False
    return limit_reached(slots, feature_id, required, limits, cost) is None


def limit_reached(
    slots: Sequence[Slot], feature_id: str, required: Decimal, limits: Limits, cost: Decimal = Decimal(1)
) -> LimitType | None:
    """Say what denies a use that a balance does not cover; None if it does."""
    mine = [slot for slot in slots if slot.entitlement.feature_id == feature_id]
    if required < 0 or any(slot.entitlement.unlimited for slot in mine):
        return None
    for window in limits.windows:
        if not window.of_balance and required > window.left * cost:
            return "usage_limit"
        if window.of_balance and window.feature_id == feature_id and required > window.left:
            return "usage_limit"
    room, reason = overage_left(slots, feature_id, limits)
    return None if room is None or available(mine) + room >= required else reason


def used_of(slots: Iterable[Slot]) -> Decimal:
    """Add up what was used of balances, rollovers aside; negative where more is left than was granted."""
    return sum((slot.entitlement.allotted - slot.balance for slot in slots), ZERO)


def available(slots: Iterable[Slot]) -> Decimal:
    """Add up what is left above zero, rollovers included."""
    total = ZERO
    for slot in slots:
        total += max(ZERO, slot.balance) + sum((left.balance for left in slot.rollovers), ZERO)
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
    system). `cap` takes what is there, `reject` raises `InsufficientBalance` and takes nothing, `overflow` lets the
    rest be owed. An unlimited balance takes and gives whatever is asked, if it comes first. With no balance at all
    nothing is moved, and nothing refused.
    """
    payment = _Payment(units, costs, limits, behavior)
    if not slots:
        return []
    if slots[0].entitlement.unlimited:
        payment.move(slots[0], None)
        return payment.moves
    if units > 0:
        payment.take_rollovers(slots)
    for slot in slots:
        payment.up_to_zero(slot)
    if payment.left == 0:
        return payment.moves
    for slot in slots:
        payment.past_zero(slot, slots)
    if rounded(payment.left) > 0 and behavior == "reject":
        payment.undo(slots)
        raise InsufficientBalance
    return payment.moves


def put_back(slots: Iterable[Slot], moves: Sequence[Move], units: Decimal | None = None) -> tuple[list[Move], Decimal]:
    """Undo moves, the last one first: all of them, or only `units` of the feature. Nothing caps what comes back.

    Returns the moves that were made, and the units that could not be undone, because what paid for them is gone.
    """
    by_place = {(slot.entitlement.id, slot.entity_id): slot for slot in slots}
    left = sum((abs(move.units) for move in moves), ZERO) if units is None else units
    undone = []
    for move in reversed(moves):
        slot = by_place.get((move.entitlement_id, move.entity_id))
        share = min(abs(move.units), left)
        if share == 0 or slot is None:
            continue
        part = share / abs(move.units)
        credits_ = move.credits if part == 1 else rounded(move.credits * part)
        if move.rollover_id is None:
            slot.add(credits_)
        else:
            back = next((item for item in slot.rollovers if item.id == move.rollover_id), None)
            if back is None:
                continue
            back.balance, back.used = rounded(back.balance + credits_), rounded(back.used - credits_)
        undone.append(Move(move.entitlement_id, move.entity_id, move.rollover_id, -credits_, -move.units * part))
        left -= share
    return undone, left


def settle(
    slots: Sequence[Slot],
    held: Sequence[Move],
    *,
    final_units: Decimal,
    costs: Mapping[str, Decimal],
    limits: Limits = _NO_LIMITS,
) -> tuple[list[Move], list[Move]]:
    """Turn a hold into a use of `final_units`: undo what is too much of it, or take more.

    What cannot be undone, because the balance that paid is gone, is given to the balances that are there, as far as
    something of them was used. Returns what was undone, and what was moved besides.
    """
    held_units = sum((move.units for move in held), ZERO)
    same_direction = held_units * final_units > 0
    if same_direction and abs(final_units) >= abs(held_units):
        return [], deduct(slots, final_units - held_units, costs=costs, limits=limits)
    too_much = abs(held_units) - (abs(final_units) if same_direction else ZERO)
    undone, missing = put_back(slots, held, too_much)
    rest = ZERO if same_direction else final_units
    rest += missing if held_units < 0 else -missing
    return undone, deduct(slots, rest, costs=costs, limits=limits)


def set_total(slots: Sequence[Slot], total: Decimal, costs: Mapping[str, Decimal]) -> list[Move]:
    """Make the balances add up to `total`, by taking or giving the difference without any bounds."""
    if slots and slots[0].entitlement.unlimited:
        return deduct(slots, slots[0].balance - total, costs=costs, behavior="set")
    return deduct(slots, sum((slot.balance for slot in slots), ZERO) - total, costs=costs, behavior="set")


def set_used(slots: Sequence[Slot], used: Decimal, costs: Mapping[str, Decimal]) -> list[Move]:
    """Make the balances show that so much was used of them, in the same way."""
    return set_total(slots, sum((slot.entitlement.allotted for slot in slots), ZERO) - used, costs)


def recalculate(slots: Sequence[Slot]) -> None:
    """Let what is left of some balances pay for what others owe, as if everything were used again in their order.

    Nothing happens unless there is both. What no balance covers is owed by the first that is paid for afterwards, or
    else by the first of all. Corrections of a grant by hand are forgotten, and rollovers are left alone.
    """
    finite = [slot for slot in slots if not slot.entitlement.unlimited]
    if not any(slot.balance < 0 for slot in finite) or not any(slot.balance > 0 for slot in finite):
        return
    left = used_of(finite)
    for slot in finite:
        slot.entitlement.adjustment = ZERO
        taken = min(slot.entitlement.granted, max(ZERO, left))
        slot.add(slot.entitlement.granted - taken - slot.balance)
        left -= taken
    next((slot for slot in finite if slot.entitlement.is_usage_based and left > 0), finite[0]).add(-left)


def reset_if_due(entitlement: Entitlement, now: int, new_id: str) -> bool:
    """Start the next period if it has begun: grant anew, and roll over what was left where the plan says so."""
    entitlement.rollovers = [left for left in entitlement.rollovers if not 0 < left.expires_at <= now]
    due = entitlement.next_reset_at
    if due is None or due > now or entitlement.interval is None:
        return False
    roll_over(entitlement, due, new_id)
    entitlement.balance, entitlement.adjustment = entitlement.granted, ZERO
    entitlement.entities = dict.fromkeys(entitlement.entities, entitlement.granted)
    entitlement.next_reset_at = next_after(entitlement.anchor, entitlement.interval, entitlement.interval_count, now)
    return True


class _Payment:
    """An amount that is being taken from one slot after the other, or given back; `left` is what is still to move."""

    def __init__(self, units: Decimal, costs: Mapping[str, Decimal], limits: Limits, behavior: OverageBehavior) -> None:
        self.left = units
        self.moves: list[Move] = []
        self._costs = costs
        self._limits = limits
        self._behavior = behavior
        self._bounded = behavior in ("cap", "reject")

    def take_rollovers(self, slots: Sequence[Slot]) -> None:
        """Take from what was rolled over, what expires first first. Limits on a balance do not count it.

        Where a balance that is kept per entity pays first, only what such balances rolled over is looked at, and
        otherwise only what the others did.
        """
        of_entities = slots[0].entity_id is not None
        held = [
            (slot, left) for slot in slots if (slot.entity_id is not None) == of_entities for left in slot.rollovers
        ]
        for slot, rollover in sorted(held, key=lambda pair: pair[1].expires_at or float("inf")):
            credits_ = self._credits(slot, rollover.balance, of_rollover=True)
            if credits_ > 0:
                rollover.balance, rollover.used = rollover.balance - credits_, rollover.used + credits_
                self._record(slot, credits_, rollover.id)

    def up_to_zero(self, slot: Slot) -> None:
        """Take what is above zero, or give back what is owed."""
        if slot.entitlement.unlimited:
            self.move(slot, None)
        else:
            self.move(slot, max(ZERO, slot.balance if self.left > 0 else -slot.balance))

    def past_zero(self, slot: Slot, slots: Sequence[Slot]) -> None:
        """Take past zero where that is allowed, or give back up to what was granted."""
        held = slot.entitlement
        if self.left <= 0:
            self.move(slot, max(ZERO, held.allotted - slot.balance) if self._bounded else None)
            return
        mine = [other for other in slots if other.entitlement.feature_id == held.feature_id]
        if not self._bounded:
            # Whoever says that use may overflow still keeps to a limit on what is spent. A correction does not.
            limited = self._behavior == "overflow" and held.feature_id in self._limits.spend
            self.move(slot, self._spendable(held.feature_id, mine) if limited else None)
            return
        control = self._limits.overage_allowed.get(held.feature_id)
        owes_freely = bool(control) and not any(other.entitlement.is_usage_based for other in mine)
        if held.feature_id in self._limits.allocated and held.price is None:
            # Seats that are taken are taken: what is not used up may go past what was granted.
            owes_freely = owes_freely or self._behavior != "reject"
        if control is False or not (owes_freely or held.is_usage_based):
            return
        most: Decimal | None = None
        if held.feature_id in self._limits.spend:
            most = self._spendable(held.feature_id, mine)
        elif held.is_usage_based and held.max_purchase is not None:
            most = max(ZERO, slot.balance + held.max_purchase)
        self.move(slot, most)

    def _spendable(self, feature_id: str, slots: Iterable[Slot]) -> Decimal:
        return max(ZERO, self._limits.spend[feature_id] - _owed(slots))

    def move(self, slot: Slot, most: Decimal | None) -> None:
        """Take up to `most` credits from a slot, or give up to `most` back (None: as many as it takes)."""
        credits_ = self._credits(slot, most)
        if credits_ != 0:
            slot.add(-credits_)
            self._record(slot, credits_, None)

    def undo(self, slots: Sequence[Slot]) -> None:
        """Undo what was moved so far, and count it back."""
        put_back(slots, self.moves)
        for window in self._limits.windows:
            window.left, window.used = window.left + window.used, ZERO

    def _credits(self, slot: Slot, most: Decimal | None, *, of_rollover: bool = False) -> Decimal:
        """Say how many credits can be moved here and now, with the sign of `left`."""
        held = slot.entitlement
        cost = self._costs[held.feature_id]
        credits_ = EXACT.multiply(abs(self.left), cost)
        if most is not None:
            credits_ = min(credits_, most)
        if self.left < 0:
            return -rounded(credits_)
        if self._bounded and not held.unlimited:
            for window in self._limits.windows:
                if not window.of_balance:
                    credits_ = min(credits_, EXACT.multiply(window.left, cost))
                elif window.feature_id == held.feature_id and not of_rollover:
                    credits_ = min(credits_, window.left)
        return rounded(credits_)

    def _record(self, slot: Slot, credits_: Decimal, rollover_id: str | None) -> None:
        held = slot.entitlement
        units = _units(credits_, self.left, self._costs[held.feature_id])
        self.left -= units
        self.moves.append(Move(held.id, slot.entity_id, rollover_id, credits_, units))
        if units > 0 and not held.unlimited:
            # Giving back gives nothing back to a limit: only what is undone does.
            for window in self._limits.windows:
                if not window.of_balance:
                    window.take(units)
                elif window.feature_id == held.feature_id and rollover_id is None:
                    window.take(credits_)


def _owed(slots: Iterable[Slot]) -> Decimal:
    return sum((max(ZERO, -slot.balance) for slot in slots), ZERO)


def _units(credits_: Decimal, left: Decimal, cost: Decimal) -> Decimal:
    """Say how many units some credits pay for; all that are left, if only rounding stands between."""
    if abs(credits_) >= rounded(EXACT.multiply(abs(left), cost)):
        return left
    return EXACT.divide(credits_, cost)
