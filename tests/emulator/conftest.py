"""An emulator with a small catalog, a clock that tests move, and a client for it."""

from collections.abc import AsyncIterator

import httpx
import pytest

from fastapi_autumn.emulator import EMULATOR_KEY, Emulator

START = 1_780_000_000_000

CATALOG = {
    "features": [
        {"feature_id": "usage", "name": "Usage", "type": "metered", "consumable": True, "event_names": ["used"]},
        {"feature_id": "images", "name": "Images", "type": "metered", "consumable": True},
        {"feature_id": "seats", "name": "Seats", "type": "metered", "consumable": False},
        {"feature_id": "support", "name": "Support", "type": "boolean"},
        {
            "feature_id": "credits",
            "name": "Credits",
            "type": "credit_system",
            "credit_schema": [
                {"metered_feature_id": "usage", "credit_cost": 1},
                {"metered_feature_id": "images", "credit_cost": 2.5},
            ],
        },
    ],
    "plans": [
        {
            "plan_id": "free",
            "name": "Free",
            "group": "main",
            "auto_enable": True,
            "items": [{"feature_id": "credits", "included": 50, "reset": {"interval": "month"}}],
        },
        {
            "plan_id": "pro",
            "name": "Pro",
            "group": "main",
            "price": {"amount": 20, "interval": "month"},
            "items": [
                {
                    "feature_id": "credits",
                    "included": 2000,
                    "price": {"amount": 1, "billing_units": 100, "interval": "month", "billing_method": "usage_based"},
                },
                {"feature_id": "support"},
                {"feature_id": "seats", "included": 3},
            ],
        },
        {
            "plan_id": "top_up",
            "name": "Top-up",
            "add_on": True,
            "items": [
                {
                    "feature_id": "credits",
                    "price": {"amount": 5, "billing_units": 500, "interval": "one_off", "billing_method": "prepaid"},
                }
            ],
        },
    ],
}


class Time:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


class EmulatorClient(httpx.AsyncClient):
    """Calls operations of an emulator by name."""

    def __init__(self, emulator: Emulator, key: str = EMULATOR_KEY) -> None:
        super().__init__(
            transport=httpx.ASGITransport(emulator),
            base_url="http://autumn",
            headers={"authorization": f"Bearer {key}", "x-api-version": "2.3.0"},
        )

    async def call(self, operation: str, *, headers: dict[str, str] | None = None, **body: object) -> httpx.Response:
        """Send one request and return the answer, whatever it is."""
        return await self.post(f"/v1/{operation}", json=body, headers=headers)

    async def ok(self, operation: str, **body: object) -> dict[str, object]:
        """Send one request that has to succeed and return its JSON."""
        response = await self.call(operation, **body)
        assert response.status_code == 200, response.text
        return response.json()

    async def remaining(self, customer_id: str = "ann", feature_id: str = "credits") -> float:
        """Return what is left of a feature."""
        answer = await self.ok("balances.check", customer_id=customer_id, feature_id=feature_id)
        return answer["balance"]["remaining"]


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def emulator(time: Time) -> Emulator:
    built = Emulator(":memory:", catalog=CATALOG, clock=time)
    yield built
    built.close()


@pytest.fixture
async def autumn(emulator: Emulator) -> AsyncIterator[EmulatorClient]:
    """A client of an emulator that has one customer, ann, on the free plan with 50 credits."""
    async with EmulatorClient(emulator) as client:
        await client.ok("customers.get_or_create", customer_id="ann")
        yield client
