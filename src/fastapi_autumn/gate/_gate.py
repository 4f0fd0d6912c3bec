"""The dependency that takes the credits before a route's handler runs."""

import inspect
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from decimal import Decimal
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from starlette.requests import HTTPConnection

from fastapi_autumn._attempts import begin, charged_for, paid_before
from fastapi_autumn._identity import customer_from, entity_from
from fastapi_autumn._openapi import Documented
from fastapi_autumn._refusals import Refusals, billing_unavailable, dialect, not_authenticated, on_a_websocket, refused
from fastapi_autumn._scope import RequestState, charges_of, request_state, watch_route
from fastapi_autumn.charge import Charge, Charges, Estimate, Failed, ObservingCharges
from fastapi_autumn.errors import ConfigurationError, Refused, RequestRejected, Unavailable
from fastapi_autumn.gate._model import checked_model, model_from_body, request_of
from fastapi_autumn.gate._rules import PlanRules
from fastapi_autumn.models import Customer
from fastapi_autumn.pricing import credits as exact_credits
from fastapi_autumn.settings import Charging

__all__ = ["CreditGate", "ModelCharge", "charges_of", "model_gate"]

_log = logging.getLogger("fastapi_autumn")


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=annotation)


class CreditGate(Documented):
    """Charge for the route's call before its handler runs, and hand the handler the `Charge`.

    Args:
        model: A FastAPI dependency that returns the model's name; default: the field `model` of the body.
        default_model: The model of a body that names none, as where the body's own model has a default.
        credits: A FastAPI dependency that returns what the call costs, and may see the validated body; where the
            model's price is a rate, it is what is held.
        estimate: From a rate and a request to what is held, instead of the most that the call can cost. Its name is in
            the 402.
        failed: What a call costs that failed and whose price is a rate, or a budget: `nothing`, or what it `used` by
            then. Default: a budget what it used, others nothing.
        budget: So many credits are held for a run of many model calls, and the route gets a `Budget`. No model is
            looked for then.
        customer: A FastAPI dependency that returns a `Customer` or an id, for applications that authenticate in
            dependencies; default: whom the middleware identified. When it returns None nobody pays, and that is a 401.
        feature_id: Used instead of `AUTUMN_FEATURE_ID`.
        entity_id: Whose share of the customer's balance pays: an id, or a FastAPI dependency that returns one.
        properties: Recorded with Autumn's event: a mapping, or a FastAPI dependency that returns one.
        plans: The customer has to be on one of these plans (403).
        feature: The customer's plans have to include this feature (403).
        max_credits: Plan id to the most credits that one call may cost on that plan (403).
        bypass: Tells, from the request, whether this call is not billed, such as when the caller brings their own key.
        charging: Used instead of `AUTUMN_CHARGING`.
        idempotent: Whether a key that the caller sends (`AUTUMN_IDEMPOTENCY_HEADER`) makes several attempts cost once:
            409 while one is running or after it was answered, 422 for a key of another request.
        refusals: Used instead of those of the middleware: how a refusal is worded.

    The route answers, in FastAPI's shape `{"detail": {"code": ..., "message": ...}}`: 400 for a model without a price,
    401, 402 with the balance, 403, 422 for a body without a single plain model, and 503 with Retry-After when Autumn
    gives neither a yes nor a no. Nothing is charged then. `plans`, `feature` and `max_credits` need the customer's
    plans first, which costs one more round trip.

    Gates with equal arguments are equal, and charge once for a request that meets several of them. A WebSocket has no
    body, so `model` has to be given there; the charge is for the whole connection, and a refusal closes it with 1008,
    or with 1013 where a request would get a 503.

    Raises:
        ConfigurationError: At the first request, when `AutumnMiddleware` does not cover the route's path: without it
            nobody would see the call fail.
    """

    def __init__(
        self,
        *,
        model: Callable[..., Any] | None = None,
        default_model: str | None = None,
        credits: Callable[..., Any] | None = None,  # noqa: A002 - Autumn's own word
        estimate: Estimate | None = None,
        failed: Failed | None = None,
        budget: Decimal | float | str | None = None,
        customer: Callable[..., Any] | None = None,
        feature_id: str | None = None,
        entity_id: str | Callable[..., Any] | None = None,
        properties: Mapping[str, Any] | Callable[..., Any] | None = None,
        plans: Collection[str] = (),
        feature: str | None = None,
        max_credits: Mapping[str, Decimal | float | str] | None = None,
        bypass: Callable[[Request], bool | Awaitable[bool]] | None = None,
        charging: Charging | None = None,
        idempotent: bool = True,
        refusals: Refusals | None = None,
    ) -> None:
        self._feature_id = feature_id
        self._entity_id = entity_id if isinstance(entity_id, str) else None
        self._properties = None if callable(properties) else properties
        self._rules = PlanRules(
            plans=frozenset(plans),
            feature=feature,
            max_credits={plan: exact_credits(most) for plan, most in (max_credits or {}).items()},
        )
        self._bypass = bypass
        self._charging = charging
        self._default_model = default_model
        self._estimate = estimate
        self._budget = None if budget is None else exact_credits(budget)
        self._failed: Failed = failed or ("nothing" if budget is None else "used")
        self._idempotent = idempotent
        self._refusals = None if refusals is None else dialect(refusals)
        self._has_customer = customer is not None
        amounts = (default_model, credits, estimate, failed, self._budget)
        wanted = (feature_id, entity_id, properties, self._rules, bypass, charging, idempotent, refusals, amounts)
        self._arguments = (model, customer, *wanted)
        self._hash = hash((feature_id, self._entity_id, bypass, charging, self._has_customer))
        # Only the dependencies that were given are in the signature, so the others add no work.
        given = {
            "model": model,
            "customer": customer,
            "entity": entity_id if callable(entity_id) else None,
            "properties": properties if callable(properties) else None,
            "credits": credits,
        }
        self.__signature__ = inspect.Signature(
            [_parameter("connection", HTTPConnection)]
            + [_parameter(name, Annotated[Any, Depends(call)]) for name, call in given.items() if call is not None]
        )

    def __eq__(self, other: object) -> bool:
        """Gates are equal when they would open the same charge. FastAPI solves equal dependencies once."""
        return isinstance(other, CreditGate) and self._arguments == other._arguments

    def __hash__(self) -> int:
        """Of what is equal in equal gates; mappings among the arguments have no hash."""
        return self._hash

    async def __call__(
        self,
        connection: HTTPConnection,
        *,
        model: str | None = None,
        customer: object = None,
        entity: object = None,
        properties: Mapping[str, Any] | None = None,
        credits: Decimal | float | str | None = None,  # noqa: A002 - as above
    ) -> Charge:
        """Open the charge, and leave it where the middleware finds it."""
        state = request_state(connection.scope)
        if state is None:
            raise ConfigurationError(
                f"{_named(connection)} has a credit gate, and AutumnMiddleware does not cover its path: "
                "add the middleware to the application, with a prefix of this path in `paths`."
            )
        # FastAPI solves even equal gates apart when they are reached under different security scopes.
        opened = state.opened.get(self)
        if opened is not None:
            return opened
        watch_route(connection.scope, state)
        try:
            payer = customer_from(customer) if self._has_customer else state.customer
            charge = await self._unasked(connection, state, payer, model)
            if charge is None:
                if payer is None:
                    raise not_authenticated()
                charge = await self._open(
                    connection,
                    state,
                    payer,
                    await self._model(connection) if model is None else checked_model(model),
                    entity_id=entity_from(entity) or self._entity_id,
                    properties=properties or self._properties,
                    credits=credits,
                )
        except (HTTPException, RequestValidationError) as error:
            state.refused = (error, self._refusals)
            if isinstance(connection, Request):
                raise
            raise on_a_websocket(error) from None
        state.opened[self] = charge
        state.charges.append(charge)
        return charge

    async def _unasked(
        self, connection: HTTPConnection, state: RequestState, payer: Customer | None, model: str | None
    ) -> Charge | None:
        """Return a charge where there is nothing to ask Autumn about, and `AUTUMN_MODE=observe` refuses nobody."""
        charges = state.runtime.charges
        if not isinstance(charges, ObservingCharges):
            return None
        if payer is None:
            return charges.unasked(
                Customer("unidentified"), model or "unknown", "not_authenticated", budget=self._budget
            )
        try:
            _ = await self._model(connection) if model is None else checked_model(model)
        except RequestValidationError as error:
            why = str(error.errors()[0]["msg"])
            return charges.unasked(payer, "unknown", "invalid_model", budget=self._budget, why=why)
        return None

    async def _model(self, connection: HTTPConnection) -> str:
        if self._budget is not None:
            return "budget"
        if isinstance(connection, Request):
            return await model_from_body(connection, default=self._default_model)
        if self._default_model is not None:
            return self._default_model
        raise ConfigurationError(
            f"{_named(connection)} has a credit gate, and a WebSocket has no body to read the model from. To charge "
            "for the whole connection, pass CreditGate(model=...), a dependency that finds it elsewhere; to charge for "
            "each message, use `async with autumn.charge(customer, model)`."
        )

    async def _open(
        self,
        connection: HTTPConnection,
        state: RequestState,
        payer: Customer,
        model: str,
        *,
        entity_id: str | None,
        properties: Mapping[str, Any] | None,
        credits: Decimal | float | str | None,  # noqa: A002 - as above
    ) -> Charge:
        charges = state.runtime.charges
        if self._bypass is not None and await _answer(self._bypass(connection)):  # type: ignore[arg-type]
            return self._free(charges, payer, model)
        what = earlier = None
        if self._idempotent and isinstance(connection, Request) and not charges.settings.observes:
            await begin(connection, state, payer)
            if state.attempt is not None:
                feature = self._feature_id or charges.settings.feature_id
                what = charged_for(payer, model, feature, entity_id, await charges.price(model, credits=credits))
                # The steps of another run are other calls, so a run is not served on the charge of an earlier one.
                earlier = paid_before(state, state.attempt, what) if self._budget is None else None
        same: dict[str, Any] = {
            "feature_id": self._feature_id,
            "entity_id": entity_id,
            "properties": properties,
            "failed": self._failed,
            "requirement": self._rules or None,
            "confirm_customer": payer != state.customer,
        }
        try:
            if earlier is not None:
                charge = charges.paid(payer, model, earlier, feature_id=self._feature_id, entity_id=entity_id)
            elif self._budget is not None:
                charge = await charges.open_budget(payer, self._budget, name=model, **same)
            else:
                charge = await charges.open(
                    payer,
                    model,
                    charging=self._charging,
                    credits=credits,
                    request=partial(request_of, connection) if isinstance(connection, Request) else None,
                    estimate=self._estimate,
                    **same,
                )
        except Refused as error:
            raise refused(error) from None
        except Unavailable as error:
            _log.warning("a call is refused because Autumn cannot be asked: %s", error)
            raise billing_unavailable(error.retry_after) from error
        except RequestRejected as error:
            _log.error("Autumn does not take this service's calls, check its key and features: %s", error)
            raise billing_unavailable() from error
        if what is not None:
            state.under_key.append((what, charge))
        return charge

    def _free(self, charges: Charges, payer: Customer, model: str) -> Charge:
        if self._budget is not None:
            return charges.free_budget(payer, self._budget, name=model)
        return charges.free(payer, model)


model_gate = CreditGate()
"""The dependency of `ModelCharge`, for `app.dependency_overrides` in tests."""

ModelCharge = Annotated[Charge, Depends(model_gate)]
"""A charge for the model that the body names, in a route's signature.

    @app.post("/ai/chat")
    async def chat(body: ChatBody, charge: ModelCharge): ...

The same, spelled out: `charge: Annotated[Charge, Depends(CreditGate())]`.
"""


def _named(connection: HTTPConnection) -> str:
    return f"{connection.scope.get('method', 'WebSocket')} {connection.url.path}"


async def _answer(value: bool | Awaitable[bool]) -> bool:
    return await value if inspect.isawaitable(value) else bool(value)
