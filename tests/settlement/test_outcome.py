"""What a call costs that ended by itself, when nobody has said otherwise."""

from decimal import Decimal

import pytest

from fastapi_autumn import AutumnSettings
from fastapi_autumn.settlement import Outcome, Verdict, by_default, is_cheaper_when_gone

FIVE, NOTHING = Decimal(5), Decimal(0)


@pytest.mark.parametrize(
    ("outcome", "refund_on_disconnect", "verdict"),
    [
        (Outcome.DONE, False, Verdict(FIVE, "done")),
        (Outcome.DONE, True, Verdict(FIVE, "done")),
        (Outcome.FAILED, False, Verdict(NOTHING, "failed")),
        (Outcome.FAILED, True, Verdict(NOTHING, "failed")),
        (Outcome.GONE, False, Verdict(FIVE, "client disconnected")),
        (Outcome.GONE, True, Verdict(NOTHING, "client disconnected")),
    ],
)
def test_what_it_costs(outcome, refund_on_disconnect, verdict):
    """An answer costs, a failure does not, and for a caller who left a setting decides."""
    settings = AutumnSettings(_env_file=None, refund_on_disconnect=refund_on_disconnect)
    assert by_default(outcome, settings, charged=FIVE) == verdict
    assert is_cheaper_when_gone(settings) is refund_on_disconnect
