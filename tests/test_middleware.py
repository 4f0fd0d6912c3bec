"""Which requests the middleware covers, who is taken for whom, and what passes untouched."""

import asyncio
import re
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.testclient import TestClient

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


async def test_open_paths(tmp_path):
    """Paths below a prefix can be left open, matched on whole segments; a gate there lets nothing through."""
    service = Service(tmp_path, paths=())
    app_that_tells(service)
    middleware = AutumnMiddleware(
        service.app,
        paths=["/ai"],
        autumn=service.autumn,
        open_paths=["/ai/models", "/ai/health/"],
        identify=lambda _: None,
    )
    async with (
        service.autumn.running(),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=middleware), base_url="http://x") as client,
    ):
        for path in ("/ai/models", "/ai/models/large", "/ai/health"):
            assert (await client.get(path)).json() == {"covered": False}
        for path in ("/ai/models-of-others", "/ai", "/ai/chat"):
            assert (await client.get(path)).status_code == 401


@pytest.mark.parametrize("outermost", ["/ai", "/ai/team"])
async def test_longer_prefix_of_two_services_counts(tmp_path, outermost):
    """Where two `Autumn` cover a path, the one with the longer prefix charges, whichever is outermost."""
    team, everybody = Service(tmp_path / "team"), Service(tmp_path / "everybody")
    autumns = {"/ai/team": team.autumn, "/ai": everybody.autumn}
    app = FastAPI()

    @app.post("/ai/chat")
    @app.post("/ai/team/chat")
    async def chat(charge: ModelCharge) -> Any:
        return charge.customer.id

    for prefix in sorted(autumns, key=lambda prefix: prefix == outermost):
        app.add_middleware(AutumnMiddleware, autumn=autumns[prefix], paths=[prefix], identify=lambda _: "ada")
    async with team.autumn.running(), everybody.autumn.running():
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            assert (await client.post("/ai/team/chat", json={"model": "large"})).is_success
            assert (await client.post("/ai/chat", json={"model": "small"})).is_success

        assert [await team.used(), await everybody.used()] == [5, 1]


async def test_emulators_pages_need_no_identity(tmp_path):
    """A browser opens the check-out of the emulator without credentials, also where every path is covered."""
    service = Service(tmp_path, paths=("/",))
    service.app.include_router(service.autumn.router())
    async with service.calling() as client:
        address = (await client.post("/billing/attach", json={"plan_id": "pro"})).json()["payment_url"]
        del client.headers["x-user"]
        page = await client.get(address)
        (action,) = set(re.findall(r'formaction="([^"]+/confirm)"', page.text))

        assert (await client.post(page.url.join(action))).is_success
        assert (await client.get("/billing/customer")).status_code == 401


async def test_cors_outside_lets_a_browser_read_everything(tmp_path):
    """CORSMiddleware that is added after this one puts its headers on refusals, and exposes the credits if told so."""
    service = Service(tmp_path)

    @service.app.post("/ai/chat")
    async def chat(charge: ModelCharge) -> Any:
        return "served"

    service.app.add_middleware(
        CORSMiddleware,
        allow_origins=["https://app.example"],
        expose_headers=["Autumn-Credits-Charged", "Autumn-Credits-Remaining"],
    )
    async with service.calling() as client:
        client.headers["origin"] = "https://app.example"
        served = await client.post("/ai/chat", json={"model": "large"})
        refused = await client.post("/ai/chat", json={"model": "large"}, headers={"x-user": ""})

        assert (served.status_code, refused.status_code) == (200, 401)
        for response in (served, refused):
            assert response.headers["access-control-allow-origin"] == "https://app.example"
            assert "Autumn-Credits-Charged" in response.headers["access-control-expose-headers"]


def test_lifespan_that_never_runs_is_told_once(tmp_path, caplog):
    """In a mounted application Autumn starts with the second request, stays, and says what is missing."""
    service = Service(tmp_path)
    started = []

    @service.app.post("/ai/chat")
    async def chat(charge: ModelCharge) -> Any:
        return started.append(id(service.autumn.client))

    outer = FastAPI()
    outer.mount("/api", service.app)
    with TestClient(outer, headers={"x-user": "ada"}) as client:
        for _ in range(4):
            assert client.post("/api/ai/chat", json={"model": "large"}).status_code == 200
        assert client.portal.call(service.used) == 20

    assert len(set(started[1:])) == 1
    assert caplog.text.count("FastAPI(lifespan=autumn.lifespan)") == 1


def test_bare_test_client_is_not_warned(tmp_path, caplog):
    """Under a TestClient that is not entered each request has a loop of its own, which is no reason to complain."""
    service = Service(tmp_path, emulator_path=tmp_path / "emulator.db")
    app_that_tells(service)
    client = TestClient(service.app, headers={"x-user": "ada"})
    for _ in range(3):
        assert client.get("/ai/chat").json() == {"covered": True}

    assert "lifespan" not in caplog.text


@pytest.mark.parametrize("argument", ["paths", "open_paths"])
@pytest.mark.parametrize("paths", ["/ai", ["ai"]])
def test_wrong_paths_are_refused_at_start(tmp_path, argument, paths):
    """A path that is not a list of prefixes with a slash fails when the middleware is made."""
    with pytest.raises(ConfigurationError, match=f"AutumnMiddleware: .*{argument}"):
        AutumnMiddleware(FastAPI(), autumn=Service(tmp_path).autumn, **{argument: paths})
