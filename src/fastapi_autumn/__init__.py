"""Charge credits for every AI call of a FastAPI service through Autumn.

Names are loaded when they are first used, so that importing the package stays cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastapi_autumn._version import __version__

if TYPE_CHECKING:
    from fastapi_autumn._openapi import RESPONSES as RESPONSES
    from fastapi_autumn.autumn import Autumn as Autumn
    from fastapi_autumn.charge import Charge as Charge
    from fastapi_autumn.client import AutumnClient as AutumnClient
    from fastapi_autumn.errors import AutumnError as AutumnError
    from fastapi_autumn.gate import CreditGate as CreditGate
    from fastapi_autumn.gate import ModelCharge as ModelCharge
    from fastapi_autumn.gate import charges_of as charges_of
    from fastapi_autumn.middleware import AutumnMiddleware as AutumnMiddleware
    from fastapi_autumn.models import Balance as Balance
    from fastapi_autumn.models import Customer as Customer
    from fastapi_autumn.pricing import ModelPrices as ModelPrices
    from fastapi_autumn.settings import AutumnSettings as AutumnSettings

_HOMES = {
    "RESPONSES": "_openapi",
    "Autumn": "autumn",
    "AutumnClient": "client",
    "AutumnError": "errors",
    "AutumnMiddleware": "middleware",
    "AutumnSettings": "settings",
    "Balance": "models",
    "Charge": "charge",
    "CreditGate": "gate",
    "Customer": "models",
    "ModelCharge": "gate",
    "ModelPrices": "pricing",
    "charges_of": "gate",
}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604 - the names are those of the table


if not TYPE_CHECKING:  # a type checker would take it that every name exists

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
