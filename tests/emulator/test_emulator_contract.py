"""The emulator against the published OpenAPI contract of API 2.3.0, with generated requests."""

import asyncio
import gzip
import json
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.python import asgi

from emulator.conftest import EmulatorClient
from fastapi_autumn.emulator import EMULATOR_KEY, Emulator

EXAMPLES = 30
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


@pytest.fixture(scope="module", autouse=True)
def _event_loop_of_schemathesis():
    """Begin the event loop that schemathesis keeps for the whole process, so that no test seems to leave it behind."""
    asgi._get_portal()


# The contract leaves out that the preview of an allowed check is null; recorded is that it is.
_CHECK = CONTRACT["paths"]["/v1/balances.check"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
_CHECK["properties"]["preview"] = {"anyOf": [_CHECK["properties"]["preview"], {"type": "null"}]}

# What exists, so that generated requests find something: by the name of the field.
KNOWN = {
    "customer_id": ["ann", "bob"],
    "entity_id": ["seat"],
    "feature_id": ["usage", "seats", "support", "credits", "dollars"],
    "plan_id": ["free", "pro"],
    "lock_id": ["held"],
    "model_id": ["openai/gpt-4o"],
}


@pytest.fixture
def emulator():
    """An emulator in which the known ids exist."""
    built = Emulator(":memory:", catalog=CATALOG)

    async def fill():
        async with EmulatorClient(built) as autumn:
            for name in KNOWN["customer_id"]:
                await autumn.ok("customers.get_or_create", customer_id=name)
                await autumn.ok("entities.create", customer_id=name, entity_id="seat", feature_id="seats")

    asyncio.run(fill())
    yield built
    built.close()


@pytest.fixture
def schema(emulator):
    loaded = schemathesis.openapi.from_dict(CONTRACT)
    loaded.app = emulator

    @loaded.hook
    def map_body(context, body):
        """Let most ids in a request mean something that exists, and most numbers be of a likely size."""
        body = _with_small_numbers(body)
        if not isinstance(body, dict):
            return body
        made = context.operation.path.removeprefix("/v1/").removesuffix("s.create") + "_id"
        for name, values in KNOWN.items():
            if name != made and isinstance(body.get(name), str) and len(body[name]) % 4 != 3:
                body[name] = values[len(body[name]) % len(values)]
        if "feature_id" in body:
            body.pop("event_name", None)
        return body

    return loaded


def _with_small_numbers(value):
    if isinstance(value, dict):
        return {key: _with_small_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_small_numbers(item) for item in value]
    if isinstance(value, float | int) and not isinstance(value, bool) and abs(value) > 1e6:
        return value % 1_000
    return value


@pytest.mark.slow
@pytest.mark.parametrize("path", CONTRACT["paths"])
def test_generated_requests_are_answered_within_the_contract(path, schema):
    """No request, however odd, gets a 5xx, and every 200 has the shape that the contract promises."""
    checks = CHECKS.get_by_names(["not_a_server_error", "response_schema_conformance"])
    modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]

    @given(case=st.one_of(*(schema[path]["POST"].as_strategy(generation_mode=mode) for mode in modes)))
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def requests(case):
        response = case.call(headers={"authorization": f"Bearer {EMULATOR_KEY}", "x-api-version": "2.3.0"})
        case.validate_response(response, checks=checks)

    requests()
