"""Which requests the middleware covers, who is taken for whom, and what passes untouched."""

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, WebSocket
from fastapi.testclient import TestClient
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser, UnauthenticatedUser
from starlette.middleware.authentication import AuthenticationMiddleware

from fastapi_autumn import AutumnMiddleware, Customer, ModelCharge
from fastapi_autumn._scope import request_state
from fastapi_autumn.errors import ConfigurationError
from service import Service, request_raw


def app_that_tells(service: Service) -> FastAPI:
    """Every path answers whether the middleware has seen the request."""

    @service.app.api_route("/{path:path}", methods=["GET", "POST", "OPTIONS"])
    async def tell(path: str, request: Request) -> Any:
        return {"covered": request_state(request.scope) is not None}

    return service.app


@pytest.mark.parametrize(
    ("path", "covered"),
    [
        ("/ai", True),
        ("/ai/", True),
        ("/ai/chat", True),
        ("/ai/v1/chat/completions", True),
        ("/ai//chat", True),
        ("/ai/../airport", True),
        ("/airport", False),
        ("/ai.json", False),
        ("/AI/chat", False),
        ("//ai/chat", False),
        ("/x/ai/chat", False),
        ("/x/../ai", False),
        ("/", False),
        ("", False),
    ],
)
async def test_prefixes_match_whole_segments(tmp_path, path, covered):
    """A prefix covers itself and what is below it, nothing that merely begins like it, and the router sees the same."""
    service = Service(tmp_path)
    seen: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(request_state(scope) is not None)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    middleware = AutumnMiddleware(app, autumn=service.autumn, identify=lambda _: "ada")
    async with service.autumn.running():
        await request_raw(middleware, path)

    assert [covered] == seen


async def test_percent_encoding_is_what_the_router_sees(tmp_path):
    """`/ai%2Fchat` and `/%61i/chat` reach the gated route under a real server, and are covered there."""
    service = Service(tmp_path)

    @service.app.get("/ai/chat")
    async def chat(request: Request) -> Any:
        return {"covered": request_state(request.scope) is not None}

    async with service.serving() as client:
        for path in (b"/ai%2Fchat", b"/%61i/chat", b"/ai/chat"):
            response = await client.get(client.base_url.copy_with(raw_path=path))
            assert response.json() == {"covered": True}


async def test_root_path_is_stripped(tmp_path):
    """Behind a proxy's prefix, and mounted under another application, the service's own prefix is what counts."""
    service = Service(tmp_path)
    app_that_tells(service)
    outer = FastAPI()
    outer.mount("/api", service.app)
    async with service.autumn.running():
        transport = httpx.ASGITransport(app=outer)
        async with httpx.AsyncClient(transport=transport, base_url="http://x", headers={"x-user": "ada"}) as client:
            assert (await client.get("/api/ai/chat")).json() == {"covered": True}
            assert (await client.get("/api/airport")).json() == {"covered": False}
        transport = httpx.ASGITransport(app=service.app, root_path="/ai")
        async with httpx.AsyncClient(transport=transport, base_url="http://x", headers={"x-user": "ada"}) as client:
            assert (await client.get("/ai/chat")).json() == {"covered": False}


async def test_mounted_application_is_covered(tmp_path):
    """An application mounted on a covered path is covered, gates and all."""
    service = Service(tmp_path)
    inner = FastAPI()

    @inner.post("/chat")
    async def chat(charge: ModelCharge) -> Any:
        return {"charged": str(charge.credits)}

    service.app.mount("/ai", inner)
    async with service.calling() as client:
        assert (await client.post("/ai/chat", json={"model": "large"})).json() == {"charged": "5"}


async def test_gate_outside_the_middleware_is_loud(tmp_path):
    """A gate on a path that the middleware does not cover lets nothing through and says what to do."""
    service = Service(tmp_path)
    ran = []

    @service.app.post("/airport")
    async def airport(charge: ModelCharge) -> Any:
        ran.append(charge)

    async with service.calling() as client:
        assert (await client.post("/airport", json={"model": "large"})).status_code == 500
    with pytest.raises(ConfigurationError, match=r"POST /airport has a credit gate.*add the middleware"):
        TestClient(service.app).post("/airport", json={"model": "large"})
    assert ran == []


async def test_gate_without_any_middleware_is_loud():
    """A gate in an application without the middleware fails closed."""
    app = FastAPI()

    @app.post("/ai/chat")
    async def chat(charge: ModelCharge) -> Any:
        return "served"

    with pytest.raises(ConfigurationError, match="AutumnMiddleware does not cover"):
        TestClient(app).post("/ai/chat", json={"model": "large"})


async def test_websocket_and_lifespan_pass(tmp_path):
    """A WebSocket on a covered path is left alone, and the lifespan runs."""
    service = Service(tmp_path)

    @service.app.websocket("/ai/live")
    async def live(socket: WebSocket) -> None:
        await socket.accept()
        async with service.autumn.charge("ada", "large") as charge:
            await socket.send_text(str(charge.balance.remaining))
        await socket.close()

    with TestClient(service.app) as client, client.websocket_connect("/ai/live") as socket:
        assert socket.receive_text() == "45"


@pytest.mark.parametrize("identity", [None, "", "two words", "a/b", "tab\t", "nul\x00", "x" * 256, Customer("")])
async def test_nobody_is_401_and_nothing_is_sent(tmp_path, identity):
    """No identity, and one that Autumn would refuse or mistake, is a 401 before anything reaches Autumn."""
    service = Service(tmp_path, identify=lambda _: identity)
    app_that_tells(service)
    async with service.calling() as client:
        response = await client.get("/ai/chat")

        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json()["detail"]["code"] == "not_authenticated"
        assert (await service.autumn.client.customers.list()).list == ()


@pytest.mark.parametrize(
    "identity", ["ada", "ada@example.com", "org:1_a-b", "x" * 255, "ünïcode", Customer("ada", name="Ada")]
)
async def test_identities_become_customers(tmp_path, identity):
    """Whoever is identified exists at Autumn afterwards, gate or not."""
    service = Service(tmp_path, identify=lambda _: identity)
    app_that_tells(service)
    async with service.calling() as client:
        assert (await client.get("/ai/chat")).json() == {"covered": True}

        (record,) = (await service.autumn.client.customers.list()).list
        assert record.id == (identity if isinstance(identity, str) else identity.id)


async def test_identify_may_be_async(tmp_path):
    """`identify` can wait for a session store."""

    async def identify(connection: Any) -> str:
        await asyncio.sleep(0)
        return "ada"

    service = Service(tmp_path, identify=identify)
    app_that_tells(service)
    async with service.calling() as client:
        assert (await client.get("/ai/chat")).status_code == 200


class Backend(AuthenticationBackend):
    """Takes the header for the user, as a demo would."""

    async def authenticate(self, conn: Any) -> Any:
        name = conn.headers.get("x-user")
        return (AuthCredentials(), SimpleUser(name) if name else UnauthenticatedUser())


async def test_request_user_is_the_default(tmp_path):
    """Without `identify`, Starlette's authenticated user pays, and an unauthenticated one is a 401."""
    from fastapi_autumn.middleware import from_request_user

    service = Service(tmp_path, identify=from_request_user)
    app_that_tells(service)
    service.app.add_middleware(AuthenticationMiddleware, backend=Backend())
    async with service.calling() as client:
        assert (await client.get("/ai/chat")).json() == {"covered": True}
        assert (await client.get("/ai/chat", headers={"x-user": ""})).status_code == 401


async def test_request_user_without_authentication_is_loud(tmp_path):
    """Without `identify` and without AuthenticationMiddleware, the error says what to pass."""
    from fastapi_autumn.middleware import from_request_user

    service = Service(tmp_path, identify=from_request_user)
    app_that_tells(service)
    with TestClient(service.app) as client, pytest.raises(ConfigurationError, match="Pass identify="):
        client.get("/ai/chat")


async def test_callers_headers_choose_nothing(tmp_path):
    """No header of the caller's chooses the customer, the price or the feature."""
    service = Service(tmp_path, identify=lambda _: "ada")

    @service.app.post("/ai/chat")
    async def chat(charge: ModelCharge) -> Any:
        return {"customer": charge.customer.id, "credits": str(charge.credits), "feature": charge.feature_id}

    hostile = {
        "x-user": "eve",
        "x-customer-id": "eve",
        "autumn-credits-charged": "0",
        "idempotency-key": "k",
        "x-feature-id": "other",
        "x-forwarded-user": "eve",
    }
    async with service.calling() as client:
        response = await client.post("/ai/chat", json={"model": "large"}, headers=hostile)

        assert response.json() == {"customer": "ada", "credits": "5", "feature": "ai_usage"}


async def test_options_is_not_charged(tmp_path):
    """A CORS pre-flight needs no identity."""
    service = Service(tmp_path)
    app_that_tells(service)
    async with service.calling() as client:
        response = await client.options("/ai/chat", headers={"x-user": ""})

        assert response.json() == {"covered": False}


async def test_large_bodies_are_refused_before_they_are_parsed(tmp_path):
    """A body over the limit is a 413, whether it announces its length or not, and nothing is charged."""
    service = Service(tmp_path, max_body_bytes=1000)

    @service.app.post("/ai/chat")
    async def chat(body: dict[str, Any], charge: ModelCharge) -> Any:
        return "served"

    async def chunks() -> Any:
        for _ in range(30):
            yield b" " * 100
        yield b'{"model": "large"}'

    async with service.serving() as client:
        announced = await client.post("/ai/chat", json={"model": "large", "x": "y" * 1000})
        streamed = await client.post("/ai/chat", content=chunks(), headers={"content-type": "application/json"})

        for response in (announced, streamed):
            assert response.status_code == 413
            assert response.json()["detail"]["code"] == "body_too_large"
        assert await service.used() == 0


@pytest.mark.parametrize("paths", ["/ai", ["ai"]])
def test_wrong_paths_are_refused_at_start(tmp_path, paths):
    """A path that is not a list of prefixes with a slash fails when the middleware is made."""
    with pytest.raises(ConfigurationError, match="AutumnMiddleware"):
        AutumnMiddleware(FastAPI(), autumn=Service(tmp_path).autumn, paths=paths)
