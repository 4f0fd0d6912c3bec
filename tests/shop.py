"""A shop to buy from: the billing routes, a watched way to the emulator, and Ada, who has a card."""

import json
from typing import Any

from fastapi import Header

from fastapi_autumn import Customer
from fastapi_autumn.autumn import default_catalog
from fastapi_autumn.emulator import Emulator
from fastapi_autumn.transports import Answer, AsgiTransport
from service import Service

ADA = {"x-token": "ada"}
TOP_UP = {"plan_id": "credit_top_up", "feature_quantities": {"ai_credits": 500}}


async def by_token(x_token: str = Header("")) -> Customer | None:
    return Customer(x_token) if x_token else None


class Watched:
    """The way to the emulator, which counts what goes over it and answers some of it itself."""

    def __init__(self) -> None:
        self.inner: Any = None
        self.calls: list[str] = []
        self.instead: dict[str, Answer] = {}

    async def request(self, method: str, path: str, **options: Any) -> Answer:
        operation = path.removeprefix("/v1/")
        self.calls.append(operation)
        if operation in self.instead:
            return self.instead[operation]
        return await self.inner.request(method, path, **options)

    async def aclose(self) -> None: ...


class Shop(Service):
    """An application with the billing routes, and a customer, Ada, whose card is on file."""

    def __init__(self, folder: Any, *, emulator: bool = True, **router: Any) -> None:
        self.way = Watched()
        super().__init__(folder, max_retries=0, transport=self.way, secret_key="am_sk_test_emulator", emulator=emulator)
        self.inside = self.emulator if emulator else Emulator(":memory:", catalog=default_catalog())
        self.way.inner = AsgiTransport(self.inside, timeout=5)
        self.app.include_router(self.autumn.router(prefix="/billing", customer=by_token, **router))

    async def leave_card(self, client: Any) -> None:
        url = (await client.post("/billing/setup-payment", headers=ADA)).json()["url"]
        assert (await client.post(f"{url}/confirm")).status_code == 200

    async def bought(self) -> int:
        record = await self.autumn.client.customers.get("ada")
        return int(record.balances["ai_credits"].granted - 50) // 500


def answer(status: int, code: str) -> Answer:
    return Answer(status, {}, json.dumps({"code": code, "message": "Autumn's words", "env": "sandbox"}).encode())


async def buy(client: Any, *, key: str | None = None, **body: Any) -> Any:
    headers = ADA | ({} if key is None else {"idempotency-key": key})
    return await client.post("/billing/attach", json=TOP_UP | body, headers=headers)
