"""A local Autumn: an ASGI app that answers like the real server, for development, tests and demos.

    from fastapi_autumn.emulator import Emulator

    emulator = Emulator(catalog={"features": [...], "plans": [...]})

It runs inside the process (give it to an ASGI transport) or under any ASGI server. Nothing is charged: the payment
side is a page with two buttons.
"""

from __future__ import annotations

from fastapi_autumn.emulator._app import Emulator
from fastapi_autumn.emulator._errors import ApiError
from fastapi_autumn.emulator.books._tokens import Rates, RateTable, built_in_rates
from fastapi_autumn.emulator.http._faults import Fault, FaultKind
from fastapi_autumn.emulator.http._keys import EMULATOR_KEY, EMULATOR_WEBHOOK_SECRET

__all__ = [
    "EMULATOR_KEY",
    "EMULATOR_WEBHOOK_SECRET",
    "ApiError",
    "Emulator",
    "Fault",
    "FaultKind",
    "RateTable",
    "Rates",
    "built_in_rates",
]
