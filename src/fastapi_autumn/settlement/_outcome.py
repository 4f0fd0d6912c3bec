"""From what happened to a call to what Autumn has to be told: pure decisions, no I/O.

Three questions, three functions. `judge`: how did the request end? `by_default`: what does that mean for its charge?
`settle`: given how the credits were taken, what has to be done now?
"""

from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from http import HTTPStatus
from typing import assert_never

__all__ = ["Action", "Instruction", "Outcome", "Taken", "Verdict", "by_default", "judge", "settle"]


class Outcome(Enum):
    """How a request ended."""

    DONE = "done"
    FAILED = "failed"
    GONE = "gone"


class Taken(Enum):
    """How the credits of a charge were taken from the balance."""

    DEDUCTED = "deducted"
    HELD = "held"
    NOTHING = "nothing"
    """Nothing was sent; the call was let through all the same."""
    UNKNOWN = "unknown"
    """A deduction was sent and its answer never came."""


class Action(Enum):
    """What has to be done at Autumn to close a charge."""

    TRACK = "track"
    """Record `value`; below zero gives credits back."""
    CONFIRM = "confirm"
    """Keep a hold, at `value`."""
    RELEASE = "release"
    """Give a hold back."""
    LOOK_UP = "look_up"
    """Ask the event log whether the credits were taken; if so, see that what it shows beyond them is `value`."""
    CORRECT = "correct"
    """As TRACK, for a charge that was settled before, on wrong grounds."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a call costs in the end, in credits, and why."""

    credits: Decimal
    reason: str


@dataclass(frozen=True, slots=True)
class Instruction:
    """One thing to do at Autumn."""

    action: Action
    value: Decimal


def judge(*, raised: bool, status: int | None, complete: bool, disconnected: bool) -> Outcome:
    """Tell how a request ended, once the application has returned.

    Args:
        raised: The application failed. Not meant are a cancellation because the client left, and an exception after a
            delivered answer, out of a background task or a dependency's clean-up.
        status: That of the answer, or None when none was started.
        complete: The final part of the body went out.
        disconnected: The client was seen to leave before that.
    """
    if raised or (status is not None and status >= HTTPStatus.BAD_REQUEST):
        return Outcome.FAILED
    if disconnected:
        return Outcome.GONE
    return Outcome.DONE if complete else Outcome.FAILED


def by_default(outcome: Outcome, *, charged: Decimal, refund_on_disconnect: bool) -> Verdict:
    """Tell what a request that ended in `outcome` costs when nobody has said otherwise."""
    match outcome:
        case Outcome.DONE:
            return Verdict(charged, "done")
        case Outcome.FAILED:
            return Verdict(Decimal(0), "failed")
        case Outcome.GONE:
            return Verdict(Decimal(0) if refund_on_disconnect else charged, "client disconnected")
        case _:
            assert_never(outcome)


def settle(taken: Taken, *, charged: Decimal, verdict: Verdict) -> Instruction | None:
    """Tell what to do at Autumn so that the balance shows `verdict`; None is nothing."""
    difference = verdict.credits - charged
    match taken:
        case Taken.DEDUCTED:
            return Instruction(Action.TRACK, difference) if difference else None
        case Taken.HELD if verdict.credits:
            return Instruction(Action.CONFIRM, verdict.credits)
        case Taken.HELD:
            return Instruction(Action.RELEASE, Decimal(0))
        case Taken.NOTHING:
            return Instruction(Action.TRACK, verdict.credits) if verdict.credits else None
        case Taken.UNKNOWN:
            return Instruction(Action.LOOK_UP, difference) if difference else None
        case _:
            assert_never(taken)
