"""The small model of Autumn, played against the emulator."""

import json
import random

import pytest

from fastapi_autumn.emulator import Emulator
from simulation.autumn import Asked, EmulatorBooks
from simulation.model import ModelBooks
from simulation.scenario import CATALOG
from simulation.seams import EmulatorMachine
from simulation.world import EPOCH_MS, World

_HEADERS = {"authorization": "Bearer am_sk_test_emulator", "x-api-version": "2.3.0", "content-type": "application/json"}


def _request(operation, body):
    return Asked(operation, f"/v1/{operation}", _HEADERS, body)


def _draw(draw, number, charges, now_ms):
    """One request of the kinds that the package sends, as it would be at this moment."""
    customer, feature = draw.choice(["c0", "c1", "nobody"]), draw.choice(["plenty", "scarce"])
    charge = draw.choice(charges) if charges and draw.random() < 0.7 else f"w-{number}"
    about = {"customer_id": customer, "feature_id": feature}
    kind = draw.choice(["check", "hold", "seal", "track", "finalize", "customer", "aggregate", "list"])
    amount = draw.choice([1, 5, 0.1, 7.25, 0.3333333334])
    match kind:
        case "check" | "hold":
            body = about | {"required_balance": amount, "properties": {"charge_id": charge}}
            charges.append(charge)
            if kind == "check":
                return _request("balances.check", body | {"send_event": True})
            expires_at = now_ms + draw.choice([-5, 2_000, 60_000])
            return _request("balances.check", body | {"lock": _lock(charge, expires_at)})
        case "seal":
            return _request("balances.check", about | {"required_balance": 0})
        case "track":
            value = draw.choice([amount, -amount, -amount, -50])
            return _request("balances.track", about | {"value": value, "properties": {"charge_id": charge}})
        case "finalize":
            body = {"lock_id": charge, "action": draw.choice(["confirm", "release"])}
            if body["action"] == "confirm" and draw.random() < 0.5:
                body["override_value"] = amount
            return _request("balances.finalize", body)
        case "customer":
            return _request("customers.get_or_create", {"customer_id": draw.choice(["c0", "c1"])})
        case "aggregate":
            span = {"start": now_ms - 3_600_000, "end": now_ms + 3_600_000}
            return _request("events.aggregate", about | {"filter_by": {"charge_id": charge}, "custom_range": span})
    return _request(
        "events.list", {"customer_id": "c0", "start_cursor": "", "limit": 500, "custom_range": {"start": 0}}
    )


def _lock(charge, expires_at):
    return {"enabled": True, "lock_id": charge, "expires_at": expires_at}


def _comparable(reply, like=None):
    """What an answer says, without ids and without the fields that the model leaves out."""
    body = json.loads(reply.body)
    if reply.status != 200:
        return reply.status, body["code"]
    if "total" in body:
        return 200, body["total"]
    if "list" in body:
        return 200, [(e["timestamp"], e["feature_id"], e["value"], e["properties"], _moved(e)) for e in body["list"]]
    if "deductions" in body:
        return 200, body["value"], _moved(body), _balance(body)
    if "allowed" in body:
        return 200, body["allowed"], body["required_balance"], _balance(body)
    return 200, body.get("id"), body.get("created_at"), body.get("success")


def _moved(shown):
    return sum(row["value"] for row in shown["deductions"] or ())


def _balance(body):
    return {name: body["balance"][name] for name in ("granted", "remaining", "usage", "unlimited")}


@pytest.mark.parametrize("seed", range(12))
def test_the_model_answers_as_the_emulator_does(seed, request):
    """Two hundred random requests, some of them seconds apart, get the same answers from both."""
    world, draw = World(seed), random.Random(seed)  # noqa: S311 - the same requests in every run
    emulator = Emulator(":memory:", catalog=CATALOG, machine=EmulatorMachine(world, EPOCH_MS))
    request.addfinalizer(emulator.close)
    books, model, charges = EmulatorBooks(emulator), ModelBooks(world), []
    for number in range(200):
        if draw.random() < 0.3:
            world.now += draw.choice([0.001, 0.5, 3.0, 70.0])
        asked = _draw(draw, number, charges, EPOCH_MS + int(world.now * 1000))
        if asked.operation == "events.list":
            # Five a second and not more.
            world.now += 1.0
            asked.body["custom_range"]["end"] = EPOCH_MS + int(world.now * 1000)
        model.tick()
        answer, expected = model.answer(asked), books.answer(asked)
        if expected.status == 404:
            assert answer.status == 404 or asked.operation == "events.aggregate"
            continue
        assert _comparable(answer) == _comparable(expected), (number, asked)
