"""What became of a caller's attempts under one `Idempotency-Key`, so that one answer has one price.

A row per key says how far the newest attempt has come:

- `running`: it is under way, and a second attempt has to wait.
- `answered`: it was delivered and paid, and nothing is delivered again.
- `paid`: it was paid, and the caller had left before the end. The next attempt is served on the charges that are there,
  once.
- `retrying`: that attempt is under way.

An attempt that cost nothing leaves no row, so the next one is charged anew. What a dead worker was running is nobody's:
its charges are given back, and its row counts as if the attempt had not been made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Literal, Protocol

from fastapi_autumn.settlement.outcome import Outcome

__all__ = [
    "LIFETIME_MS",
    "Attempt",
    "Conflict",
    "PaidCharge",
    "Replies",
    "RepliesAwayError",
    "Standing",
    "standing_after",
]

LIFETIME_MS = 24 * 3600 * 1000
"""For how long a key is remembered, from its first attempt on."""

Standing = Literal["running", "retrying", "answered", "paid"]


class Conflict(Enum):
    """Why an attempt is not served. The values are the codes that callers see."""

    IN_PROGRESS = "in_progress"
    ALREADY_ANSWERED = "already_answered"
    OTHER_REQUEST = "idempotency_key_reused"


@dataclass(frozen=True, slots=True)
class PaidCharge:
    """A charge that an attempt opened. Amounts are credits."""

    charge_id: str
    credits: Decimal
    """What was taken."""
    cost: Decimal
    """What it came to."""
    what: str = ""
    """A digest of what it was opened for. It pays for nothing else."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that may be served."""

    key: str
    attempt_id: str
    paid: tuple[PaidCharge, ...] = ()
    """Charges of an earlier attempt that pay for this one."""


class RepliesAwayError(Exception):
    """The database could not be asked, or told. A change may have got through all the same."""


class Replies(Protocol):
    """Rows of keys. Each method is one transaction.

    Raises:
        RepliesAwayError: From each method.
    """

    def new_attempt(self, key: str) -> Attempt:
        """Return an attempt under `key`, with an id of its own, that has not begun yet."""
        ...

    async def claim(self, attempt: Attempt, fingerprint: str, *, worker_id: str, now: int) -> Attempt | Conflict:
        """Begin `attempt` unless another one stands in its way, and return it with what pays for it.

        Args:
            attempt: With the key that the caller sent, bound to customer and route, and an id of its own.
            fingerprint: Of everything else in the request that the answer depends on.
            worker_id: Who runs the attempt. It counts for as long as the database knows this worker.
            now: Wall clock in ms.
        """
        ...

    async def release(self, attempt: Attempt) -> None:
        """Take back an attempt of which nothing was served, whether its claim got through or not.

        What was there before it is there again: a charge that pays for the next attempt, or nothing.
        """
        ...

    async def finish(self, attempt: Attempt, standing: Standing | None, charges: Sequence[PaidCharge]) -> None:
        """Note what an attempt came to; None forgets the key. It is void if the key has a newer attempt."""
        ...


def standing_after(attempt: Attempt, outcome: Outcome, charges: Sequence[PaidCharge]) -> Standing | None:
    """Tell what an attempt that ended in `outcome` leaves under its key. `charges` are all that it was served on."""
    if not sum(charge.cost for charge in charges):
        return None
    if outcome is Outcome.DONE:
        return "answered"
    if {charge.charge_id for charge in charges} & {charge.charge_id for charge in attempt.paid}:
        # A second hang-up has used the charge up. After a failure of the service it is still there to be served on.
        return "paid" if outcome is Outcome.FAILED else None
    if outcome is Outcome.FAILED:
        # Kept by the application's own word: the caller has got what they paid for.
        return "answered"
    # Whoever paid a part has paid for the part that they got.
    return "paid" if all(charge.cost >= charge.credits for charge in charges) else None
