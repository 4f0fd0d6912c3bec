"""One row of the outbox."""

from dataclasses import dataclass
from decimal import Decimal

from fastapi_autumn.settlement._outcome import Action

__all__ = ["KEY_LIFETIME_MS", "Entry"]

KEY_LIFETIME_MS = 23 * 3600 * 1000
"""How long an idempotency key is relied on. Autumn keeps keys for 24 hours; the rest is a margin for clocks."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A charge that Autumn still has to be told about.

    Points in time are milliseconds since 1970. `charge_id` is the idempotency of everything: the deduction carried it,
    and the key of what settles it is made from it.
    """

    charge_id: str
    customer_id: str
    feature_id: str
    credits: Decimal
    """What the charge took, or asked for."""
    action: Action
    value: Decimal
    """See `Action`: an amount to track, the amount to confirm, or what to track if the deduction is found."""
    reason: str
    created_at: int
    entity_id: str | None = None
    attempts: int = 0
    maybe_sent_at: int | None = None
    """When the first attempt that Autumn may have acted on was made."""
    look_first: bool = False
    """The key does not protect the next attempt, so the event log has to be asked before it.

    An attempt that fails at Autumn's side frees its key, and a person may retry what is older than any key.
    """
    due_at: int = 0
    last_error: str | None = None

    @property
    def idempotency_key(self) -> str:
        """The key under which Autumn acts on this entry once."""
        return f"{self.charge_id}:{self.action.value}"

    def is_beyond_certainty(self, now: int) -> bool:
        """Whether Autumn may have acted on this and may have forgotten the key since, so that nobody can say."""
        if self.maybe_sent_at is None or self.action is Action.LOOK_UP:
            return False
        return now - self.maybe_sent_at > KEY_LIFETIME_MS
