"""What a customer holds: entitlements, the slots in which entities see them, and amounts.

An *entitlement* is what a customer holds of one feature: it came with a plan, or was created by itself. The ones
that can pay for a feature are the feature's own and those of the credit systems that contain it. An entitlement
that is kept per entity counts once for every entity; a *slot* is an entitlement seen for one of them.

Amounts are `Decimal`, rounded to ten places as Autumn rounds them. Times are milliseconds.
"""

from __future__ import annotations

import decimal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

ZERO = Decimal(0)
# Thirty digits before the point and ten after it are more than any balance has, so nothing is lost on the way.
EXACT = decimal.Context(prec=60, rounding=decimal.ROUND_HALF_UP)
_TEN_PLACES = Decimal("1e-10")
# JavaScript, which wrote the recordings, prints larger numbers with an exponent.
_EXACT = 10**21


@dataclass(slots=True)
class Rollover:
    """What was left at a reset and may still be used until `expires_at` (0: for ever), by one entity or by all."""

    id: str
    balance: Decimal
    used: Decimal
    expires_at: int
    entity_id: str | None = None


@dataclass(slots=True)
class Entitlement:
    """What a customer holds of one feature. `balance` falls with use, and below zero in overage.

    `adjustment` is what a correction by hand added to the grant of this period.
    """

    id: str
    feature_id: str
    created_at: int
    plan_id: str | None = None
    product_id: str | None = None
    boolean: bool = False
    included: Decimal = ZERO
    prepaid: Decimal = ZERO
    adjustment: Decimal = ZERO
    balance: Decimal = ZERO
    unlimited: bool = False
    interval: str | None = None
    interval_count: int = 1
    anchor: int = 0
    next_reset_at: int | None = None
    price: dict[str, Any] | None = None
    expires_at: int | None = None
    add_on: bool = False
    rollover: dict[str, Any] | None = None
    rollovers: list[Rollover] = field(default_factory=list)
    entity_feature_id: str | None = None
    entity_id: str | None = None
    entities: dict[str, Decimal] = field(default_factory=dict)

    @property
    def granted(self) -> Decimal:
        """What a period starts with, without rollovers."""
        return self.included + self.prepaid

    @property
    def allotted(self) -> Decimal:
        """What was granted for this period, a correction by hand counted in."""
        return self.granted + self.adjustment

    @property
    def is_spent(self) -> bool:
        """Whether Autumn forgets it: it came with no plan and is used up, whether or not it would be filled again."""
        return self.product_id is None and self.balance == 0 and not self.unlimited and not self.boolean

    @property
    def is_usage_based(self) -> bool:
        """Whether use past zero is allowed because it is paid for afterwards."""
        return self.price is not None and self.price["billing_method"] == "usage_based"

    @property
    def max_purchase(self) -> Decimal | None:
        """How far past zero usage may go; None for no limit."""
        limit = self.price["max_purchase"] if self.price else None
        return None if limit is None else amount(limit)


@dataclass(slots=True, frozen=True)
class Slot:
    """An entitlement as one entity sees it, or as the customer sees it (`entity_id` None)."""

    entitlement: Entitlement
    entity_id: str | None = None

    @property
    def balance(self) -> Decimal:
        """What is left here; negative in overage."""
        if self.entity_id is None:
            return self.entitlement.balance
        return self.entitlement.entities.get(self.entity_id, ZERO)

    @property
    def rollovers(self) -> list[Rollover]:
        """What was rolled over and may be used here."""
        if not self.entitlement.rollovers:
            return []
        return [left for left in self.entitlement.rollovers if left.entity_id == self.entity_id]

    def add(self, credits_: Decimal) -> None:
        """Put credits back, or take them out with a negative amount."""
        if self.entity_id is None:
            self.entitlement.balance = rounded(self.entitlement.balance + credits_)
        else:
            self.entitlement.entities[self.entity_id] = rounded(self.balance + credits_)


@dataclass(slots=True, frozen=True)
class Move:
    """Credits that left one entitlement (negative: that came back). `units` is the same in units of the feature."""

    entitlement_id: str
    entity_id: str | None
    rollover_id: str | None
    credits: Decimal
    units: Decimal


@dataclass(slots=True)
class Window:
    """What a usage limit leaves in its window, and what was taken from it by now (`used`); `period` names the window.

    One on a credit system counts credits that leave a balance of that system (`of_balance`); one on any other feature
    counts units of that feature, whatever pays for them.
    """

    key: str
    feature_id: str
    of_balance: bool
    period: str
    left: Decimal
    used: Decimal = ZERO

    def take(self, units: Decimal) -> None:
        """Count what was used."""
        self.left, self.used = max(ZERO, self.left - units), self.used + units


@dataclass(slots=True, frozen=True)
class Limits:
    """What a customer's use is bounded by: overage by feature, switched on or off, its limits, and usage limits.

    `allocated` names the features that are not used up, such as seats.
    """

    overage_allowed: Mapping[str, bool] = field(default_factory=dict)
    spend: Mapping[str, Decimal] = field(default_factory=dict)
    windows: Sequence[Window] = ()
    allocated: frozenset[str] = frozenset()


def amount(value: float | str | Decimal) -> Decimal:
    """Read a number exactly as it was written; a float through its repr, so that 0.1 stays 0.1."""
    return value if isinstance(value, Decimal) else Decimal(repr(value) if isinstance(value, float) else value)


def rounded(value: Decimal) -> Decimal:
    """Round to Autumn's ten decimal places."""
    return value.quantize(_TEN_PLACES, context=EXACT)


def slots_of(entitlements: Iterable[Entitlement], entity_id: str | None) -> list[Slot]:
    """List the slots that one entity can draw on; with no entity, those of the customer and of all its entities."""
    slots = []
    for entitlement in entitlements:
        if entitlement.entity_feature_id is not None:
            slots += [Slot(entitlement, key) for key in entitlement.entities if entity_id in (None, key)]
        elif entitlement.entity_id is None or entity_id in (None, entitlement.entity_id):
            slots.append(Slot(entitlement))
    return slots


def number(value: Decimal | float) -> int | float:
    """Return a JSON number: whole ones without a point."""
    if -_EXACT < value < _EXACT and value == int(value):
        return int(value)
    return float(value)
