"""The demo's routes under generated requests: whatever is sent, the gate answers and the books balance."""

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

ALICE = {"authorization": "Bearer demo-alice"}


@pytest.mark.slow
def test_nothing_that_is_sent_breaks_the_gate(demo, balance_of):
    """No generated request, valid or not, gets a 5xx, and what Alice has used is what her answers said she paid."""
    # Not /demo, one of whose routes has Autumn forget everything.
    schema = schemathesis.openapi.from_url(f"{demo}/openapi.json").include(path_regex="^/(ai|billing)/")
    operations = [result.ok() for result in schema.get_all_operations()]
    modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
    seen: set[int] = set()
    paid = 0.0

    @given(case=st.one_of(*(each.as_strategy(generation_mode=mode) for each in operations for mode in modes)))
    @settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def requests(case):
        nonlocal paid
        if isinstance(case.body, dict):
            case.body.pop("demo_fail", None)  # failures on request have tests of their own
        if isinstance(case.body, dict) and len(str(case.body)) % 3:
            # Most generated names have no price; this way most calls get as far as the gate's check.
            case.body["model"] = "gpt-4o-mini"
        response = case.call(headers=ALICE)
        seen.add(response.status_code)
        paid += float(response.headers.get("autumn-credits-charged", ["0"])[0])
        assert response.status_code < 500

    requests()

    assert {200, 400, 422} <= seen
    granted = httpx.get(f"{demo}/billing/customer", headers=ALICE).json()["balances"]["ai_credits"]["granted"]
    # What failed is given back a moment later.
    assert balance_of(demo, "demo-alice", until=granted - paid) == granted - paid
