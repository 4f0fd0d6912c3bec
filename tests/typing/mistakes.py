"""What type checkers have to refuse. Not run: an ignore that is not needed is an error, and so each line must fail."""
# pyright: basic, reportUnnecessaryTypeIgnoreComment=true, reportUnusedExpression=false, reportUnusedCoroutine=false
# ruff: noqa: B018 - names that do not exist are only looked at

from fastapi import FastAPI

import fastapi_autumn
from fastapi_autumn import (
    Autumn,
    AutumnClient,
    AutumnMiddleware,
    AutumnSettings,
    Charge,
    Customer,
)
from fastapi_autumn.models import Balance, Lock

autumn = Autumn(prices={"gpt-4o": 3})

fastapi_autumn.Autum  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
Autumn(prices=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Autumn(prices={"gpt-4o": None})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
Autumn(price={"gpt-4o": 3})  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Autumn("am_sk_test_abcdef")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

app = FastAPI()
app.add_middleware(AutumnMiddleware, autumn=autumn, path="/ai")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
app.add_middleware(AutumnMiddleware)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

Customer(id=7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Customer()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Customer("ada").id = "bob"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
Lock("lock_1")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def settle(charge: Charge, balance: Balance) -> None:
    """What a charge and a balance do not have."""
    charge.refund(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    charge.settle(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    charge.cancel()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    balance.remainder  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


async def call(client: AutumnClient, settings: AutumnSettings) -> None:
    """What operations do not take."""
    await client.balances.check("ada")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await client.balances.check("ada", "ai", 5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await client.balances.check("ada", "ai", required_balance="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.balances.track("ada", overage_behavior="reject")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.balances.finalize("lock_1", "cancel")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.customers.get_or_create("ada")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.balances.check("ada", "ai").allowed  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    settings.timeout_seconds  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
