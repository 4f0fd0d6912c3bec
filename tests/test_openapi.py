"""What the OpenAPI document of a charged route says, however and whenever it is made."""

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.security import OAuth2PasswordBearer
from fastapi.testclient import TestClient
from pydantic import TypeAdapter, ValidationError

from fastapi_autumn import RESPONSES, AutumnMiddleware, Charge, CreditGate, ModelCharge
from fastapi_autumn._openapi import InsufficientCreditsRefusal
from service import Service

REFUSALS = {"400", "401", "402", "403", "413", "422", "503"}
signed_in = OAuth2PasswordBearer("token")


async def user_of(token: Annotated[str, Depends(signed_in)]) -> str:
    return token


def add_routes(app: FastAPI) -> None:
    """One route per way in which a gate can get into it, and one without."""
    gated = APIRouter(dependencies=[Depends(CreditGate())])
    included = APIRouter(prefix="/included")

    async def nested(charge: ModelCharge) -> Charge:
        return charge

    @app.post("/ai/chat")
    async def chat(charge: ModelCharge) -> None: ...

    @app.post("/ai/nested")
    async def through(charge: Annotated[Charge, Depends(nested)]) -> None: ...

    @app.post("/ai/signed-in")
    async def with_user(charge: Annotated[Charge, Depends(CreditGate(customer=user_of))]) -> None: ...

    @app.post("/ai/declared", responses=RESPONSES)
    async def declared(charge: ModelCharge) -> None: ...

    @gated.post("/ai/router")
    async def by_router() -> None: ...

    @included.post("/ai/{model}")
    async def by_include(model: str) -> None: ...

    @app.post("/ai/hidden", include_in_schema=False)
    async def hidden(charge: ModelCharge) -> None: ...

    @app.websocket("/ai/talk")
    async def talk(socket: WebSocket, charge: ModelCharge) -> None: ...

    @app.get("/ai/free")
    async def free() -> None: ...

    app.include_router(gated)
    app.include_router(included, dependencies=[Depends(CreditGate())])


CHARGED = {
    "/ai/chat",
    "/ai/nested",
    "/ai/signed-in",
    "/ai/declared",
    "/ai/router",
    "/included/ai/{model}",
}


def exported_by_hand(service: Service) -> dict[str, Any]:
    """A script that never runs the application."""
    service.autumn.document(service.app)
    return service.app.openapi()


def exported_at_start(service: Service) -> dict[str, Any]:
    """An application that runs and has had no request."""
    with TestClient(service.app):
        return service.app.openapi()


def served_first(service: Service) -> dict[str, Any]:
    """The very first request, to an application without a lifespan."""
    return TestClient(service.app).get("/openapi.json").json()


def exported_when_wrapped(service: Service) -> dict[str, Any]:
    """An application around which the middleware was put by hand."""
    app = FastAPI()
    add_routes(app)
    AutumnMiddleware(app, autumn=service.autumn)
    return app.openapi()


def exported_when_mounted(service: Service) -> dict[str, Any]:
    """An application below another one, whose document it has to itself."""
    inner = FastAPI()
    add_routes(inner)
    service.app.mount("/inner", inner)
    with TestClient(service.app) as client:
        return client.get("/inner/openapi.json").json()


@pytest.mark.parametrize(
    "made", [exported_by_hand, exported_at_start, served_first, exported_when_wrapped, exported_when_mounted]
)
def test_refusals_are_listed_where_they_can_happen(tmp_path, made):
    """Charged routes list every refusal with its schema, and the headers of an answer; the others list nothing."""
    service = Service(tmp_path)
    add_routes(service.app)
    document = made(service)
    paths, schemas = document["paths"], document["components"]["schemas"]

    for path in CHARGED:
        responses = paths[path]["post"]["responses"]
        assert responses.keys() >= REFUSALS
        assert responses["200"]["headers"].keys() == {"Autumn-Credits-Charged", "Autumn-Credits-Remaining"}
        for status in REFUSALS - {"422"}:
            assert schemas[reference(responses[status])]
        detail = schemas[reference(responses["402"])]["properties"]["detail"]["$ref"].rpartition("/")[2]
        shown = {"code", "message", "model", "required", "estimate", "balance", "plans"}
        assert schemas[detail]["properties"].keys() == shown
    assert paths["/ai/free"]["get"]["responses"].keys() == {"200"}
    assert "headers" not in paths["/ai/free"]["get"]["responses"]["200"]


def reference(response: Any) -> str:
    return response["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]


@pytest.mark.parametrize("made", [exported_by_hand, served_first, FastAPI.openapi])
def test_only_the_applications_own_security_is_shown(tmp_path, made):
    """A gate is no security scheme, and the scheme of a `customer` dependency stays where it belongs."""
    service = Service(tmp_path)
    add_routes(service.app)
    document = made(service.app) if made is FastAPI.openapi else made(service)

    assert document["components"]["securitySchemes"].keys() == {"OAuth2PasswordBearer"}
    assert document["paths"]["/ai/signed-in"]["post"]["security"] == [{"OAuth2PasswordBearer": []}]
    assert "security" not in document["paths"]["/ai/chat"]["post"]


def test_application_without_gates_is_left_alone(tmp_path):
    """A document in which nothing is charged stays as it is."""
    app = FastAPI()
    before = app.openapi()
    AutumnMiddleware(app, autumn=Service(tmp_path).autumn)

    assert app.openapi() == before


def test_every_reference_leads_somewhere(tmp_path):
    """The document is whole, also where routes have declared the refusals themselves, and doing it twice is no harm."""
    service = Service(tmp_path)
    add_routes(service.app)
    exported_by_hand(service)
    document = exported_by_hand(service)

    def references(node: Any) -> Any:
        if isinstance(node, dict):
            yield from [node["$ref"]] if "$ref" in node else []
            node = list(node.values())
        if isinstance(node, list):
            for inner in node:
                yield from references(inner)

    found = set(references(document))
    assert found
    for target in found:
        assert target.rpartition("/")[2] in document["components"]["schemas"]


async def test_402_is_what_the_document_says(tmp_path):
    """The body of a real 402 has the shape that is documented for it."""
    service = Service(tmp_path, prices={"huge": 51})
    add_routes(service.app)
    async with service.calling() as client:
        response = await client.post("/ai/chat", json={"model": "huge"})

    body = TypeAdapter(InsufficientCreditsRefusal).validate_python(response.json())
    assert body.detail.required == 51
    assert body.detail.balance is not None
    with pytest.raises(ValidationError):
        InsufficientCreditsRefusal.model_validate({"detail": {"code": "insufficient_credits", "message": ""}})
