"""The emulator against the published OpenAPI contract of API 2.3.0, with generated requests."""

import gzip
import json
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import CHECKS

from fastapi_autumn.emulator import EMULATOR_KEY, Emulator

CONTRACT = json.loads(gzip.decompress((Path(__file__).parent / "openapi.json.gz").read_bytes()))
CATALOG = {
    "features": [
        {"feature_id": "usage", "name": "Usage", "type": "metered", "consumable": True, "event_names": ["used"]},
        {"feature_id": "seats", "name": "Seats", "type": "metered", "consumable": False},
        {"feature_id": "support", "name": "Support", "type": "boolean"},
        {
            "feature_id": "credits",
            "name": "Credits",
            "type": "credit_system",
            "credit_schema": [{"metered_feature_id": "usage", "credit_cost": 2}],
        },
        {"feature_id": "dollars", "name": "Dollars", "type": "ai_credit_system", "default_markup": 10},
    ],
    "plans": [
        {
            "plan_id": "free",
            "name": "Free",
            "auto_enable": True,
            "items": [
                {"feature_id": "credits", "included": 100, "reset": {"interval": "day"}},
                {"feature_id": "dollars", "included": 10, "reset": {"interval": "month"}},
            ],
        },
        {
            "plan_id": "pro",
            "name": "Pro",
            "price": {"amount": 20, "interval": "month"},
            "items": [
                {
                    "feature_id": "credits",
                    "included": 500,
                    "price": {
                        "amount": 1, "interval": "month", "billing_units": 100, "billing_method": "usage_based",
                        "max_purchase": 100,
                    },
                },
                {"feature_id": "support"},
                {"feature_id": "seats", "included": 3},
            ],
        },
    ],
}  # fmt: skip
# What exists, so that generated requests find something: by the name of the field.
KNOWN = {
    "customer_id": ["ann", "bob"],
    "entity_id": ["seat"],
    "feature_id": ["usage", "seats", "support", "credits", "dollars"],
    "plan_id": ["free", "pro"],
    "lock_id": ["held"],
    "model_id": ["openai/gpt-4o"],
}

emulator = Emulator(":memory:", catalog=CATALOG)
schema = schemathesis.openapi.from_dict(CONTRACT)
schema.app = emulator


@schema.hook
def map_body(context, body):
    """Let about half of the ids in a request mean something that exists."""
    if isinstance(body, dict):
        for name, values in KNOWN.items():
            if isinstance(body.get(name), str) and len(body[name]) % 2:
                body[name] = values[len(body[name]) // 2 % len(values)]
    return body


@pytest.fixture(scope="module", autouse=True)
def _customers():
    import asyncio

    import httpx

    async def fill():
        transport = httpx.ASGITransport(emulator)
        headers = {"authorization": f"Bearer {EMULATOR_KEY}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://autumn", headers=headers) as client:
            for name in KNOWN["customer_id"]:
                await client.post("/v1/customers.get_or_create", json={"customer_id": name})
                await client.post(
                    "/v1/entities.create", json={"customer_id": name, "entity_id": "seat", "feature_id": "seats"}
                )

    asyncio.run(fill())


@pytest.mark.slow
@schema.parametrize()
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_generated_requests_are_answered_within_the_contract(case):
    """No request, however odd, gets a 5xx, and every 200 has the shape that the contract promises."""
    response = case.call(headers={"Authorization": f"Bearer {EMULATOR_KEY}"})
    case.validate_response(response, checks=CHECKS.get_by_names(["not_a_server_error", "response_schema_conformance"]))
