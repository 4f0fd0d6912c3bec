"""The ways of taking credits. A new one is a class here and an entry in `WAYS`."""

from typing import Any, Protocol

from fastapi_autumn.models import Lock
from fastapi_autumn.settlement import ledger
from fastapi_autumn.settlement.entry import Charging, Doubt, Entry

__all__ = ["WAYS", "WayOfCharging", "not_taken"]


class WayOfCharging(Protocol):
    """How credits are taken when a call begins."""

    name: Charging

    journalled: bool
    """The charge is noted before its credits are taken, because nobody else gives them back if the process dies."""

    def begin(self, entry: Entry) -> Entry:
        """Say what is left behind if the answer to the check never comes."""
        ...

    def ask(self, entry: Entry, *, expires_at: int) -> dict[str, Any]:
        """Return what the check has to do besides checking. `expires_at` is in ms, by Autumn's clock."""
        ...

    def taken(self, entry: Entry) -> Entry:
        """Say what Autumn's clear yes means."""
        ...


class Deduct:
    """Take the credits at once, and give them back if the call fails."""

    name: Charging = "deduct"
    journalled = True

    def begin(self, entry: Entry) -> Entry:
        """See `WayOfCharging`."""
        return entry

    def ask(self, entry: Entry, *, expires_at: int) -> dict[str, Any]:  # noqa: ARG002 - what another way needs
        """See `WayOfCharging`."""
        return {"send_event": True}

    def taken(self, entry: Entry) -> Entry:
        """See `WayOfCharging`."""
        return _taken(entry)


class Hold:
    """Reserve the credits until the call has ended. Autumn gives them back by itself when the hold expires."""

    name: Charging = "hold"
    journalled = False

    def begin(self, entry: Entry) -> Entry:
        """See `WayOfCharging`."""
        return entry._replace(held=True)

    def ask(self, entry: Entry, *, expires_at: int) -> dict[str, Any]:
        """See `WayOfCharging`."""
        return {"lock": Lock(ledger.lock_id(entry.charge_id), expires_at=expires_at)}

    def taken(self, entry: Entry) -> Entry:
        """See `WayOfCharging`."""
        return _taken(entry)


WAYS: dict[Charging, WayOfCharging] = {"deduct": Deduct(), "hold": Hold()}


def _taken(entry: Entry) -> Entry:
    return entry._replace(taken=entry.credits, key_number=1, doubt=Doubt.NONE)


def not_taken(entry: Entry) -> Entry:
    """Note that nothing was taken: a clear no, or nothing was sent."""
    # Key 0 is used up on the check, whatever came of it.
    return entry._replace(taken=entry.credits * 0, held=False, key_number=1, doubt=Doubt.NONE)
