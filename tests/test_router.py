"""The routes for front ends: what a customer has, what they could have, and where they go to pay."""

import re
from typing import Any

import pytest
from fastapi import Header
from fastapi.testclient import TestClient
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser, UnauthenticatedUser
from starlette.middleware.authentication import AuthenticationMiddleware

from fastapi_autumn import Customer, ModelCharge
from fastapi_autumn.emulator import Fault
from service import Service


async def by_token(x_token: str = Header("")) -> Customer | None:
    return Customer(x_token) if x_token else None


ADA = {"x-token": "ada"}


def billing_service(tmp_path: Any, **router: Any) -> Service:
    service = Service(tmp_path, max_retries=0)
    service.app.include_router(service.autumn.router(prefix="/billing", customer=by_token, **router))

    @service.app.post("/ai/chat")
    async def chat(charge: ModelCharge) -> Any:
        return "served"

    return service


async def test_customer_is_created_on_the_first_visit(tmp_path):
    """A front end sees plan and balance of whoever is signed in, before any paid call."""
    async with billing_service(tmp_path).calling() as client:
        response = await client.get("/billing/customer", headers={"x-token": "ada"})

        record = response.json()
        assert record["id"] == "ada"
        assert [subscription["plan_id"] for subscription in record["subscriptions"]] == ["free"]
        assert record["balances"]["ai_credits"]["remaining"] == 50


async def test_usage(tmp_path):
    """Usage is what the paid calls took, in total and by period."""
    async with billing_service(tmp_path).calling() as client:
        await client.post("/ai/chat", json={"model": "large"})
        response = await client.get("/billing/usage?feature_id=ai_usage&range=24h", headers={"x-token": "ada"})

        total = response.json()["total"]["ai_usage"]
        assert total == {"count": 1, "sum": 5}


async def test_plans(tmp_path):
    """The plans on offer are those of the catalog."""
    async with billing_service(tmp_path).calling() as client:
        plans = (await client.get("/billing/plans", headers={"x-token": "ada"})).json()

        assert {plan["id"] for plan in plans} == {"free", "pro", "credit_top_up"}


async def test_attach_says_where_to_pay(tmp_path):
    """A plan with a price answers with the address of a check-out."""
    async with billing_service(tmp_path).calling() as client:
        body = {"plan_id": "pro", "success_url": "https://example.com/thanks"}
        response = await client.post("/billing/attach", json=body, headers={"x-token": "ada"})

        page = await client.get(response.json()["payment_url"])
        (action,) = set(re.findall(r'formaction="([^"]+/confirm)"', page.text))
        done = await client.post(page.url.join(action))

        assert "No money" in page.text or "no money" in page.text
        assert done.headers["location"] == "https://example.com/thanks"
        record = (await client.get("/billing/customer", headers={"x-token": "ada"})).json()
        assert "pro" in [subscription["plan_id"] for subscription in record["subscriptions"]]


async def test_portal(tmp_path):
    """The portal's address comes from Autumn."""
    async with billing_service(tmp_path).calling() as client:
        response = await client.post("/billing/portal", json={}, headers={"x-token": "ada"})

        assert (await client.get(response.json()["url"])).status_code == 200


async def test_nothing_else_of_the_emulator_is_served(tmp_path):
    """The emulator's API, and its own controls, are not reachable from outside the process."""
    async with billing_service(tmp_path).calling() as client:
        for path in (
            "v1/customers.list",
            "emulator/reset",
            "checkout/../v1/customers.list",
            "checkout/%2e%2e/emulator",
        ):
            response = await client.post(f"/billing-emulator/{path}")
            assert response.status_code in {401, 404, 405}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/billing/customer", None),
        ("GET", "/billing/usage?feature_id=ai_usage", None),
        ("POST", "/billing/attach", {"plan_id": "pro"}),
        ("POST", "/billing/portal", {}),
        ("GET", "/billing/plans", None),
        ("GET", "/billing/entities", None),
        ("POST", "/billing/preview", {"plan_id": "pro"}),
        ("POST", "/billing/cancel", {"plan_id": "pro"}),
        ("POST", "/billing/uncancel", {"plan_id": "pro"}),
        ("POST", "/billing/setup-payment", None),
    ],
)
async def test_nobody_is_401(tmp_path, method, path, body):
    """Every route about a customer needs one."""
    async with billing_service(tmp_path).calling() as client:
        response = await client.request(method, path, json=body)

        assert response.status_code == 401
        assert response.json()["detail"]["code"] == "not_authenticated"


async def test_what_autumn_refuses_is_told(tmp_path):
    """A plan that does not exist, or that the customer is not on, is the caller's fault."""
    async with billing_service(tmp_path).calling() as client:
        response = await client.post("/billing/attach", json={"plan_id": "nope"}, headers={"x-token": "ada"})

        assert response.status_code == 404
        assert response.json()["detail"]["code"] == "plan_not_offered"
        response = await client.post("/billing/cancel", json={"plan_id": "pro"}, headers=ADA)
        assert response.status_code == 404


async def test_unreachable_autumn_is_503(tmp_path):
    """An Autumn that does not answer is a 503 with Retry-After."""
    service = billing_service(tmp_path)
    async with service.calling() as client:
        service.emulator.faults.add("plans.list", Fault(kind="fail", status=500))
        response = await client.get("/billing/plans", headers=ADA)

        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"


class HeaderBackend(AuthenticationBackend):
    """Takes the header for the user."""

    async def authenticate(self, conn: Any) -> Any:
        name = conn.headers.get("x-user")
        return (AuthCredentials(), SimpleUser(name) if name else UnauthenticatedUser())


def test_request_user_is_the_default(tmp_path):
    """Without `customer`, Starlette's authenticated user is the customer, and nobody is a 401."""
    service = Service(tmp_path)
    service.app.include_router(service.autumn.router())
    service.app.add_middleware(AuthenticationMiddleware, backend=HeaderBackend())
    with TestClient(service.app) as client:
        assert client.get("/billing/customer", headers={"x-user": "ada"}).json()["id"] == "ada"
        assert client.get("/billing/customer").status_code == 401


async def test_the_middlewares_customer_is_the_default_where_it_covers(tmp_path):
    """Where the middleware covers the prefix, whom it identified is the customer."""
    service = Service(tmp_path, paths=("/ai", "/billing"))
    service.app.include_router(service.autumn.router())
    async with service.calling() as client:
        assert (await client.get("/billing/customer")).json()["id"] == "ada"


async def test_no_user_at_all_is_401(tmp_path):
    """With neither the middleware nor an authenticated user, nobody is calling."""
    service = Service(tmp_path)
    service.app.include_router(service.autumn.router())
    async with service.calling() as client:
        assert (await client.get("/billing/customer")).status_code == 401


async def test_amounts_are_json_numbers_of_a_customer(tmp_path):
    """A front end gets balances it can calculate with."""
    async with billing_service(tmp_path).calling() as client:
        await client.post("/ai/chat", json={"model": "fraction"})
        response = await client.get("/billing/customer", headers={"x-token": "ada"})

        assert b'"remaining":49.9,' in response.content


async def test_the_emulators_pages_open_in_a_browser(tmp_path):
    """Where the middleware covers the routes, as in the README, a browser still gets to pay: it has no header."""
    service = Service(tmp_path, paths=("/ai", "/billing"))
    service.app.include_router(service.autumn.router(prefix="/billing"))
    async with service.calling() as client:
        answer = (await client.post("/billing/attach", json={"plan_id": "pro"})).json()
        client.headers.pop("x-user")

        page = await client.get(answer["payment_url"])
        assert page.status_code == 200
        (action,) = set(re.findall(r'formaction="([^"]+/confirm)"', page.text))
        assert (await client.post(page.url.join(action))).status_code == 200


async def test_pages_are_found_below_prefixes(tmp_path):
    """An application that puts the routes below a prefix of its own has the pages there as well."""
    service = Service(tmp_path)
    service.app.include_router(service.autumn.router(prefix="/billing", customer=by_token), prefix="/api/v1")
    async with service.calling() as client:
        answer = (await client.post("/api/v1/billing/portal", headers=ADA)).json()

        assert answer["url"].startswith("http://service/api/v1/billing-emulator/portal/")
        assert (await client.get(answer["url"])).status_code == 200


async def test_a_customers_metadata_is_not_shown(tmp_path):
    """What a service notes about a customer at Autumn is no business of their browser."""
    service = billing_service(tmp_path)
    async with service.calling() as client:
        await client.get("/billing/customer", headers=ADA)
        await service.autumn.client.customers.update("ada", metadata={"risk": "high"})
        response = await client.get("/billing/customer", headers=ADA)

        assert "high" not in response.text
        assert "metadata" not in response.json()


async def test_usage_of_an_unknown_feature_is_an_error(tmp_path):
    """A typing error is not an empty page."""
    async with billing_service(tmp_path).calling() as client:
        response = await client.get("/billing/usage?feature_id=ai_usge", headers=ADA)

        assert response.status_code == 404
        assert response.json()["detail"]["code"] == "feature_not_found"


async def test_usage_of_a_credit_system_says_what_to_ask_for(tmp_path):
    """The name that the balance shows has no usage of its own, and zeros would look like an answer."""
    async with billing_service(tmp_path).calling() as client:
        response = await client.get("/billing/usage?feature_id=ai_credits", headers=ADA)

        assert response.status_code == 422
        assert response.json()["detail"]["code"] == "credit_system"
        assert response.json()["detail"]["features"] == ["ai_usage"]


async def test_plan_can_be_previewed_cancelled_and_kept(tmp_path):
    """From the price to the end of a subscription and back, with nothing but the routes."""
    service = billing_service(tmp_path)
    async with service.calling() as client:
        preview = (await client.post("/billing/preview", json={"plan_id": "pro"}, headers=ADA)).json()
        assert preview["total"] > 0
        await service.autumn.client.billing.attach("ada", "pro", no_billing_changes=True)

        assert (await client.post("/billing/cancel", json={"plan_id": "pro"}, headers=ADA)).status_code == 200
        assert (await pro(client))["canceled_at"] is not None
        assert (await client.post("/billing/uncancel", json={"plan_id": "pro"}, headers=ADA)).status_code == 200
        assert (await pro(client))["canceled_at"] is None


async def test_entities_are_listed(tmp_path):
    """Seats and workspaces of a customer, and of nobody else."""
    async with billing_service(tmp_path).calling() as client:
        assert (await client.get("/billing/entities", headers=ADA)).json() == []


@pytest.mark.parametrize("path", ["portal", "setup-payment"])
@pytest.mark.parametrize("body", [None, {}])
async def test_where_to_go_needs_no_body(tmp_path, path, body):
    """A page without options is asked for without options."""
    async with billing_service(tmp_path).calling() as client:
        response = await client.post(f"/billing/{path}", json=body, headers=ADA)

        assert response.status_code == 200
        assert (await client.get(response.json()["url"])).status_code == 200


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://example.com/thanks?a=1#b", True),
        ("http://service/thanks", True),
        ("/thanks", True),
        ("http://localhost:5173/thanks", True),
        ("http://127.0.0.1:5173/", True),
        ("http://[::1]:5173/", True),
        ("http://example.com/thanks", False),
        ("http://service:8080/thanks", False),
        ("javascript:alert(1)", False),
        ("JavaScript://service/%0aalert(1)", False),
        ("data:text/html,hello", False),
        ("//example.com/thanks", False),
        ("/\\example.com/thanks", False),
        ("https://service@example.com/thanks", False),
        ("https:///thanks", False),
        ("https://[", False),
        ("https://example.com/\nthanks", False),
        ("thanks", False),
        ("", False),
    ],
)
async def test_customers_are_brought_back_to_safe_places_only(tmp_path, url, safe):
    """https, this site, or a front end on this machine: nothing that runs as a script or goes unencrypted."""
    async with billing_service(tmp_path).calling() as client:
        for path, name in (("portal", "return_url"), ("setup-payment", "success_url"), ("attach", "success_url")):
            body = {name: url} | ({"plan_id": "pro"} if path == "attach" else {})
            response = await client.post(f"/billing/{path}", json=body, headers=ADA)

            assert response.status_code == (200 if safe else 422)
            if not safe:
                assert response.json()["detail"]["code"] == "invalid_url"


@pytest.mark.parametrize("declared", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None])
async def test_a_form_of_another_site_changes_nothing(tmp_path, declared):
    """What a browser sends across sites with cookies and without asking is no JSON, and refused whatever it holds."""
    async with billing_service(tmp_path).calling() as client:
        headers = ADA | ({} if declared is None else {"content-type": declared})
        for path in ("attach", "cancel", "uncancel", "preview", "portal"):
            response = await client.post(f"/billing/{path}", content=b'{"plan_id": "pro"}', headers=headers)
            assert response.status_code == 415
        assert [plan["plan_id"] for plan in (await customer(client))["subscriptions"]] == ["free"]


async def customer(client: Any) -> Any:
    return (await client.get("/billing/customer", headers=ADA)).json()


async def pro(client: Any) -> Any:
    return next(plan for plan in (await customer(client))["subscriptions"] if plan["plan_id"] == "pro")
