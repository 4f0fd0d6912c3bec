"""What is left at the end of a period and may be used after it."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi_autumn.emulator.books._clock import add_interval
from fastapi_autumn.emulator.books._entitlements import ZERO, Entitlement, Rollover, amount, rounded, slots_of


def roll_over(entitlement: Entitlement, due: int, new_id: str) -> None:
    """Keep what is left where the plan says so, up to its maximum. Each entity keeps its own."""
    rule = entitlement.rollover
    if rule is None:
        return
    expires_at = 0
    if rule["expiry_duration_type"] != "forever":
        expires_at = add_interval(due, rule["expiry_duration_type"], rule["expiry_duration_length"])
    left = [slot for slot in slots_of([entitlement], None) if slot.balance > 0]
    if left:
        entitlement.rollovers += [Rollover(new_id, slot.balance, ZERO, expires_at, slot.entity_id) for slot in left]
        _trim(entitlement)


def take_along(gone: Sequence[Entitlement], made: Sequence[Entitlement]) -> None:
    """Give what an old plan rolled over to the first balance of the same feature that rolls over under the new one."""
    for old in gone:
        kept = [rollover for rollover in old.rollovers if rollover.balance > 0]
        for new in made if kept else ():
            same_kind = (new.entity_feature_id is None) == (old.entity_feature_id is None)
            if new.feature_id == old.feature_id and new.rollover is not None and same_kind:
                new.rollovers += kept
                _trim(new)
                break


def _trim(entitlement: Entitlement) -> None:
    """Drop what is past the plan's maximum, the oldest first."""
    rule = entitlement.rollover or {}
    if rule.get("max") is not None:
        most = amount(rule["max"])
    elif rule.get("max_percentage") is not None:
        most = rounded(entitlement.granted * amount(rule["max_percentage"]) / 100)
    else:
        return
    for slot in slots_of([entitlement], None):
        excess = sum((left.balance for left in slot.rollovers), ZERO) - most
        for left in slot.rollovers:
            dropped = min(left.balance, max(ZERO, excess))
            left.balance -= dropped
            excess -= dropped
    entitlement.rollovers = [left for left in entitlement.rollovers if left.balance > 0]
