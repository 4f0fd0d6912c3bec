"""What users' own tests are made with."""

from decimal import Decimal

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from fastapi_autumn import Autumn, AutumnMiddleware, AutumnSettings, ModelCharge
from fastapi_autumn.errors import BudgetExceeded
from fastapi_autumn.gate import CreditGate, model_gate
from fastapi_autumn.pricing import tokens
from fastapi_autumn.settlement import Outcome
from fastapi_autumn.testing import fake_budget, fake_charge


def test_a_charge_by_hand_ends_as_a_real_one():
    """Without an event loop: refunded, kept, settled, ended by its outcome, and decided once."""
    charge = fake_charge("gpt-4o-mini", credits=5, customer="ada")
    assert (charge.model, charge.credits, charge.customer.id, charge.closed) == ("gpt-4o-mini", 5, "ada", False)
    assert charge.refund()
    assert not charge.settle(3)
    assert (charge.closed, charge.cost) == (True, 0)
    for end, cost in ((Outcome.DONE, 5), (Outcome.GONE, 5), (Outcome.FAILED, 0)):
        charge = fake_charge(credits=5)
        charge.finish(end)
        assert charge.cost == cost


def test_a_metered_charge_by_hand_counts():
    """With a rate it costs what the code under test reports."""
    charge = fake_charge(credits=10, rate=tokens(input=1000, output=1000), failed="used")
    charge.used({"id": "r", "usage": {"prompt_tokens": 10, "completion_tokens": 5}})
    charge.finish(Outcome.FAILED)
    assert charge.cost == Decimal("0.015")


async def test_a_budget_by_hand_refuses():
    """Its steps are reserved, refused and counted as those of a real one."""
    budget = fake_budget(3, prices={"small": 2})
    async with budget.step("small"):
        with pytest.raises(BudgetExceeded):
            await budget.open_step("small")
    budget.finish(Outcome.DONE)
    assert budget.cost == 2


def test_the_gate_is_overridden_by_a_name_to_import(tmp_path):
    """`dependency_overrides` takes the gate of `ModelCharge`, and an equal one for a gate with arguments."""
    settings = AutumnSettings(
        _env_file=None, emulator=True, emulator_path=":memory:", outbox_url=f"sqlite+aiosqlite:///{tmp_path}/outbox.db"
    )
    autumn = Autumn(settings, prices={"gpt-4o": 5})
    app = FastAPI()
    app.add_middleware(AutumnMiddleware, autumn=autumn, identify=lambda connection: "ada")

    @app.post("/chat")
    async def chat(charge: ModelCharge) -> str:
        charge.refund("nothing was found")
        return charge.model

    charge = fake_charge("fake")
    app.dependency_overrides[model_gate] = lambda: charge
    assert model_gate == CreditGate()
    client = TestClient(app)
    # The path is not covered by the middleware, which only a real gate minds.
    assert client.post("/chat", json={"model": "gpt-4o"}).json() == "fake"
    assert (charge.closed, charge.cost) == (True, 0)
