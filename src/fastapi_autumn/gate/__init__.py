"""The gate: a FastAPI dependency that charges for a call, written in a route's signature."""

from fastapi_autumn.gate._cost import cost_event, with_cost
from fastapi_autumn.gate._gate import CreditGate, ModelCharge, charges_of, model_gate
from fastapi_autumn.gate._model import model_from_body

__all__ = ["CreditGate", "ModelCharge", "charges_of", "cost_event", "model_from_body", "model_gate", "with_cost"]
