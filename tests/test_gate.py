"""What the gate charges, what it refuses, and how a refusal looks."""

import json
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import httpx
import pytest
from fastapi import APIRouter, Body, Depends, FastAPI, File, Form, Header, HTTPException, Request, Security, UploadFile
from fastapi.responses import JSONResponse
from fastapi.security import SecurityScopes
from pydantic import BaseModel

from fastapi_autumn import Charge, CreditGate, Customer, ModelCharge, charges_of
from fastapi_autumn.emulator import EMULATOR_KEY
from fastapi_autumn.errors import NotEntitled
from fastapi_autumn.gate._rules import PlanRules
from fastapi_autumn.models import CustomerRecord
from service import Service


class ChatBody(BaseModel):
    model: str
    prompt: str = ""


def chat_service(tmp_path: Any, gate: CreditGate | None = None, **settings: Any) -> Service:
    """One gated route that tells what it was charged."""
    service = Service(tmp_path, **settings)
    dependency = gate or CreditGate()

    @service.app.post("/ai/chat")
    async def chat(charge: Annotated[Charge, Depends(dependency)]) -> Any:
        return {"model": charge.model, "credits": str(charge.credits), "customer": charge.customer.id}

    return service


async def test_successful_call_says_what_it_cost(tmp_path):
    """A paid call carries what was taken and what is left, and the books agree."""
    service = chat_service(tmp_path)
    async with service.calling() as client:
        response = await client.post("/ai/chat", json={"model": "large"})

        assert response.json() == {"model": "large", "credits": "5", "customer": "ada"}
        assert response.headers["autumn-credits-charged"] == "5"
        assert response.headers["autumn-credits-remaining"] == "45"
        assert await service.used() == 5


@pytest.mark.parametrize(
    ("decide", "charged", "remaining"),
    [("keep", "5", "45"), ("refund", "0", "50"), ("settle", "1.5", "48.5")],
)
async def test_headers_follow_the_handlers_decision(tmp_path, decide, charged, remaining):
    """What a handler has settled before it answers is what the headers say."""
    service = Service(tmp_path)

    @service.app.post("/ai/chat")
    async def chat(charge: ModelCharge) -> Any:
        if decide == "settle":
            charge.settle("1.5")
        else:
            getattr(charge, decide)()
        return "served"

    async with service.calling() as client:
        response = await client.post("/ai/chat", json={"model": "large"})

        assert response.headers["autumn-credits-charged"] == charged
        assert response.headers["autumn-credits-remaining"] == remaining
        assert await service.used() == Decimal(charged)


async def test_insufficient_credits(tmp_path):
    """Out of credits is a 402 with model, requirement, balance and the plans that would help; nothing is taken."""
    service = chat_service(tmp_path, prices={"huge": 51, "small": 1})
    async with service.calling() as client:
        await client.post("/ai/chat", json={"model": "small"})
        response = await client.post("/ai/chat", json={"model": "huge"})

        assert response.status_code == 402
        detail = response.json()["detail"]
        assert isinstance(detail["balance"].pop("next_reset_at"), int)
        assert detail == {
            "code": "insufficient_credits",
            "message": "The balance does not cover this call.",
            "model": "huge",
            "required": 51,
            "balance": {
                "feature_id": "ai_credits",
                "remaining": 49,
                "granted": 50,
                "usage": 1,
                "unlimited": False,
                "overage_allowed": False,
            },
            "plans": [
                {"id": "pro", "name": "Pro", "add_on": False},
                {"id": "credit_top_up", "name": "Credit top-up", "add_on": True},
            ],
        }
        assert await service.used() == 1


async def test_unknown_model(tmp_path):
    """A model without a price is a 400, and Autumn is not asked."""
    service = chat_service(tmp_path)
    async with service.calling() as client:
        response = await client.post("/ai/chat", json={"model": "unheard-of"})

        assert response.status_code == 400
        assert response.json()["detail"]["code"] == "unknown_model"
        assert response.json()["detail"]["model"] == "unheard-of"
        assert await service.used() == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"model"',
        b"null",
        b"{}",
        b'{"model": null}',
        b'{"model": 5}',
        b'{"model": true}',
        b'{"model": ["large"]}',
        b'{"model": {"id": "large"}}',
        b'{"model": ""}',
        b'{"model": "large", "model": "small"}',
        b'{"model": "small", "model": "small"}',
        b'{"model": "small", "\\u006dodel": "large"}',
        b'{"\\u006dodel": "small", "m\\u006fdel": "large"}',
        b'{"inner": {"model": "large"}}',
        b'[["model", "large"]]',
        b'{"model": "' + b"x" * 257 + b'"}',
        b'{"model": "lar\\u0000ge"}',
        b'{"model": "large"} {"model": "small"}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"model":' * 50_000,
    ],
)
async def test_ambiguous_bodies_charge_nothing(tmp_path, body):
    """A body without exactly one plain model is a 422 and charges nothing."""
    service = chat_service(tmp_path)
    async with service.calling() as client:
        response = await client.post("/ai/chat", content=body, headers={"content-type": "application/json"})

        assert response.status_code == 422
        assert isinstance(response.json()["detail"], list)
        assert await service.used() == 0


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "large"}',
        b'{"messages": [{"role": "model", "model": "small"}], "model": "large"}',
        b'{"\\u006dodel": "large"}',
        b'{"model": "l\\u0061rge"}',
        b'{"x": "\\u00e9", "model": "large"}',
        json.dumps({"model": "large"}).encode("utf-16"),
        b'{"inner": {"model": "small", "model": "x"}, "model": "large"}',
    ],
)
async def test_what_is_charged_is_what_the_handler_gets(tmp_path, body):
    """However the one model is written, the charge and the handler's own body model agree on it."""
    service = Service(tmp_path)

    @service.app.post("/ai/chat")
    async def chat(body: ChatBody, charge: ModelCharge) -> Any:
        return [body.model, charge.model]

    async with service.calling() as client:
        response = await client.post("/ai/chat", content=body, headers={"content-type": "application/json"})

        assert response.json() == ["large", "large"]
        assert await service.used() == 5


async def test_invalid_body_model_is_given_back(tmp_path):
    """FastAPI validates the handler's body after the gate has charged; that 422 is given back."""
    service = Service(tmp_path)

    @service.app.post("/ai/chat")
    async def chat(body: ChatBody, charge: ModelCharge) -> Any:
        return "served"

    async with service.calling() as client:
        response = await client.post("/ai/chat", json={"model": "large", "prompt": 7})

        assert response.status_code == 422
        assert await service.used() == 0


async def test_forms(tmp_path):
    """A form's field `model` is charged, with files beside it, and a doubled one is refused."""
    service = Service(tmp_path)

    @service.app.post("/ai/transcribe")
    async def transcribe(
        model: Annotated[str, Form()], file: Annotated[UploadFile, File()], charge: ModelCharge
    ) -> Any:
        return [model, charge.model, (await file.read()).decode()]

    files = {"file": ("a.txt", b"hello")}
    async with service.calling() as client:
        response = await client.post("/ai/transcribe", data={"model": "large"}, files=files)
        doubled = await client.post("/ai/transcribe", data={"model": ["large", "small"]}, files=files)

        assert response.json() == ["large", "large", "hello"]
        assert doubled.status_code == 422
        assert await service.used() == 5


async def test_content_types_are_read_in_any_case(tmp_path):
    """A form whose content type is written with capitals is a form."""
    service = Service(tmp_path)

    @service.app.post("/ai/chat")
    async def chat(model: Annotated[str, Form()], charge: ModelCharge) -> Any:
        return [model, charge.model]

    headers = {"content-type": "Application/X-WWW-Form-URLEncoded"}
    async with service.calling() as client:
        response = await client.post("/ai/chat", content=b"model=large", headers=headers)

        assert response.json() == ["large", "large"]


async def test_model_from_a_dependency(tmp_path):
    """Any dependency can say which model is called, and FastAPI documents its parameters."""

    async def from_path(model: str) -> str:
        return model

    service = Service(tmp_path)

    @service.app.post("/ai/{model}/chat")
    async def chat(charge: Annotated[Charge, Depends(CreditGate(model=from_path))]) -> Any:
        return charge.model

    async with service.calling() as client:
        assert (await client.post("/ai/large/chat")).json() == "large"
        parameters = (await client.get("/openapi.json")).json()["paths"]["/ai/{model}/chat"]["post"]["parameters"]

        assert [parameter["name"] for parameter in parameters] == ["model"]


async def test_customer_from_a_dependency(tmp_path):
    """An application that authenticates in dependencies names the customer there, created if need be."""

    async def current_user(x_token: Annotated[str, Header()]) -> Customer:
        if x_token == "wrong":
            raise HTTPException(401, "wrong token")
        return Customer(f"user-{x_token}", name="From the token")

    service = chat_service(tmp_path, CreditGate(customer=current_user), identify=None)
    async with service.calling() as client:
        response = await client.post("/ai/chat", json={"model": "large"}, headers={"x-token": "7"})
        wrong = await client.post("/ai/chat", json={"model": "large"}, headers={"x-token": "wrong"})

        assert response.json()["customer"] == "user-7"
        assert wrong.status_code == 401
        assert await service.used("user-7") == 5


@pytest.mark.parametrize("identity", [None, "", "a b"])
async def test_customer_dependency_that_finds_nobody(tmp_path, identity):
    """A customer dependency that returns nobody, or an id that Autumn would mistake, is a 401."""

    async def current_user() -> Any:
        return identity

    service = chat_service(tmp_path, CreditGate(customer=current_user), identify=None)
    async with service.calling() as client:
        response = await client.post("/ai/chat", json={"model": "large"})

        assert response.status_code == 401
        assert response.json()["detail"]["code"] == "not_authenticated"


async def scoped_user(scopes: SecurityScopes) -> str:
    return "ada"


def charged_by_the_router(app: FastAPI, gate: CreditGate) -> None:
    router = APIRouter(dependencies=[Depends(gate)])

    @router.post("/ai/chat")
    async def chat(charge: Annotated[Charge, Depends(gate)]) -> Any:
        return charge.id

    app.include_router(router)


def charged_by_an_equal_gate(app: FastAPI, gate: CreditGate) -> None:
    equal = CreditGate(customer=scoped_user, properties={"team": "red"}, max_credits={"free": 9})

    @app.post("/ai/chat", dependencies=[Depends(gate)])
    async def chat(charge: Annotated[Charge, Depends(equal)]) -> Any:
        return charge.id


def charged_under_scopes(app: FastAPI, gate: CreditGate) -> None:
    async def reading(charge: Annotated[Charge, Security(gate, scopes=["read"])]) -> Charge:
        return charge

    @app.post("/ai/chat", dependencies=[Security(gate, scopes=["write"])])
    async def chat(charge: Annotated[Charge, Security(reading, scopes=["more"])]) -> Any:
        return charge.id


def charged_in_function_scope(app: FastAPI, gate: CreditGate) -> None:
    @app.post("/ai/chat", dependencies=[Depends(gate)])
    async def chat(charge: Annotated[Charge, Depends(gate, scope="function")]) -> Any:
        return charge.id


@pytest.mark.parametrize(
    "install", [charged_by_the_router, charged_by_an_equal_gate, charged_under_scopes, charged_in_function_scope]
)
async def test_one_gate_twice_on_a_route_charges_once(tmp_path, install):
    """However often a request meets one gate, or gates with equal arguments, it is charged once."""
    service = Service(tmp_path)
    install(service.app, CreditGate(customer=scoped_user, properties={"team": "red"}, max_credits={"free": 9}))

    async with service.calling() as client:
        response = await client.post("/ai/chat", json={"model": "large"})

        assert response.headers["autumn-credits-charged"] == "5"
        (event,) = (await service.autumn.client.events.list(customer_id="ada")).list
        assert response.json() == event.properties["charge_id"]


async def test_different_gates_charge_each(tmp_path):
    """Two gates that differ in any argument are two charges, and the headers tell their sum."""
    service = Service(tmp_path)
    image, text = CreditGate(properties={"part": "image"}), CreditGate(properties={"part": "text"})

    @service.app.post("/ai/chat", dependencies=[Depends(image), Depends(text)])
    async def chat() -> Any:
        return "served"

    async with service.calling() as client:
        response = await client.post("/ai/chat", json={"model": "large"})

        assert response.headers["autumn-credits-charged"] == "10"
        assert await service.used() == 10


async def test_entities_share_of_the_balance_pays(tmp_path):
    """`entity_id` names the seat or workspace that pays, by itself or by a dependency."""

    async def workspace(x_workspace: Annotated[str, Header()]) -> str:
        return x_workspace

    async def seat(x_seat: Annotated[UUID, Header()]) -> UUID:
        return x_seat

    service, green = Service(tmp_path), str(UUID(int=7))
    for path, entity in (("/ai/fixed", "red"), ("/ai/found", workspace), ("/ai/seat", seat)):

        @service.app.post(path)
        async def chat(charge: Annotated[Charge, Depends(CreditGate(entity_id=entity))]) -> Any:
            return charge.model

    async with service.calling() as client:
        await service.autumn.client.customers.get_or_create(Customer("ada"))
        for entity in ("red", "blue", green):
            await at_autumn(service, "entities.create", entity_id=entity, feature_id="ai_credits")
        await client.post("/ai/fixed", json={"model": "large"})
        await client.post("/ai/found", json={"model": "small"}, headers={"x-workspace": "blue"})
        await client.post("/ai/seat", json={"model": "small"}, headers={"x-seat": green})
        events = (await at_autumn(service, "events.list"))["list"]

        assert {(event["value"], event["entity_id"]) for event in events} == {
            (5, "red"),
            (1, "blue"),
            (1, green),
        }


async def at_autumn(service: Service, operation: str, **fields: Any) -> Any:
    """An operation on ada for which the package has no method."""
    transport = httpx.ASGITransport(app=service.emulator)
    headers = {"authorization": f"Bearer {EMULATOR_KEY}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://autumn/v1/", headers=headers) as client:
        response = await client.post(operation, json={"customer_id": "ada"} | fields)
        return response.raise_for_status().json()


async def test_unlimited_balance_has_no_remaining_header(tmp_path):
    """Nothing remains of an unlimited balance that a number could say."""
    service = chat_service(tmp_path, prices={"large": 5})
    async with service.calling() as client:
        await service.autumn.client.customers.get_or_create(Customer("ada"))
        await at_autumn(service, "balances.create", feature_id="ai_credits", unlimited=True)
        response = await client.post("/ai/chat", json={"model": "large"})

        assert response.headers["autumn-credits-charged"] == "5"
        assert "autumn-credits-remaining" not in response.headers


async def test_exception_handler_reaches_the_charge(tmp_path):
    """An exception handler that answers 200 can give the charge back; elsewhere there is none."""
    service = Service(tmp_path)

    @service.app.exception_handler(LookupError)
    async def nothing_found(request: Request, error: LookupError) -> JSONResponse:
        return JSONResponse([charge.refund("nothing was found") for charge in charges_of(request)])

    @service.app.post("/ai/chat")
    async def chat(charge: ModelCharge) -> Any:
        raise LookupError

    @service.app.post("/free")
    async def free() -> Any:
        raise LookupError

    async with service.calling() as client:
        assert (await client.post("/ai/chat", json={"model": "large"})).json() == [True]
        assert (await client.post("/free")).json() == []
        assert await service.used() == 0


async def test_properties_and_charge_id_are_in_the_event(tmp_path):
    """Autumn's event carries the charge's id, the model and the application's own properties."""

    async def properties(x_team: Annotated[str, Header()]) -> dict[str, str]:
        return {"team": x_team}

    service = chat_service(tmp_path, CreditGate(properties=properties))
    async with service.calling() as client:
        await client.post("/ai/chat", json={"model": "large"}, headers={"x-team": "red"})
        (event,) = (await service.autumn.client.events.list(customer_id="ada")).list

        assert event.value == 5
        assert event.properties["team"] == "red"
        assert event.properties["model"] == "large"
        assert event.properties["charge_id"]


async def test_bypass(tmp_path):
    """Callers who bring their own key are not billed, and Autumn is not asked to check."""
    gate = CreditGate(bypass=lambda request: "x-own-key" in request.headers)
    service = chat_service(tmp_path, gate, prices={"large": 51})
    async with service.calling() as client:
        own = await client.post("/ai/chat", json={"model": "large"}, headers={"x-own-key": "sk"})
        ours = await client.post("/ai/chat", json={"model": "large"})

        assert own.json()["credits"] == "0"
        assert ours.status_code == 402
        assert await service.used() == 0


async def test_ceiling_per_plan(tmp_path):
    """The free plan may not use models over its ceiling, whatever its balance; a plan that is not named may."""
    service = chat_service(tmp_path, CreditGate(max_credits={"free": 2}))
    async with service.calling() as client:
        cheap = await client.post("/ai/chat", json={"model": "small"})
        dear = await client.post("/ai/chat", json={"model": "large"})

        assert cheap.status_code == 200
        assert dear.status_code == 403
        assert dear.json()["detail"] | {"message": ""} == {
            "code": "not_entitled",
            "message": "",
            "model": "large",
            "required": 5,
            "max_credits": 2,
        }
        await service.autumn.client.billing.attach("ada", "pro", no_billing_changes=True)
        assert (await client.post("/ai/chat", json={"model": "large"})).status_code == 200


def test_ceiling_without_a_plan():
    """A customer on no plan at all has the lowest ceiling that there is."""
    rules = PlanRules(max_credits={"pro": Decimal(9), "free": Decimal(2)})
    nobody = CustomerRecord(id="ada")
    rules.check(nobody, model="small", credits=Decimal(2))
    with pytest.raises(NotEntitled, match="costs more than the plan allows"):
        rules.check(nobody, model="large", credits=Decimal(5))


async def test_required_plan(tmp_path):
    """A gate for one plan answers 403 to customers of another."""
    service = chat_service(tmp_path, CreditGate(plans=["pro"]))
    async with service.calling() as client:
        assert (await client.post("/ai/chat", json={"model": "small"})).status_code == 403
        await service.autumn.client.billing.attach("ada", "pro", no_billing_changes=True)
        assert (await client.post("/ai/chat", json={"model": "small"})).status_code == 200


@pytest.mark.parametrize(("feature", "status"), [("ai_credits", 200), ("priority_support", 403)])
async def test_required_feature(tmp_path, feature, status):
    """A gate for one feature answers 403 to customers whose plans do not include it."""
    service = chat_service(tmp_path, CreditGate(feature=feature))
    async with service.calling() as client:
        assert (await client.post("/ai/chat", json={"model": "small"})).status_code == status


@pytest.mark.parametrize(
    ("fault", "retry_after"),
    [
        ({"kind": "refuse"}, "1"),
        ({"kind": "drop"}, "1"),
        ({"kind": "reset"}, "1"),
        ({"kind": "fail", "status": 500}, "1"),
        ({"kind": "fail", "status": 503}, "1"),
        ({"kind": "unverified"}, "1"),
        ({"kind": "late", "delay_ms": 500}, "1"),
    ],
)
async def test_unavailable_is_a_503_and_settles(tmp_path, fault, retry_after):
    """When Autumn gives neither a yes nor a no, the customer gets a 503 with Retry-After and pays nothing."""
    service = chat_service(tmp_path, timeout=0.2, max_retries=0)
    async with service.calling() as client:
        await client.post("/ai/chat", json={"model": "small"})
        add_fault(service, "balances.check", **fault)
        response = await client.post("/ai/chat", json={"model": "large"})

        assert response.status_code == 503
        assert response.json()["detail"]["code"] == "billing_unavailable"
        assert response.headers["retry-after"] == retry_after
        assert await service.used() == 1


async def test_allow_serves_unverified(tmp_path):
    """With `on_unavailable="allow"` the call is served and marked, and charged once Autumn is back."""
    service = Service(tmp_path, on_unavailable="allow", max_retries=0)
    seen = []

    @service.app.post("/ai/chat")
    async def chat(charge: ModelCharge) -> Any:
        seen.append(charge.verified)
        return "served"

    async with service.calling() as client:
        await client.post("/ai/chat", json={"model": "small"})
        add_fault(service, "balances.check", kind="refuse")
        response = await client.post("/ai/chat", json={"model": "large"})

        assert response.status_code == 200
        assert seen == [True, False]
        assert await service.used() == Decimal(6)


async def test_wrong_key_is_the_services_fault(tmp_path, caplog):
    """A key that Autumn does not take is a 503 for the customer and an error in the log that says what to check."""
    service = chat_service(tmp_path)
    async with service.calling() as client:
        service.emulator.revoke_key(EMULATOR_KEY)
        response = await client.post("/ai/chat", json={"model": "small"})

        assert response.status_code == 503
        assert "check its key and features" in caplog.text
        assert EMULATOR_KEY not in caplog.text
        service.emulator.add_key(EMULATOR_KEY)


def add_fault(service: Service, operation: str, *, times: int = 1, **fault: Any) -> None:
    """Have the emulator fail on one operation."""
    from fastapi_autumn.emulator import Fault

    service.emulator.faults.add(operation, Fault(times=times, **fault))


async def test_request_is_passed_to_bypass(tmp_path):
    """`bypass` may be async and sees the request."""

    async def bypass(request: Request) -> bool:
        return request.url.path == "/ai/chat"

    service = chat_service(tmp_path, CreditGate(bypass=bypass))
    async with service.calling() as client:
        assert (await client.post("/ai/chat", json={"model": "large"})).json()["credits"] == "0"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
async def test_form_that_could_be_json_is_refused(tmp_path, encoding):
    """A body that is a form for the gate and JSON for a handler of its bytes names two models, and is refused."""
    service = Service(tmp_path)

    @service.app.post("/ai/proxy")
    async def proxy(raw: Annotated[bytes, Body()], charge: ModelCharge) -> str:
        return charge.model

    async with service.calling() as client:
        body = ' {"": "&model=small&", "model": "large"}'.encode(encoding)
        form = {"content-type": "application/x-www-form-urlencoded"}
        assert (await client.post("/ai/proxy", content=body, headers=form)).status_code == 422
        assert (await client.post("/ai/proxy", content=b"model=small&say={}", headers=form)).status_code == 200
        assert await service.used() == 1
