"""WebSockets on covered paths: who may open one, and how one is charged."""

import contextlib
from typing import Annotated, Any

import pytest
from fastapi import Depends, HTTPException, WebSocket, WebSocketException
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from fastapi_autumn import Charge, CreditGate, ModelCharge
from fastapi_autumn.emulator import Fault
from fastapi_autumn.errors import ConfigurationError
from service import Service


async def model_in_query(model: str) -> str:
    return model


def socket_service(tmp_path: Any, **settings: Any) -> Service:
    """A WebSocket that charges once for the connection and ends as its query says, and one that charges nothing."""
    service = Service(tmp_path, max_retries=0, **settings)

    @service.app.websocket("/ai/live")
    async def live(socket: WebSocket, how: str, charge: Annotated[Charge, Depends(CreditGate(model=model_in_query))]):
        await socket.accept()
        await socket.send_text(f"{charge.credits} of {charge.customer.id}")
        match how:
            case "raises":
                raise ValueError(how)
            case "fails":
                raise WebSocketException(1011, "the model failed")
            case "listens":
                await socket.receive_text()
            case "closes":
                await socket.close()

    @service.app.websocket("/ai/free")
    async def free(socket: WebSocket):
        await socket.accept()
        await socket.send_text("welcome")

    return service


@pytest.mark.parametrize(
    ("how", "paid"),
    [("returns", 5), ("closes", 5), ("listens", 5), ("raises", 0), ("fails", 0)],
)
def test_connection_is_charged(tmp_path, how, paid):
    """A WebSocket whose gate knows the model is charged once, and given back when its handler fails."""
    service = socket_service(tmp_path)
    with TestClient(service.app, raise_server_exceptions=False, headers={"x-user": "ada"}) as client:
        try:
            with client.websocket_connect(f"/ai/live?model=large&how={how}") as socket:
                assert socket.receive_text() == "5 of ada"
        except (ValueError, WebSocketDisconnect):
            assert how in {"listens", "raises", "fails"}

        assert paid == client.portal.call(service.used)


def test_hang_up_can_be_given_back(tmp_path):
    """A caller who closes the WebSocket is gone, as one who leaves a stream."""
    service = socket_service(tmp_path, refund_on_disconnect=True)
    with TestClient(service.app, headers={"x-user": "ada"}) as client:
        with (
            contextlib.suppress(WebSocketDisconnect),
            client.websocket_connect("/ai/live?model=large&how=listens") as socket,
        ):
            socket.receive_text()

        assert client.portal.call(service.used) == 0


@pytest.mark.parametrize("path", ["/ai/free", "/ai/live?model=large&how=returns"])
def test_nobody_is_closed_with_1008(tmp_path, path):
    """A WebSocket on a covered path needs an identity, with a gate or without."""
    service = socket_service(tmp_path)
    with (
        TestClient(service.app) as client,
        pytest.raises(WebSocketDisconnect) as closed,
        client.websocket_connect(path),
    ):
        pass

    assert (closed.value.code, closed.value.reason) == (1008, "not_authenticated")


def test_identify_may_refuse(tmp_path):
    """An HTTPException out of `identify` closes the WebSocket and gives its detail for the reason."""

    def identify(connection: Any) -> None:
        raise HTTPException(403, "Your account is locked.")

    service = socket_service(tmp_path, identify=identify)
    with (
        TestClient(service.app) as client,
        pytest.raises(WebSocketDisconnect) as closed,
        client.websocket_connect("/ai/free"),
    ):
        pass

    assert (closed.value.code, closed.value.reason) == (1008, "Your account is locked.")


@pytest.mark.parametrize(
    ("model", "code", "reason"),
    [
        ("huge", 1008, "insufficient_credits"),
        ("unheard-of", 1008, "unknown_model"),
        ("", 1008, "invalid_model"),
        ("down", 1013, "billing_unavailable"),
    ],
)
def test_refusals_close_it(tmp_path, model, code, reason):
    """What would be a 4xx on a request closes a WebSocket with 1008, and what would be a 503 with 1013."""
    service = socket_service(tmp_path, prices={"huge": 51, "large": 5, "down": 1})
    with TestClient(service.app, headers={"x-user": "ada"}) as client:
        if model == "down":
            service.emulator.faults.add("balances.check", Fault(kind="refuse", times=1))
        with (
            pytest.raises(WebSocketDisconnect) as closed,
            client.websocket_connect(f"/ai/live?how=returns&model={model}"),
        ):
            pass

        assert (closed.value.code, closed.value.reason) == (code, reason)
        assert client.portal.call(service.used) == 0


def test_gate_without_a_model_says_what_to_do(tmp_path):
    """`ModelCharge` reads a body, which a WebSocket does not have; the error names both ways to charge."""
    service = Service(tmp_path)

    @service.app.websocket("/ai/live")
    async def live(socket: WebSocket, charge: ModelCharge):
        await socket.accept()

    with (
        TestClient(service.app, headers={"x-user": "ada"}) as client,
        pytest.raises(ConfigurationError, match=r"CreditGate\(model=.*autumn\.charge"),
        client.websocket_connect("/ai/live"),
    ):
        pass
