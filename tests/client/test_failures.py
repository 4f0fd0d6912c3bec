"""What each failure of a call becomes: one table, proven complete."""

import logging
import traceback
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from client.answers import ALLOWED, KEY
from fastapi_autumn import AutumnClient, AutumnSettings, errors
from fastapi_autumn.errors import (
    AutumnError,
    ConnectFailed,
    CustomerNotFound,
    DuplicateRequest,
    LockAlreadyExists,
    NoAnswer,
    NotVerified,
    Overloaded,
    RateLimited,
    RequestRejected,
    ServerFailure,
    UnexpectedAnswer,
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
    (httpx.Response(404, text="<html>Not found</html>"), RequestRejected),
    (httpx.Response(405), RequestRejected),
    (httpx.Response(301, headers={"location": "https://elsewhere.example/"}), RequestRejected),
    (said(429, "rate_limit_exceeded"), RateLimited),
    (httpx.Response(429, text="Too many requests, please try again later."), RateLimited),
    (said(500, "internal_error"), ServerFailure),
    (httpx.Response(502, text="<html>Bad gateway</html>"), ServerFailure),
    (said(503, "service_unavailable"), ServerFailure),
    (httpx.Response(504), ServerFailure),
    (httpx.Response(520), ServerFailure),
    (httpx.Response(202, json={**ALLOWED, "balance": None}), NotVerified),
    (httpx.Response(200, json={"hello": "world"}), UnexpectedAnswer),
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
    raised = {error for _, error in [*ANSWERS, *RAISED]}
    assert raised == {RequestRejected, *leaves(errors.RequestRejected), *leaves(errors.Unavailable)}


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


@pytest.mark.parametrize("content", [b"<html>", b"", b"[]", b'"text"', b"\xff", b"null"])
async def test_a_stranger_at_the_base_url_is_named(content: bytes, client_once: AutumnClient, autumn: Any) -> None:
    """An answer that Autumn does not give points to the setting that leads there."""
    autumn.post("/balances.check").respond(404, content=content)
    with pytest.raises(RequestRejected, match="check AUTUMN_BASE_URL") as raised:
        await client_once.balances.check("ada", "ai_usage")
    assert raised.value.code == "unknown"


@pytest.mark.parametrize("body", [{}, {"code": None, "message": None}, {"code": 7, "message": {"a": 1}}])
async def test_reads_a_rejection_without_its_fields(body: Any, client_once: AutumnClient, autumn: Any) -> None:
    """Fields of an error that are missing or of another type must not hide the error."""
    autumn.post("/balances.check").respond(400, json=body)
    with pytest.raises(RequestRejected) as raised:
        await client_once.balances.check("ada", "ai_usage")
    assert isinstance(raised.value.code, str)
    assert isinstance(raised.value.message, str)


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
