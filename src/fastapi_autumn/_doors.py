"""The ways into a charge that lead past HTTP: for workers, WebSockets and scripts."""

from abc import ABC, abstractmethod
from asyncio import CancelledError
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from decimal import Decimal
from typing import Any, TypedDict, Unpack

from fastapi import WebSocketDisconnect
from starlette.requests import ClientDisconnect, HTTPConnection

from fastapi_autumn._identity import customer_from, entity_from
from fastapi_autumn._scope import Runtime, charges_of, current_request, surrounding
from fastapi_autumn.charge import Budget, Charge, Estimate, Failed
from fastapi_autumn.errors import ConfigurationError
from fastapi_autumn.models import Customer
from fastapi_autumn.pricing import CallRequest
from fastapi_autumn.settlement import Charging, Outcome

__all__ = ["Doors"]

_GONE = (WebSocketDisconnect, ClientDisconnect)


class ChargeOptions(TypedDict, total=False):
    """See `Doors.charge`."""

    feature_id: str | None
    entity_id: str | None
    properties: Mapping[str, Any] | None
    charging: Charging | None
    credits: Decimal | float | str | None
    request: CallRequest | Mapping[str, Any] | bytes | str | None
    estimate: Estimate | None
    failed: Failed


class Doors(ABC):
    """What `Autumn` does for those who have no route."""

    @abstractmethod
    def running(self) -> AbstractAsyncContextManager[Runtime]:
        """Have what is needed to charge."""

    @abstractmethod
    async def settled(self) -> None:
        """Wait until Autumn has been told everything that is due."""

    @property
    @abstractmethod
    def _now_running(self) -> Runtime:
        """What runs in the current event loop; a ConfigurationError if nothing does."""

    @asynccontextmanager
    async def charge(
        self,
        customer: Customer | str,
        model: str,
        *,
        feature_id: str | None = None,
        entity_id: str | None = None,
        properties: Mapping[str, Any] | None = None,
        charging: Charging | None = None,
        credits: Decimal | float | str | None = None,  # noqa: A002 - Autumn's own word
        request: CallRequest | Mapping[str, Any] | bytes | str | None = None,
        estimate: Estimate | None = None,
        failed: Failed = "nothing",
    ) -> AsyncIterator[Charge]:
        """Charge for what happens inside, outside of HTTP: in a worker, a WebSocket, a script.

        A model whose price is a rate needs to know what the call can use at most: from `request`, the arguments of the
        model call or the JSON of it, or from `credits` or `estimate`, what to hold instead.

        An exception, or a cancellation, gives the credits back. A caller who has left (`WebSocketDisconnect`,
        `ClientDisconnect`) pays as on a route, and inside of a request that the middleware covers, the end of the
        request says whether a cancellation means that. The customer is created if need be.

        Raises:
            ConfigurationError: `customer` is no id that Autumn would take.
            UnknownModel: The price list does not have the model.
            Unbounded: Nothing says what a call with a rate can use at most.
            InsufficientCredits: The balance does not cover it.
            Unavailable: Autumn gave neither a yes nor a no, and `on_unavailable` is `deny`.
        """
        async with (
            self.running() as runtime,
            runtime.charges.charge(
                _payer(customer),
                model,
                feature_id=feature_id,
                entity_id=entity_from(entity_id),
                properties=properties,
                charging=charging,
                credits=credits,
                request=request,
                estimate=estimate,
                failed=failed,
                gone=_GONE,
                leave_to_request=_leave_to_request(runtime),
            ) as charge,
        ):
            yield charge

    def charges(self, connection: HTTPConnection) -> tuple[Charge, ...]:
        """Return what has been charged for a request or a WebSocket so far: for exception handlers and callbacks."""
        return charges_of(connection)

    async def open(self, customer: Customer | str, model: str, **options: Unpack[ChargeOptions]) -> Charge:
        """Charge as `charge` does where no block can stand around the call: in the hooks of a framework.

        `close` ends it. What nobody closes ends with its request, where the middleware covers one; elsewhere it is
        given back when this process ends.

        Raises:
            ConfigurationError: Autumn is not running, or `customer` is no id that Autumn would take.
            UnknownModel, Unbounded, InsufficientCredits, Unavailable: As `charge`.
        """
        asked: Any = {**options, "entity_id": entity_from(options.get("entity_id"))}
        runtime = self._now_running
        charge = await runtime.charges.open(_payer(customer), model, **asked)
        leave_to_request = _leave_to_request(runtime)
        if leave_to_request is not None:
            leave_to_request(charge, cancelled=False)
        return charge

    def close(self, charge: Charge, error: BaseException | None = None) -> None:
        """End a charge that `open` began: it is kept, or it ends as the block of `charge` would with `error`.

        The first end counts, so a hook that runs twice does no harm.
        """
        # From any thread, and when Autumn has stopped: a charge is among those of a request only if that is to end it.
        request = current_request.get()
        if error is None:
            charge.finish(Outcome.DONE)
        elif isinstance(error, _GONE):
            charge.finish(Outcome.GONE)
        elif isinstance(error, Exception) or request is None or charge not in request.charges:
            charge.finish(Outcome.FAILED)
        elif isinstance(error, CancelledError):
            request.cancelled.append(charge)

    async def open_budget(
        self,
        customer: Customer | str,
        credits: Decimal | float | str,  # noqa: A002 - Autumn's own word
        *,
        name: str = "budget",
        feature_id: str | None = None,
        entity_id: str | None = None,
        properties: Mapping[str, Any] | None = None,
        failed: Failed = "used",
    ) -> Budget:
        """Hold credits as `budget` does where no block can stand around the run. `close` ends it, as in `open`."""
        runtime = self._now_running
        budget = await runtime.charges.open_budget(
            _payer(customer),
            credits,
            name=name,
            feature_id=feature_id,
            entity_id=entity_from(entity_id),
            properties=properties,
            failed=failed,
        )
        leave_to_request = _leave_to_request(runtime)
        if leave_to_request is not None:
            leave_to_request(budget, cancelled=False)
        return budget

    @asynccontextmanager
    async def budget(
        self,
        customer: Customer | str,
        credits: Decimal | float | str,  # noqa: A002 - Autumn's own word
        *,
        name: str = "budget",
        feature_id: str | None = None,
        entity_id: str | None = None,
        properties: Mapping[str, Any] | None = None,
        failed: Failed = "used",
    ) -> AsyncIterator[Budget]:
        """Hold `credits` for a run of many model calls, each of which is a `step` of it, and charge what those use.

            async with autumn.budget("ada", 50) as budget:
                async with budget.step("gpt-4o", request=arguments) as step:
                    step.used(await client.chat.completions.create(**arguments))

        The block ends as that of `charge` does, but a failure costs what the steps used, and so does a process that
        dies; `failed="nothing"` gives everything back. `name` stands for the model in Autumn's events.

        Raises:
            ConfigurationError: `customer` is no id that Autumn would take.
            InsufficientCredits: The balance does not cover it.
            Unavailable: As `charge`.
        """
        async with (
            self.running() as runtime,
            runtime.charges.budget(
                _payer(customer),
                credits,
                name=name,
                feature_id=feature_id,
                entity_id=entity_from(entity_id),
                properties=properties,
                failed=failed,
                gone=_GONE,
                leave_to_request=_leave_to_request(runtime),
            ) as budget,
        ):
            yield budget


def _payer(customer: Customer | str) -> Customer:
    payer = customer_from(customer)
    if payer is None:
        raise ConfigurationError("There is nobody to charge: the id of the customer is not one that Autumn takes.")
    return payer


def _leave_to_request(runtime: Runtime) -> Callable[..., None] | None:
    """Return what leaves a charge to the request around it; None where there is none."""
    request = surrounding(runtime)
    return None if request is None else request.adopt
