"""What users write, as type checkers see it. Not run: `test_typing.py` gives it to mypy and pyright."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, assert_type

import anthropic
import httpx
import openai
from fastapi import APIRouter, Depends, FastAPI, Request
from pydantic import SecretStr
from starlette.requests import HTTPConnection

from fastapi_autumn import (
    RESPONSES,
    Autumn,
    AutumnClient,
    AutumnError,
    AutumnMiddleware,
    AutumnSettings,
    Balance,
    Charge,
    CreditGate,
    Customer,
    ModelCharge,
    ModelPrices,
    __version__,
)
from fastapi_autumn.errors import InsufficientCredits, RequestRejected, Unavailable
from fastapi_autumn.gate import model_gate
from fastapi_autumn.middleware import RefusedCall
from fastapi_autumn.models import CheckResult, CustomerRecord, Lock, Plan
from fastapi_autumn.testing import fake_charge

version: str = __version__

settings = AutumnSettings(emulator=True, secret_key=SecretStr("am_sk_test_abcdef"), emulator_path=Path("emulator.db"))
assert_type(settings.secret_key, SecretStr | None)
assert_type(settings.paths, tuple[str, ...])
assert_type(AutumnSettings.load(), AutumnSettings)

# A price list in each of its forms.
Autumn(prices={"gpt-4o": 3, "gpt-4o-mini": 0.5, "sonnet": "1.5", "opus": Decimal(15)})
Autumn(prices="prices.toml")
Autumn(prices=Path("prices.toml"))
Autumn(prices=ModelPrices({"gpt-4o": 3}, aliases={"4o": "gpt-4o"}))
Autumn(prices=lambda model: 3 if model == "gpt-4o" else None)
autumn = Autumn(settings, prices={"gpt-4o": 3}, http_client=httpx.AsyncClient())
assert_type(autumn.get_model_credits("gpt-4o"), Decimal | None)
assert_type(autumn.router(prefix="/billing"), APIRouter)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    """An application's own lifespan around that of Autumn."""
    async with autumn.lifespan(app):
        yield


async def who_is_calling(connection: HTTPConnection) -> Customer | None:
    """Identify by a header."""
    user = connection.headers.get("x-user")
    return Customer(user, name="Ada", metadata={"team": 7}) if user else None


app = FastAPI(lifespan=autumn.lifespan)
FastAPI(lifespan=lifespan, responses=RESPONSES)
app.add_middleware(AutumnMiddleware, autumn=autumn, paths=["/ai"], identify=who_is_calling)
app.add_middleware(AutumnMiddleware, autumn=autumn, identify=lambda connection: connection.headers.get("x-user"))
app.add_middleware(AutumnMiddleware, autumn=autumn, identify=None, refusals="openai")


def in_our_words(refusal: RefusedCall) -> dict[str, object]:
    """A dialect of one's own."""
    return {"problem": refusal.code, "balance": refusal.detail.get("balance")}


Autumn(settings, prices={"gpt-4o": 3}, refusals=in_our_words)
app.dependency_overrides[model_gate] = fake_charge


def model_in_query(request: Request) -> str:
    """The model from the query."""
    return request.query_params["model"]


QueryCharge = Annotated[Charge, Depends(CreditGate(model=model_in_query))]


@app.post("/ai/chat")
async def chat(charge: ModelCharge) -> str:
    """A handler with the gate in its signature."""
    assert_type(charge, Charge)
    assert_type(charge.model, str)
    assert_type(charge.credits, Decimal)
    assert_type(charge.refund("no answer"), bool)
    assert_type(charge.keep(), bool)
    assert_type(charge.settle(credits=Decimal("0.5")), bool)
    assert_type(charge.meter(openai.AsyncOpenAI()), openai.AsyncOpenAI)
    assert_type(charge.meter(anthropic.Anthropic()), anthropic.Anthropic)
    return charge.model


@app.get("/ai/chat")
async def other(charge: QueryCharge) -> str:
    """A handler with a gate of its own."""
    assert_type(charge, Charge)
    return charge.model


async def worker() -> None:
    """Charging outside of HTTP."""
    try:
        async with autumn.charge("ada", "gpt-4o", properties={"job": 1}) as charge:
            assert_type(charge, Charge)
        async with autumn.budget("ada", 50) as budget:
            assert_type(budget.meter(openai.AsyncOpenAI()), openai.AsyncOpenAI)
    except InsufficientCredits as refused:
        assert_type(refused.detail, dict[str, Any])
    except Unavailable as unavailable:
        assert_type(unavailable.retry_after, float | None)
    except AutumnError:
        raise


def task() -> None:
    """Charging where nothing can await."""
    with autumn.sync.charge("ada", "gpt-4o", properties={"job": 1}) as charge:
        assert_type(charge, Charge)
    with autumn.sync.budget("ada", 50) as budget, autumn.sync.step(budget, "gpt-4o") as step:
        assert_type(step.used(input=1), bool)


async def client() -> None:
    """Each answer has its type."""
    client = AutumnClient(settings)
    check = await client.balances.check("ada", "ai_usage", required_balance=3, send_event=True)
    assert_type(check, CheckResult)
    assert_type(check.balance, Balance | None)
    if check.balance is not None:
        assert_type(check.balance.remaining, Decimal)
    await client.balances.check("ada", "ai_usage", lock=Lock("lock_1", expires_at=0))
    await client.balances.track("ada", feature_id="ai_usage", value=Decimal("-0.5"), overage_behavior="overflow")
    await client.balances.finalize("lock_1", "confirm", override_value=1.5)
    assert_type(await client.customers.get_or_create(Customer("ada")), CustomerRecord)
    assert_type(await client.plans.list(), tuple[Plan, ...])
    try:
        await client.billing.attach("ada", "pro", feature_quantities={"seats": 3})
    except RequestRejected as rejected:
        assert_type(rejected.code, str)
    await client.aclose()
