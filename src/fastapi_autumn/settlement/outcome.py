"""How a call ended, and what that means for its charge. Pure."""

from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import assert_never

__all__ = ["Outcome", "Verdict", "by_default"]


class Outcome(Enum):
    """How a call ended."""

    DONE = "done"
    """The whole answer was delivered."""
    FAILED = "failed"
    """It was not, and the service is to blame."""
    GONE = "gone"
    """The caller left before."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a call costs in the end, in credits, and why."""

    credits: Decimal
    reason: str


def by_default(outcome: Outcome, *, charged: Decimal, refund_on_disconnect: bool) -> Verdict:
    """Tell what a call that ended in `outcome` costs when nobody has said otherwise."""
    match outcome:
        case Outcome.DONE:
            return Verdict(charged, "done")
        case Outcome.FAILED:
            return Verdict(Decimal(0), "failed")
        case Outcome.GONE:
            return Verdict(Decimal(0) if refund_on_disconnect else charged, "client disconnected")
        case _:
            assert_never(outcome)
