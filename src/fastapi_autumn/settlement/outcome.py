"""How a call ended, and what that means for its charge. Pure."""

from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import assert_never

from fastapi_autumn.settings import AutumnSettings

__all__ = ["Outcome", "Verdict", "by_default", "is_cheaper_when_gone"]


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


def by_default(
    outcome: Outcome, settings: AutumnSettings, *, charged: Decimal, in_spite_of_failure: Decimal = Decimal(0)
) -> Verdict:
    """Tell what a call that ended in `outcome` costs when nobody has said otherwise."""
    match outcome:
        case Outcome.DONE:
            return Verdict(charged, "done")
        case Outcome.FAILED:
            return Verdict(in_spite_of_failure, "failed")
        case Outcome.GONE:
            # The model has worked by then. And if leaving were free, callers would leave before the last word.
            return Verdict(Decimal(0) if settings.refund_on_disconnect else charged, "client disconnected")
        case _:
            assert_never(outcome)


def is_cheaper_when_gone(settings: AutumnSettings) -> bool:
    """Tell whether a call may cost less because its caller has left, so that it is worth finding out."""
    return settings.refund_on_disconnect
