"""How every way in which a request can end is charged: under a real server and, where it can show it, a test client.

Each row says what the customer gets on the wire and whether the call is paid.
"""

import asyncio
import gc
from decimal import Decimal

import httpx
import pytest
from fastapi.testclient import TestClient

from outcome_routes import KEPT, REFUNDED, ROWS, call, service_with_routes
from service import until


@pytest.mark.parametrize("inner", [False, True], ids=["alone", "around a BaseHTTPMiddleware"])
@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_outcomes_under_uvicorn(tmp_path, inner, http):
    """Under uvicorn every row gives the customer what the table says, and costs what it says."""
    service = service_with_routes(tmp_path, inner=inner)
    async with service.serving(http=http) as client:
        for number, (path, how, status, whole, paid) in enumerate(ROWS):
            client.headers["x-user"] = customer = f"customer-{number}"
            seen = await call(client, path, how)
            # A BaseHTTPMiddleware ends the body of a failed stream as if nothing had happened.
            assert (path, how, *seen) == (path, how, status, whole or inner)
            assert (path, how, await service.used(customer)) == (path, how, paid)


@pytest.mark.parametrize(("path", "how", "status", "whole", "paid"), ROWS)
def test_outcomes_under_a_test_client(tmp_path, path, how, status, whole, paid):
    """Under TestClient, which hides what the wire shows of a broken stream, every row costs the same."""
    service = service_with_routes(tmp_path, inner=False)
    with TestClient(service.app, raise_server_exceptions=False, headers={"x-user": "ada"}) as client:
        body = {"model": "large", "how": how}
        response = client.post(f"/ai/{path}", json=body, headers={"x-how": how}, follow_redirects=False)

        assert status == response.status_code
        assert paid == client.portal.call(service.used)


@pytest.mark.parametrize("path", ["plain", "stream"])
def test_outcomes_without_a_lifespan(tmp_path, path):
    """Where no lifespan runs, each request is settled before it returns."""
    service = service_with_routes(tmp_path, inner=False, emulator_path=tmp_path / "emulator.db")
    client = TestClient(service.app, raise_server_exceptions=False, headers={"x-user": "ada"})
    hows = {"plain": "raises", "stream": "raises mid-stream"}
    for how in ("", hows[path], "", hows[path]):
        client.post(f"/ai/{path}", json={"model": "large", "how": how}, headers={"x-how": how})

    async def used() -> Decimal:
        async with service.autumn.running():
            return await service.used()

    assert Decimal(10) == asyncio.run(used())


async def hang_up(client: httpx.AsyncClient, path: str) -> None:
    """Leave after the first words."""
    async with client.stream("POST", f"/ai/{path}", json={"model": "large", "how": "endless"}) as response:
        async for _ in response.aiter_raw():
            break


@pytest.mark.parametrize(("refund_on_disconnect", "paid"), [(False, KEPT), (True, REFUNDED)])
@pytest.mark.parametrize("inner", [False, True], ids=["alone", "around a BaseHTTPMiddleware"])
@pytest.mark.parametrize("path", ["stream", "sse", "jsonl"])
async def test_hang_up(tmp_path, path, inner, refund_on_disconnect, paid):
    """A client that leaves in mid-stream pays unless the service says otherwise, and the model's stream is closed."""
    service = service_with_routes(tmp_path, inner=inner, refund_on_disconnect=refund_on_disconnect)
    async with service.serving() as client:
        await hang_up(client, path)
        # A BaseHTTPMiddleware may leave the generator to the garbage collector.
        await until(lambda: gc.collect() is not None and service.closed, seconds=60)

        assert service.closed == ["endless"]
        assert paid == await service.used()


async def test_cancelled_handler(tmp_path):
    """A handler that is cancelled from inside the service is a failure and is given back."""
    service = service_with_routes(tmp_path, inner=False)
    async with service.serving() as client:
        status, _ = await call(client, "plain", "cancelled")

        assert status == 500
        assert await service.used() == REFUNDED
