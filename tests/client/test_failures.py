"""What each failure of a call becomes: one table, proven complete."""

import logging
import traceback
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from client.answers import ALLOWED, KEY, TRACKED
from fastapi_autumn import AutumnClient, AutumnSettings, Customer, errors
from fastapi_autumn.errors import (
    AutumnError,
    ConnectFailed,
    CustomerNotFound,
    DuplicateRequest,
    LockAlreadyExists,
    LockNotClaimable,
    NoAnswer,
    NotVerified,
    Overloaded,
    RateLimited,
    RequestRejected,
    ServerFailure,
    UnexpectedAnswer,
    UnsendableRequest,
)


def said(status: int, code: str, message: str = "Autumn's words") -> httpx.Response:
    return httpx.Response(status, json={"message": message, "code": code, "env": "sandbox"})


ANSWERS: list[tuple[httpx.Response, type[AutumnError]]] = [
    (said(400, "invalid_inputs"), RequestRejected),
    (said(400, "invalid_api_version"), RequestRejected),
    (said(401, "invalid_secret_key", "Invalid secret key: am_sk_test_keep********"), RequestRejected),
    (said(402, "payment_required"), RequestRejected),
    (said(403, "forbidden"), RequestRejected),
    (said(404, "customer_not_found"), CustomerNotFound),
    (said(404, "feature_not_found"), RequestRejected),
    (said(404, "entity_not_found"), RequestRejected),
    (said(409, "duplicate_idempotency_key"), DuplicateRequest),
    (said(409, "lock_already_exists"), LockAlreadyExists),
    (said(409, "plan_already_attached"), RequestRejected),
    (said(422, "unheard_of"), RequestRejected),
    (said(409, "invalid_request", "Lock receipt not claimable: RESERVATION_ALREADY_PROCESSING"), LockNotClaimable),
    (httpx.Response(400, text="<html>Bad request</html>"), UnexpectedAnswer),
    (httpx.Response(403, text="<html>Forbidden</html>"), UnexpectedAnswer),
    (httpx.Response(404, text="<html>Not found</html>"), UnexpectedAnswer),
    (httpx.Response(405), UnexpectedAnswer),
    (httpx.Response(408, json={"error": "request timeout"}), UnexpectedAnswer),
    (httpx.Response(499, text="client closed request"), UnexpectedAnswer),
    (httpx.Response(301, headers={"location": "https://elsewhere.example/"}), UnexpectedAnswer),
    (httpx.Response(302, json={"code": "moved", "message": "Moved"}), UnexpectedAnswer),
    (httpx.Response(304), UnexpectedAnswer),
    (said(429, "rate_limit_exceeded"), RateLimited),
    (httpx.Response(429, text="Too many requests, please try again later."), RateLimited),
    (said(500, "internal_error"), ServerFailure),
    (httpx.Response(502, text="<html>Bad gateway</html>"), ServerFailure),
    (said(503, "service_unavailable"), ServerFailure),
    (httpx.Response(504), ServerFailure),
    (httpx.Response(520), ServerFailure),
    (httpx.Response(202, json={**ALLOWED, "balance": None}), NotVerified),
    (httpx.Response(200, json={"hello": "world"}), UnexpectedAnswer),
    (httpx.Response(200, json={**ALLOWED, "customer_id": "bob"}), UnexpectedAnswer),
    (httpx.Response(200, json={**ALLOWED, "customer_id": None}), UnexpectedAnswer),
    (httpx.Response(200, json={**ALLOWED, "entity_id": "seat1"}), UnexpectedAnswer),
    (httpx.Response(204), UnexpectedAnswer),
]

RAISED: list[tuple[type[Exception], type[AutumnError]]] = [
    (httpx.ConnectError, ConnectFailed),
    (httpx.ConnectTimeout, ConnectFailed),
    (httpx.ProxyError, ConnectFailed),
    (httpx.UnsupportedProtocol, ConnectFailed),
    (httpx.PoolTimeout, Overloaded),
    (httpx.ReadTimeout, NoAnswer),
    (httpx.WriteTimeout, NoAnswer),
    (httpx.ReadError, NoAnswer),
    (httpx.WriteError, NoAnswer),
    (httpx.CloseError, NoAnswer),
    (httpx.RemoteProtocolError, NoAnswer),
    (httpx.LocalProtocolError, NoAnswer),
    (httpx.DecodingError, NoAnswer),
    (httpx.TooManyRedirects, NoAnswer),
]


def leaves(base: type[Any]) -> Iterator[type[Any]]:
    """The classes below `base` that have none below them."""
    for kind in base.__subclasses__():
        if kind.__subclasses__():
            yield from leaves(kind)
        else:
            yield kind


@pytest.fixture
def client_once(settings: AutumnSettings) -> AutumnClient:
    """A client that does not repeat."""
    return AutumnClient(settings.model_copy(update={"max_retries": 0}), http_client=httpx.AsyncClient())


@pytest.mark.parametrize(
    ("answer", "error"), ANSWERS, ids=[f"{answer.status_code}-{error.__name__}" for answer, error in ANSWERS]
)
async def test_each_answer_has_its_error(
    answer: httpx.Response, error: type[AutumnError], client_once: AutumnClient, autumn: Any
) -> None:
    """Exactly this class, so that nobody takes a mere subclass of it for the case they handle."""
    autumn.post("/balances.check").mock(return_value=answer)
    with pytest.raises(AutumnError) as raised:
        await client_once.balances.check("ada", "ai_usage")
    assert type(raised.value) is error


@pytest.mark.parametrize(("failure", "error"), RAISED)
async def test_each_failure_of_the_network_has_its_error(
    failure: type[Exception], error: type[AutumnError], client_once: AutumnClient, autumn: Any
) -> None:
    """No exception of httpx comes out, and what cannot have been sent is told from what may have been."""
    autumn.post("/balances.check").mock(side_effect=failure)
    with pytest.raises(AutumnError) as raised:
        await client_once.balances.check("ada", "ai_usage")
    assert type(raised.value) is error
    if isinstance(raised.value, NoAnswer):
        assert raised.value.timed_out is issubclass(failure, httpx.TimeoutException)


def test_the_table_covers_httpx() -> None:
    """A newer httpx with another exception fails here before it does in production."""
    assert {failure for failure, _ in RAISED} == set(leaves(httpx.RequestError))


def test_the_table_covers_every_error_of_a_call() -> None:
    """Each class that a caller could handle is one that something raises."""
    raised = {error for _, error in [*ANSWERS, *RAISED]} | {errors.CircuitOpen}  # which no answer raises by itself
    assert raised == {RequestRejected, Overloaded, *leaves(errors.RequestRejected), *leaves(errors.Unavailable)}


async def test_a_hook_that_raises_for_a_status_is_no_answer(settings: AutumnSettings, autumn: Any) -> None:
    """An application's client may raise by itself; then the answer is gone, and that is what is said."""

    async def hook(response: httpx.Response) -> None:
        response.raise_for_status()

    autumn.post("/balances.track").respond(503)
    async with httpx.AsyncClient(event_hooks={"response": [hook]}) as passed_in:
        client = AutumnClient(settings, http_client=passed_in)
        with pytest.raises(NoAnswer, match="HTTPStatusError"):
            await client.balances.track("ada", feature_id="ai_usage")


async def test_a_body_that_cannot_be_decoded_is_no_answer(client_once: AutumnClient, autumn: Any) -> None:
    """A proxy that breaks the compression leaves it open whether the call took effect."""
    broken = httpx.Response(200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(b"not gzip"))
    autumn.post("/balances.check").mock(return_value=broken)
    with pytest.raises(NoAnswer):
        await client_once.balances.check("ada", "ai_usage")


async def test_a_rejection_carries_what_autumn_said(client_once: AutumnClient, autumn: Any) -> None:
    """Operation, status, code and message are there for programs, and all in the text for people."""
    message = "customer_id: must be a string (received number)"
    autumn.post("/balances.check").mock(return_value=said(400, "invalid_inputs", message))
    with pytest.raises(RequestRejected) as raised:
        await client_once.balances.check("ada", "ai_usage")
    error = raised.value
    assert (error.operation, error.status, error.code, error.message) == (
        "balances.check",
        400,
        "invalid_inputs",
        message,
    )
    assert str(error) == f"balances.check: Autumn answered 400 invalid_inputs: {message}"


@pytest.mark.parametrize(
    "content",
    [
        b"<html>",
        b"",
        b"[]",
        b'"text"',
        b"\xff",
        b"null",
        b"{}",
        b'{"code": "invalid_inputs"}',
        b'{"message": "no code"}',
        b'{"code": null, "message": null}',
        b'{"code": 7, "message": {"a": 1}}',
    ],
)
async def test_only_autumns_own_words_are_a_no(content: bytes, client_once: AutumnClient, autumn: Any) -> None:
    """Whoever else writes a 4xx may have seen the work done before, and the error points to where that comes from."""
    autumn.post("/balances.check").respond(404, content=content)
    with pytest.raises(UnexpectedAnswer, match="check AUTUMN_BASE_URL") as raised:
        await client_once.balances.check("ada", "ai_usage")
    assert raised.value.status == 404


ABOUT_ONE: dict[str, tuple[Any, dict[str, Any]]] = {
    "check": (lambda client: client.balances.check("ada", "ai_usage", entity_id="seat1"), ALLOWED),
    "track": (lambda client: client.balances.track("ada", feature_id="ai_usage", entity_id="seat1"), TRACKED),
    "track_tokens": (
        lambda client: client.balances.track_tokens("ada", model_id="m", input_tokens=1, output_tokens=1),
        TRACKED,
    ),
    "get_or_create": (lambda client: client.customers.get_or_create(Customer("ada")), {"id": "ada"}),
    "get": (lambda client: client.customers.get("ada"), {"id": "ada"}),
    "update": (lambda client: client.customers.update("ada", name="Ada"), {"id": "ada"}),
    "attach": (lambda client: client.billing.attach("ada", "pro"), {"customer_id": "ada"}),
    "portal": (
        lambda client: client.billing.open_customer_portal("ada"),
        {"customer_id": "ada", "url": "https://billing.example"},
    ),
}


@pytest.mark.parametrize("name", ABOUT_ONE)
async def test_an_answer_about_somebody_else_is_none(name: str, client_once: AutumnClient, autumn: Any) -> None:
    """Two answers mixed up on the way are told by the customer they name, and the error shows neither of the two."""
    call, answer = ABOUT_ONE[name]
    who = "id" if "id" in answer else "customer_id"
    autumn.route().respond(json={**answer, who: "bob.private"})
    with pytest.raises(UnexpectedAnswer, match="another customer") as raised:
        await call(client_once)
    assert "private" not in str(raised.value)
    autumn.route().respond(json=answer)
    await call(client_once)


@pytest.mark.parametrize("name", ["check", "track"])
async def test_an_answer_about_another_entity_is_none(name: str, client_once: AutumnClient, autumn: Any) -> None:
    """Where an answer names an entity, it is the one that was asked for."""
    call, answer = ABOUT_ONE[name]
    autumn.route().respond(json={**answer, "entity_id": "seat1"})
    await call(client_once)
    autumn.route().respond(json={**answer, "entity_id": "seat2"})
    with pytest.raises(UnexpectedAnswer, match="another customer or entity"):
        await call(client_once)


@pytest.mark.parametrize(
    "call", [lambda c: c.balances.track("ada", feature_id="f"), lambda c: c.balances.finalize("l", "release")]
)
async def test_work_that_was_put_off_is_unknown(call: Any, client_once: AutumnClient, autumn: Any) -> None:
    """Autumn degrades to 202 above its cap, and nobody knows whether the work follows."""
    autumn.route().respond(202, json={**TRACKED, "balance": None, "success": True})
    with pytest.raises(NotVerified):
        await call(client_once)


async def test_a_hold_that_was_not_closed_is_not_taken_for_closed(client_once: AutumnClient, autumn: Any) -> None:
    """Only `success: true` is a yes."""
    autumn.post("/balances.finalize").respond(json={"success": False})
    with pytest.raises(UnexpectedAnswer, match="success"):
        await client_once.balances.finalize("lock_1", "confirm")


@pytest.mark.parametrize("call", [lambda client: client.call("rewards.list", {}), lambda client: client.get("me")])
async def test_a_page_instead_of_json_is_no_answer(call: Any, client_once: AutumnClient, autumn: Any) -> None:
    """A portal in between may answer 200 to anything; operations without a method are guarded too."""
    autumn.route().respond(200, text="<html>Sign in</html>")
    with pytest.raises(UnexpectedAnswer, match="not JSON"):
        await call(client_once)


@pytest.mark.parametrize("key", ["k 1", "k\r\nx: y", "k\x00", "schl\u00fcssel", "k" * 256, " "])
async def test_a_key_that_no_header_can_carry_is_refused_here(key: str, client_once: AutumnClient, autumn: Any) -> None:
    """Nothing is sent, and the error says so instead of looking like a lost answer."""
    route = autumn.route()
    with pytest.raises(UnsendableRequest, match="idempotency key") as raised:
        await client_once.balances.track("ada", feature_id="ai_usage", idempotency_key=key)
    assert isinstance(raised.value, ValueError)
    assert route.call_count == 0


@pytest.mark.parametrize("value", ["\ud83e", object(), {1: {2: object()}}])
async def test_what_json_cannot_write_is_refused_here(value: Any, client_once: AutumnClient, autumn: Any) -> None:
    """The error does not claim that Autumn has answered, and does not show what was passed."""
    route = autumn.route()
    with pytest.raises(UnsendableRequest, match="nothing was sent") as raised:
        await client_once.balances.track("ada", feature_id="ai_usage", properties={"p": value})
    assert not isinstance(raised.value, RequestRejected | errors.Unavailable)
    assert raised.value.__cause__ is None
    assert route.call_count == 0


@pytest.mark.parametrize("failure", [*(answer for answer, _ in ANSWERS), *(failure for failure, _ in RAISED)], ids=str)
async def test_the_key_is_in_nothing_that_a_failure_leaves_behind(
    failure: Any, client_once: AutumnClient, autumn: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Text, repr, attributes, traceback with its causes, and every log line down to debug are free of the key."""
    autumn.post("/balances.check").mock(side_effect=[failure])
    with caplog.at_level(logging.DEBUG), pytest.raises(AutumnError) as raised:
        await client_once.balances.check("ada", "ai_usage")
    error = raised.value
    shown = [
        str(error),
        repr(error),
        repr(vars(error)),
        "".join(traceback.format_exception(error)),
        caplog.text,
        *(repr(vars(record)) for record in caplog.records),
    ]
    assert KEY not in "\n".join(shown)


async def test_the_key_is_in_no_repr(client: AutumnClient, settings: AutumnSettings) -> None:
    """What a debugger or a careless log line prints of the client does not show the key."""
    parts = [client, settings, client.balances, client.call, *vars(client).values()]
    assert KEY not in "\n".join(f"{part!r} {part}" for part in parts)
