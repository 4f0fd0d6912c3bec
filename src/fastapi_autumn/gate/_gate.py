"""The dependency that takes the credits before a route's handler runs."""

import inspect
import logging
import math
from collections.abc import Awaitable, Callable, Collection, Mapping
from decimal import Decimal
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request
from fastapi.openapi.models import HTTPBase
from fastapi.security.base import SecurityBase

from fastapi_autumn._openapi import GATE_MARK
from fastapi_autumn._scope import RequestState, nobody, refusal, request_state
from fastapi_autumn.charge import Charge
from fastapi_autumn.customers import is_customer_id
from fastapi_autumn.errors import (
    ConfigurationError,
    InsufficientCredits,
    NotEntitled,
    Refused,
    RequestRejected,
    Unavailable,
    UnknownModel,
)
from fastapi_autumn.gate._model import checked_model, model_from_body
from fastapi_autumn.gate._rules import PlanRules
from fastapi_autumn.models import Customer
from fastapi_autumn.pricing import credits as exact_credits
from fastapi_autumn.settings import Charging

__all__ = ["CreditGate", "ModelCharge"]

_log = logging.getLogger("fastapi_autumn")

_STATUS: dict[type[Refused], HTTPStatus] = {
    InsufficientCredits: HTTPStatus.PAYMENT_REQUIRED,
    UnknownModel: HTTPStatus.BAD_REQUEST,
    NotEntitled: HTTPStatus.FORBIDDEN,
}


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=annotation)


class CreditGate(SecurityBase):
    """Charge for the route's call before its handler runs, and hand the handler the `Charge`.

    Args:
        model: A FastAPI dependency that returns the model's name; default: the field `model` of the body.
        customer: A FastAPI dependency that returns a `Customer` or an id, for applications that authenticate in
            dependencies; default: whom the middleware identified.
        feature_id: Used instead of `AUTUMN_FEATURE_ID`.
        properties: Recorded with Autumn's event: a mapping, or a FastAPI dependency that returns one.
        plans: The customer has to be on one of these plans (403).
        feature: The customer's plans have to include this feature (403).
        max_credits: Plan id to the most credits that one call may cost on that plan (403).
        bypass: Tells, from the request, whether this call is not billed, such as when the caller brings their own key.
        charging: Used instead of `AUTUMN_CHARGING`.

    The route answers, in FastAPI's shape `{"detail": {"code": ..., "message": ...}}`: 400 for a model without a price,
    401, 402 with the balance, 403, 422 for a body without a single plain model, and 503 with Retry-After when Autumn
    gives neither a yes nor a no. Nothing is charged then. `plans`, `feature` and `max_credits` need the customer's
    plans first, which costs one more round trip.

    Raises:
        ConfigurationError: At the first request, when `AutumnMiddleware` does not cover the route's path: without it
            nobody would see the call fail.
    """

    def __init__(
        self,
        *,
        model: Callable[..., Any] | None = None,
        customer: Callable[..., Any] | None = None,
        feature_id: str | None = None,
        properties: Mapping[str, Any] | Callable[..., Any] | None = None,
        plans: Collection[str] = (),
        feature: str | None = None,
        max_credits: Mapping[str, Decimal | float | str] | None = None,
        bypass: Callable[[Request], bool | Awaitable[bool]] | None = None,
        charging: Charging | None = None,
    ) -> None:
        self.model = HTTPBase(scheme="bearer")
        self.scheme_name = GATE_MARK
        self._feature_id = feature_id
        self._properties = None if callable(properties) else properties
        self._rules = PlanRules(
            plans=frozenset(plans),
            feature=feature,
            max_credits={plan: exact_credits(most) for plan, most in (max_credits or {}).items()},
        )
        self._bypass = bypass
        self._charging = charging
        # FastAPI reads the signature and solves what it finds there; what was not given is not there and costs nothing.
        given = {"model": model, "customer": customer, "properties": properties if callable(properties) else None}
        self.__signature__ = inspect.Signature(
            [_parameter("request", Request)]
            + [_parameter(name, Annotated[Any, Depends(call)]) for name, call in given.items() if call is not None]
        )

    async def __call__(
        self,
        request: Request,
        model: str | None = None,
        customer: Customer | str | None = None,
        properties: Mapping[str, Any] | None = None,
    ) -> Charge:
        """Open the charge, and leave it where the middleware finds it."""
        state = request_state(request.scope)
        if state is None:
            raise ConfigurationError(
                f"{request.method} {request.url.path} has a credit gate, and AutumnMiddleware does not cover its path: "
                "add the middleware to the application, with a prefix of this path in `paths`."
            )
        payer = _payer(customer) or state.customer
        if payer is None:
            raise nobody()
        name = await model_from_body(request) if model is None else checked_model(model)
        charge = await self._open(request, state, payer, name, properties)
        state.charges.append(charge)
        return charge

    async def _open(
        self, request: Request, state: RequestState, payer: Customer, model: str, properties: Mapping[str, Any] | None
    ) -> Charge:
        charges = state.runtime.charges
        if self._bypass is not None and await _answer(self._bypass(request)):
            return charges.free(payer, model)
        try:
            return await charges.open(
                payer,
                model,
                feature_id=self._feature_id,
                properties=properties or self._properties,
                charging=self._charging,
                requirement=self._rules or None,
                confirm_customer=payer is not state.customer,
            )
        except Refused as refused:
            raise refusal(_STATUS[type(refused)], refused.code, refused.message, **refused.detail) from None
        except Unavailable as error:
            _log.warning("a call is refused because Autumn cannot be asked: %s", error)
            raise _unavailable(error.retry_after) from error
        except RequestRejected as error:
            _log.error("Autumn does not take this service's calls, check its key and features: %s", error)
            raise _unavailable(None) from error


ModelCharge = Annotated[Charge, Depends(CreditGate())]
"""A charge for the model that the body names, in a route's signature.

    @app.post("/ai/chat")
    async def chat(body: ChatBody, charge: ModelCharge): ...

The same, spelled out: `charge: Annotated[Charge, Depends(CreditGate())]`.
"""


def _payer(customer: Customer | str | None) -> Customer | None:
    if customer is None:
        return None
    payer = Customer(customer) if isinstance(customer, str) else customer
    if not is_customer_id(payer.id):
        _log.warning("a customer id that Autumn would refuse or mistake is taken for nobody")
        return None
    return payer


async def _answer(value: bool | Awaitable[bool]) -> bool:
    return await value if inspect.isawaitable(value) else bool(value)


def _unavailable(retry_after: float | None) -> HTTPException:
    return refusal(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "billing_unavailable",
        "The balance could not be checked. Nothing was run; try again.",
        headers={"Retry-After": str(max(1, math.ceil(retry_after or 1)))},
    )
