"""A charge: one paid call, from taking the credits to closing the books on it.

`Charges.open` takes the credits, `Charge` is what the application holds meanwhile, and `Delivery` does at Autumn, later
and from the outbox, what closing it needs. Nothing here knows HTTP on the application's side, so a route, a worker and
a script all charge the same way.
"""

from fastapi_autumn.charge._budget import Budget, Part, Step, StepRecord
from fastapi_autumn.charge._charge import Charge
from fastapi_autumn.charge._charges import Charges
from fastapi_autumn.charge._delivery import Delivery
from fastapi_autumn.charge._metered import Failed, Metered
from fastapi_autumn.charge._observing import ObservingCharges, note_observed
from fastapi_autumn.charge._quotes import Estimate, Requirement

__all__ = [
    "Budget",
    "Charge",
    "Charges",
    "Delivery",
    "Estimate",
    "Failed",
    "Metered",
    "ObservingCharges",
    "Part",
    "Requirement",
    "Step",
    "StepRecord",
    "note_observed",
]
