"""From what happened to what Autumn is told: every combination, without I/O."""

from decimal import Decimal

import pytest

from fastapi_autumn.settlement import Action, Instruction, Outcome, Taken, Verdict, by_default, judge, settle

CHARGED = Decimal(5)


@pytest.mark.parametrize(
    ("raised", "status", "complete", "disconnected", "outcome"),
    [
        (False, 200, True, False, Outcome.DONE),
        (False, 399, True, False, Outcome.DONE),
        (False, 400, True, False, Outcome.FAILED),
        (False, 502, True, True, Outcome.FAILED),
        (True, 200, True, False, Outcome.FAILED),
        (True, None, False, True, Outcome.FAILED),
        (False, 200, False, True, Outcome.GONE),
        (False, None, False, True, Outcome.GONE),
        (False, 200, False, False, Outcome.FAILED),
        (False, None, False, False, Outcome.FAILED),
    ],
)
def test_judge(raised, status, complete, disconnected, outcome):
    """A failure outweighs a client that left, and an answer without an end is a failure."""
    assert judge(raised=raised, status=status, complete=complete, disconnected=disconnected) is outcome


@pytest.mark.parametrize("refund_on_disconnect", [False, True])
@pytest.mark.parametrize("outcome", Outcome)
def test_by_default(outcome, refund_on_disconnect):
    """Done is paid, failed is not, and a client that left pays unless the service is asked to be generous."""
    verdict = by_default(outcome, charged=CHARGED, refund_on_disconnect=refund_on_disconnect)
    paid = outcome is Outcome.DONE or (outcome is Outcome.GONE and not refund_on_disconnect)

    assert verdict.credits == (CHARGED if paid else 0)


@pytest.mark.parametrize(
    ("taken", "credits", "instruction"),
    [
        (Taken.DEDUCTED, 5, None),
        (Taken.DEDUCTED, 0, (Action.TRACK, -5)),
        (Taken.DEDUCTED, 2, (Action.TRACK, -3)),
        (Taken.DEDUCTED, 7, (Action.TRACK, 2)),
        (Taken.HELD, 5, (Action.CONFIRM, 5)),
        (Taken.HELD, 2, (Action.CONFIRM, 2)),
        (Taken.HELD, 0, (Action.RELEASE, 0)),
        (Taken.NOTHING, 5, (Action.TRACK, 5)),
        (Taken.NOTHING, 0, None),
        (Taken.UNKNOWN, 5, None),
        (Taken.UNKNOWN, 0, (Action.LOOK_UP, -5)),
        (Taken.UNKNOWN, 7, (Action.LOOK_UP, 2)),
    ],
)
def test_settle(taken, credits, instruction):  # noqa: A002 - Autumn's own word
    """What was taken and what it costs in the end decide what is left to do."""
    expected = None if instruction is None else Instruction(instruction[0], Decimal(instruction[1]))

    assert settle(taken, charged=CHARGED, verdict=Verdict(Decimal(credits), "why")) == expected
