"""What a charge leaves in Autumn's event log, and under which keys it acts there.

Everything that is written into the log, and read back from it, is named here and nowhere else: the ids of charges, the
properties of their events, and the idempotency keys. Autumn keeps the log for ever, so none of it may change.
"""

from collections.abc import Mapping
from typing import Any

from fastapi_autumn.errors import ConfigurationError

__all__ = [
    "CHARGE_ID",
    "RESERVED",
    "charge_id",
    "charge_number",
    "ends_by_itself",
    "finalizing",
    "grant_id",
    "is_hold",
    "key_of",
    "lock_id",
    "opening",
    "refuse_reserved",
    "settling",
]

CHARGE_ID = "charge_id"
"""The property that every event of a charge carries."""

_MODEL = "model"
_CHARGING = "charging"
_REASON = "reason"
_END_BY_THEMSELVES = ("hold",)
"""Ways of charging whose credits Autumn gives back by itself, so that no journal has to know of them."""
RESERVED = frozenset({CHARGE_ID, _MODEL, _CHARGING, _REASON})
"""Properties that belong to this package. An application that sets one is refused: recovery relies on them."""


def charge_id(worker_id: str, number: int) -> str:
    """Return the id of a worker's charge; a worker numbers its charges in the order of their making."""
    return f"{worker_id}-{number}"


def charge_number(of: object, worker_id: str) -> int | None:
    """Return the number of a charge if it is one of this worker's, else None."""
    number = str(of).removeprefix(f"{worker_id}-")
    # `int` would read signs, underscores and the digits of other scripts, too: ids that are not of our making.
    return int(number) if str(of) != number and number.isascii() and number.isdecimal() else None


def lock_id(charge: str) -> str:
    """Return the id of a charge's hold."""
    return charge


def grant_id(charge: str) -> str:
    """Return the id of the grant that gives a charge's credits back where Autumn cannot."""
    return f"{charge}:grant"


def key_of(charge: str, number: int) -> str:
    """Return a charge's idempotency key: number 0 is that of the check, the others are for what settles it."""
    return f"{charge}:{number}" if number else f"{charge}:check"


def opening(charge: str, *, model: str, charging: str, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the properties of the event that takes the credits.

    Raises:
        ConfigurationError: `given`, the application's own properties, has a reserved name.
    """
    own = {CHARGE_ID: charge, _MODEL: model, _CHARGING: charging}
    if not given:
        return own
    refuse_reserved(given)
    return {**given, **own}


def settling(charge: str, *, reason: str, details: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the properties of the event that settles a charge."""
    return {**(details or {}), CHARGE_ID: charge, _REASON: reason}


def finalizing(charge: str, *, reason: str, details: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties of the event by which a hold comes to something else.

    They stand in place of those of the hold, so they say as well that it was one: what Autumn gives back by itself is
    not looked for in its log.
    """
    return {**settling(charge, reason=reason, details=details), _CHARGING: "hold"}


def ends_by_itself(charging: object) -> bool:
    """Tell whether Autumn gives back by itself what was taken in this way."""
    return charging in _END_BY_THEMSELVES


def is_hold(properties: Mapping[str, Any]) -> bool:
    """Tell whether an event took credits that Autumn gives back by itself."""
    return ends_by_itself(properties.get(_CHARGING))


def refuse_reserved(properties: Mapping[str, Any]) -> None:
    """Refuse properties of an application that have a name of this package's.

    Raises:
        ConfigurationError: They have.
    """
    if not RESERVED.isdisjoint(properties):
        taken = ", ".join(sorted(RESERVED & properties.keys()))
        raise ConfigurationError(
            f"Event properties cannot be called {taken}: the package records its own under these names."
        )
