"""An Autumn inside the process: requests, answers, and what stands for the failures of a network."""

import asyncio
from typing import Any

import pytest

from fastapi_autumn.errors import ConnectFailed, NoAnswer
from fastapi_autumn.transports import Answer, AsgiTransport

START = {"type": "http.response.start", "status": 201, "headers": [(b"retry-after", b"3")]}


def part(content: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": more}


async def call(app: Any, *, within: float = 5.0) -> Answer:
    transport = AsgiTransport(app, timeout=within)
    try:
        return await transport.request("POST", "/v1/events?limit=1", body=b"{}", headers={"Authorization": "Bearer k"})
    finally:
        await transport.aclose()


def answering(*messages: dict[str, Any], error: Exception | None = None) -> Any:
    """An app that sends these messages, and then raises, if it is told to."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)
        if error is not None:
            raise error

    return app


async def test_request_and_answer_arrive_whole() -> None:
    """The app sees a plain HTTP request, and the caller the status, the headers and all parts of the body."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend([scope, await receive()])
        for message in (START, part(b'{"a":', more=True), part(b"1}")):
            await send(message)

    answer = await call(app)
    scope, body = seen
    assert (scope["type"], scope["method"], scope["path"], scope["query_string"]) == (
        "http",
        "POST",
        "/v1/events",
        b"limit=1",
    )
    assert scope["headers"] == [(b"authorization", b"Bearer k")]
    assert (body["body"], body["more_body"]) == (b"{}", False)
    assert answer == Answer(201, {"retry-after": "3"}, b'{"a":1}')


async def test_refused_connection_means_nothing_was_sent() -> None:
    """It is the one error of the app that says so."""
    with pytest.raises(ConnectFailed):
        await call(answering(error=ConnectionRefusedError()))


@pytest.mark.parametrize(
    "app",
    [
        answering(error=ConnectionResetError()),
        answering(START, error=ConnectionAbortedError()),
        answering(),
        answering(START),
        answering(START, part(b'{"a":', more=True)),
    ],
    ids=["reset", "broken off", "nothing", "only a start", "half a body"],
)
async def test_no_whole_answer_is_no_answer(app: Any) -> None:
    """Whatever is missing of it, the work may have been done."""
    with pytest.raises(NoAnswer) as raised:
        await call(app)
    assert not raised.value.timed_out


async def test_no_answer_within_the_time() -> None:
    """The time-out holds here too, so that an application meets it in its tests."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(60)

    with pytest.raises(NoAnswer, match=r"within 0\.02 s") as raised:
        await call(app, within=0.02)
    assert raised.value.timed_out


async def test_bug_of_the_app_comes_out_as_it_is() -> None:
    """It must not look like a network that had a bad moment, and be repeated."""
    with pytest.raises(ZeroDivisionError):
        await call(answering(START, error=ZeroDivisionError()))
