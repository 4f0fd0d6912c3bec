"""One charge that Autumn still has to be told about, and the rule by which it is settled. Pure: no I/O.

The rule, for whatever nobody knows: **close the key, wait until the log can be trusted, ask the log, act on what it
says.** An attempt is made under an idempotency key, once. If Autumn's answer is anything but a clear yes or a clear no,
the attempt may have been done, may be under way, or may still be on its way. So

1. the key is *sealed*: used up on a call that moves nothing. From then on nothing can begin under it any more. If
   Autumn answers that the key is in use, something has begun under it already.
2. after the delay of Autumn's event log, the log is asked about this charge. Nothing can have begun since the sealing,
   and all that had begun is visible, so what the log shows is the truth.
3. the rest is done under the next key.

A key that was in use and whose work is not in the log may have been freed by a failure since, and a request that was
late may have taken it then. So it is sealed once more before the log is believed; if it is in use again, the next key
is sealed as well. Nothing depends on how an attempt failed, on how old it is, or on whose it was.
"""

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from enum import Enum
from typing import NamedTuple

from fastapi_autumn._exact import representable
from fastapi_autumn.settings import Charging
from fastapi_autumn.settlement import ledger

__all__ = [
    "Charging",
    "Done",
    "Doubt",
    "Entry",
    "Finalize",
    "Grant",
    "Look",
    "Seal",
    "Step",
    "Track",
    "attempt_unknown",
    "finalize_refused",
    "has_effect",
    "in_doubt",
    "is_enough",
    "looked",
    "moved_too_little",
    "next_step",
    "sealed",
    "sealed_again",
]

_PLACES = Decimal("1e-10")
"""Autumn rounds amounts to ten places, and its log adds up doubles."""
STALE_MS = 12 * 3600 * 1000
"""After so long without anybody's attention, a row is looked up before anything is done for it.

Autumn forgets keys after 24 hours, and a row that was due for so long may come from a backup.
"""


class Doubt(Enum):
    """What is not known about the charge's current key."""

    NONE = "none"
    """Nothing was sent under it."""
    UNKNOWN = "unknown"
    """Something may have been sent under it. It has to be sealed."""
    SEALED = "sealed"
    """It is used up on a call that moved nothing. The log has to be asked, once it can be trusted."""
    IN_USE = "in_use"
    """Something has begun under it. The log has to be asked, once it can be trusted."""


class Entry(NamedTuple):
    """A charge that is under way, or that Autumn still has to be told about. Amounts are credits, times are ms.

    A named tuple, because every call makes several: a frozen dataclass costs seven times as much.
    """

    charge_id: str
    customer_id: str
    feature_id: str
    credits: Decimal
    """What the check asks for."""
    cost: Decimal
    """What the call is to cost in the end."""
    reason: str
    """Why it costs that."""
    created_at: int
    entity_id: str | None = None
    charging: Charging = "deduct"
    taken: Decimal | None = None
    """What Autumn's log shows for this charge as far as is known; None before that was ever known."""
    held: bool = False
    """There may be a hold, which has to be finalized."""
    required: Decimal | None = None
    """What `credits` units of the feature take from the balance, where a credit system has a rate of its own."""
    loose_feature: str | None = None
    """The balance that may not take back what the end of a hold gives: a grant of it that belongs to no plan paid for
    the call, or it is filled up again while the hold may be there. Autumn drops such a grant when it is used up, and
    moves nothing back into it; after a reset it moves too much."""
    loose_id: str | None = None
    """Autumn's id of that grant, if there is one."""
    loose_until: int | None = None
    """When that grant would have ended; None is never."""
    to_grant: Decimal = Decimal(0)
    """What has to be given back as a new grant, in units of that balance."""
    key_number: int = 0
    """The key of the next attempt, or of the one that is in doubt."""
    doubt: Doubt = Doubt.UNKNOWN
    contested: bool = False
    """Others took this charge for a dead worker's and may have settled it, under keys of any number."""
    attempts: int = 0
    """Attempts in a row that led nowhere; they make the pauses longer."""
    due_at: int = 0
    last_error: str | None = None
    details: str | None = None
    """What the event that settles the charge says about it besides: JSON, an object of properties."""

    @property
    def key(self) -> str:
        """The idempotency key of the next attempt, or of the one that is in doubt."""
        return ledger.key_of(self.charge_id, self.key_number)


@dataclass(frozen=True, slots=True)
class Seal:
    """Use the key up on a call that moves nothing."""

    key: str


@dataclass(frozen=True, slots=True)
class Look:
    """Ask the event log what this charge has come to."""


@dataclass(frozen=True, slots=True)
class Track:
    """Record a use of `value`; below zero it gives credits back."""

    value: Decimal
    key: str


@dataclass(frozen=True, slots=True)
class Finalize:
    """Turn the hold into a use of `value`; 0 releases it."""

    value: Decimal
    key: str


@dataclass(frozen=True, slots=True)
class Grant:
    """Give `value` as a new grant of the balance `feature_id`, in place of one that was used up."""

    value: Decimal
    feature_id: str


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing is left to do."""


Step = Seal | Look | Track | Finalize | Grant | Done


def next_step(entry: Entry) -> Step:
    """Tell what to do next for an entry that is due."""
    match entry.doubt:
        case Doubt.UNKNOWN:
            return Seal(entry.key)
        case Doubt.SEALED | Doubt.IN_USE:
            return Look()
        case Doubt.NONE:
            return _act(entry)


def _act(entry: Entry) -> Step:
    if entry.held:
        # Finalizing does not tell what it moved: nothing into a grant that is used up, no more than there is, and last
        # month's credits on top of this month's. Where any of it may be, the hold is confirmed as it is and the
        # difference tracked, because that answer tells.
        may_fall_short = entry.loose_feature is not None or entry.cost > entry.credits
        return Finalize(entry.credits if may_fall_short else entry.cost, entry.key)
    # Its key is its own and made of the charge's id, so it is granted once and needs neither seal nor log.
    if entry.to_grant and entry.loose_feature is not None:
        return Grant(entry.to_grant, entry.loose_feature)
    # What a double cannot hold is less than what Autumn itself adds up wrong.
    missing = representable(entry.cost - (entry.taken or Decimal(0)))
    return Track(missing, entry.key) if missing else Done()


def in_doubt(entry: Entry, now: int) -> Entry:
    """Distrust an entry that nobody has worked on for longer than keys can be relied on."""
    if entry.doubt is Doubt.NONE and now - entry.due_at > STALE_MS:
        return entry._replace(doubt=Doubt.UNKNOWN)
    return entry


def attempt_unknown(entry: Entry) -> Entry:
    """Note that an attempt under the current key ended in neither a yes nor a no."""
    return entry._replace(doubt=Doubt.UNKNOWN)


def sealed(entry: Entry, *, in_use: bool, delay_ms: int, now: int) -> Entry:
    """Note how the sealing of the current key went: it was free, or Autumn said that it is in use."""
    doubt = Doubt.IN_USE if in_use else Doubt.SEALED
    return entry._replace(doubt=doubt, attempts=0, due_at=now + delay_ms)


def sealed_again(entry: Entry, *, in_use: bool, shown: Decimal, delay_ms: int, now: int) -> Entry:
    """Note how the second sealing of a key went that was in use a delay ago; `shown` is what the log shows now.

    A failure may have freed it, after its work too. Whoever goes on to the next key leaves none open behind it: that is
    how two that settle one charge notice each other.
    """
    if not in_use:
        return sealed(entry, in_use=False, delay_ms=delay_ms, now=now)
    if has_effect(entry, shown):
        return _known(entry, shown)
    # Its work has died with Autumn, or something that was late has begun since a failure freed the key. Either way the
    # key is used up, and after one more delay, that of the next key's sealing, the log shows what has come of it.
    return entry._replace(key_number=entry.key_number + 1, doubt=Doubt.UNKNOWN, attempts=0)


def looked(entry: Entry, shown: Decimal) -> Entry:
    """Note what the log shows, the sum of the charge's events, for a key that was free when it was sealed."""
    return _known(entry, shown)


def has_effect(entry: Entry, shown: Decimal) -> bool:
    """Tell whether the log shows more than was known before the attempt in doubt."""
    return _rounded(shown) != (entry.taken or Decimal(0))


def is_enough(entry: Entry, sum_shown: Decimal) -> bool:
    """Tell whether a sum, which may lag behind the log itself, says all that has to be known.

    It is of what was asked for. A check takes all of that or nothing; of anything later only the events themselves tell
    what moved.
    """
    return entry.taken is None and not entry.contested and _rounded(sum_shown) == entry.credits


def _rounded(shown: Decimal) -> Decimal:
    return shown.quantize(_PLACES, ROUND_HALF_EVEN)


def _known(entry: Entry, shown: Decimal) -> Entry:
    # What is to be granted anew has moved nowhere yet, and is not tracked as well.
    shown = _rounded(shown - entry.to_grant / _rate(entry))
    # As long as the log shows all of a hold, it may still be there: confirming one leaves no trace. Less or more is
    # what ended it.
    held = entry.held and shown == entry.credits
    in_use = entry.doubt is Doubt.IN_USE
    known = entry._replace(taken=shown, held=held, key_number=entry.key_number + 1, doubt=Doubt.NONE, attempts=0)
    if entry.contested:
        # Who took the charge over may be about to use the next key, unless this one was still free.
        return known._replace(doubt=Doubt.UNKNOWN) if in_use else known._replace(contested=False)
    return known


def moved_too_little(entry: Entry, missing: Decimal, *, dropped: bool) -> Entry:
    """Note that Autumn answered well and left `missing` of what it was asked to move where it was.

    What it did not give back because the grant that paid was used up and `dropped` is granted anew. Everything else is
    a shortfall.
    """
    left = entry._replace(taken=entry.cost - missing, key_number=entry.key_number + 1)
    if missing > 0 or not dropped:
        return left
    return left._replace(taken=entry.cost, to_grant=_rounded(-missing * _rate(entry)).normalize())


def _rate(entry: Entry) -> Decimal:
    """Return what one unit of the feature comes to in the balance that pays."""
    return Decimal(1) if not entry.required else entry.required / entry.credits


def finalize_refused(entry: Entry, *, delay_ms: int, now: int) -> Entry:
    """Note that there is no hold to finalize: it has ended, or it was spoiled. The log knows what is left of it."""
    return entry._replace(held=False, doubt=Doubt.SEALED, due_at=now + delay_ms)
