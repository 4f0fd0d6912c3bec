"""How a request ended, judged from what was observed of it, in every order in which that can happen."""

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.sse import EventSourceResponse
from starlette.requests import ClientDisconnect
from starlette.websockets import WebSocketDisconnect

from fastapi_autumn._ending import Ending
from fastapi_autumn.settlement import Outcome

DONE, GONE, FAILED = Outcome.DONE, Outcome.GONE, Outcome.FAILED

START = {"type": "http.response.start", "status": 200}
WITH_TRAILERS = START | {"trailers": True}
REFUSED = {"type": "http.response.start", "status": 402}
PART = {"type": "http.response.body", "body": b"word", "more_body": True}
LAST = {"type": "http.response.body", "body": b""}
FILE = {"type": "http.response.pathsend", "path": "/a"}
COPY = {"type": "http.response.zerocopysend", "file": 1}
COPY_PART = COPY | {"more_body": True}
TRAILERS = {"type": "http.response.trailers", "headers": []}
TRAILERS_PART = TRAILERS | {"more_trailers": True}
HINT = {"type": "http.response.early_hint", "links": []}
ACCEPT = {"type": "websocket.accept"}
TEXT = {"type": "websocket.send", "text": "word"}
CLOSE = {"type": "websocket.close", "code": 1000}
CLOSE_FAILED = {"type": "websocket.close", "code": 1011}
CLOSE_POLICY = {"type": "websocket.close", "code": 1008}
DENIED = {"type": "websocket.http.response.start", "status": 403}

LEFT = "the caller leaves"
LOST = "the server cannot send"
ERROR = ValueError("the producer")
HANG_UPS = ExceptionGroup("streams", [ClientDisconnect(), ExceptionGroup("inner", [ClientDisconnect()])])
MIXED = ExceptionGroup("streams", [ClientDisconnect(), ERROR])


def watched(*events: Any) -> Ending:
    """What is known after these messages were sent, and the exceptions among them came out of the route."""
    ending = Ending()
    for event in events:
        if event == LEFT:
            ending.caller_left()
        elif event == LOST:
            ending.send_failed()
        elif isinstance(event, BaseException):
            ending.route_exits(type(event), event, event.__traceback__)
        else:
            ending.sending(event)
            ending.sent(event)
    return ending


@pytest.mark.parametrize(
    ("events", "outcome"),
    [
        ([], FAILED),
        ([START], FAILED),
        ([HINT, START, PART], FAILED),
        ([START, PART, LAST], DONE),
        ([START, FILE], DONE),
        ([START, COPY_PART], FAILED),
        ([START, COPY_PART, COPY], DONE),
        ([WITH_TRAILERS, PART, LAST], FAILED),
        ([WITH_TRAILERS, FILE], FAILED),
        ([WITH_TRAILERS, LAST, TRAILERS_PART], FAILED),
        ([WITH_TRAILERS, LAST, TRAILERS_PART, TRAILERS], DONE),
        ([WITH_TRAILERS, LAST, LEFT], GONE),
        ([REFUSED, LAST], FAILED),
        ([REFUSED, LEFT], FAILED),
        ([LEFT, REFUSED, LAST], FAILED),
        ([START, PART, LEFT], GONE),
        ([START, PART, LEFT, LAST], GONE),
        ([LEFT, START, LAST], GONE),
        ([START, LAST, LEFT], DONE),
        ([START, PART, LOST], GONE),
        ([LOST], GONE),
        ([ACCEPT], DONE),
        ([ACCEPT, TEXT, CLOSE], DONE),
        ([ACCEPT, TEXT, CLOSE_POLICY], DONE),
        ([ACCEPT, TEXT, CLOSE_FAILED], FAILED),
        ([ACCEPT, TEXT, LEFT], GONE),
        ([ACCEPT, TEXT, LEFT, CLOSE_FAILED], GONE),
        ([ACCEPT, CLOSE, LEFT], DONE),
        ([DENIED], FAILED),
    ],
)
def test_endings_without_an_exception(events, outcome):
    """The first of a last part, a hang-up and a failure decides, and a status of 400 or more always does."""
    assert outcome is watched(*events).outcome()


@pytest.mark.parametrize(
    ("events", "outcome"),
    [
        ([ERROR], FAILED),
        ([START, PART, ERROR], FAILED),
        ([START, PART, ERROR, LAST], FAILED),
        ([START, PART, ERROR, LEFT], FAILED),
        ([START, LAST, ERROR], DONE),
        ([START, PART, LEFT, ERROR], GONE),
        ([START, PART, LOST, OSError()], GONE),
        ([START, PART, LOST, HANG_UPS], GONE),
        ([LEFT, ERROR], FAILED),
        ([LEFT, ClientDisconnect()], GONE),
        ([ClientDisconnect()], GONE),
        ([START, HANG_UPS], GONE),
        ([START, MIXED], FAILED),
        ([START, asyncio.CancelledError()], FAILED),
        ([START, LEFT, asyncio.CancelledError()], GONE),
        ([LEFT, asyncio.CancelledError()], GONE),
        ([asyncio.CancelledError()], FAILED),
        ([ACCEPT, TEXT, ERROR], FAILED),
        ([ACCEPT, TEXT, WebSocketDisconnect(1006)], GONE),
        ([ACCEPT, LEFT, ERROR], GONE),
    ],
)
def test_endings_with_an_exception_of_the_route(events, outcome):
    """A failure counts when it comes before the last part and before the caller leaves."""
    ending = watched(*events)
    error = next(event for event in events if isinstance(event, BaseException))

    assert outcome is ending.outcome(error)


@pytest.mark.parametrize(
    ("events", "outcome"),
    [([], FAILED), ([START], FAILED), ([START, PART], FAILED), ([START, LAST], DONE), ([START, LEFT], GONE)],
)
def test_endings_with_an_exception_of_a_middleware(events, outcome):
    """A middleware between route and caller that fails costs the call only what it kept from being delivered."""
    assert outcome is watched(*events).outcome(ERROR)


@pytest.mark.parametrize(
    ("events", "error", "outcome"),
    [
        ([START, LAST], ERROR, FAILED),
        ([START, LAST], ClientDisconnect(), DONE),
        ([START, LAST], None, DONE),
        ([START, LEFT], ERROR, GONE),
        ([START, PART], ERROR, FAILED),
    ],
)
def test_hidden_route_is_judged_for_the_customer(events, error, outcome):
    """Where nothing tells what the route raises, an exception after a complete body counts as the route's."""
    ending = watched(*events)
    ending.route_is_hidden()

    assert outcome is ending.outcome(error)


def test_exception_that_became_a_good_answer_is_none():
    """A route whose exception was turned into an answer below 400 has delivered that answer."""
    assert DONE is watched(ERROR, START, LAST).outcome()


@pytest.mark.parametrize(("message", "outcome"), [(START, GONE), (REFUSED, FAILED)])
def test_server_that_cannot_send_the_first_message(message, outcome):
    """A caller who left before the first byte is gone, and what was to be refused is a failure to them as well."""
    ending = Ending()
    ending.sending(message)
    ending.send_failed()

    assert outcome is ending.outcome(OSError("the peer has closed the connection"))


def test_disconnect_while_the_last_part_is_taken():
    """Servers report a disconnect when an exchange is over, some while they still take the last part of it."""
    ending = watched(START, PART)
    ending.sending(LAST)
    ending.caller_left()
    assert GONE is ending.outcome()

    ending.sent(LAST)
    assert DONE is ending.outcome()


async def raised_by_an_event_stream(producer: Any) -> BaseException:
    """What comes out of FastAPI after the complete body of an event stream that failed."""
    app = FastAPI()
    app.get("/", response_class=EventSourceResponse)(producer)
    sent = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return await asyncio.get_running_loop().create_future()

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b"", "asgi": {}}
    with pytest.raises(BaseExceptionGroup) as raised:
        await app(scope, receive, send)
    if producer is not failing_in_a_thread:
        # A thread may fail before the loop has come to the end of the body, or after it.
        assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    return raised.value


async def fail() -> None:
    raise ERROR


async def failing() -> Any:
    yield "a word"
    await asyncio.sleep(0.01)
    raise ERROR


async def failing_in_a_task_group() -> Any:
    yield "a word"
    await asyncio.sleep(0.01)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fail())


async def yielding_what_no_json_can_say() -> Any:
    yield "a word"
    await asyncio.sleep(0.01)
    yield object()


def failing_in_a_thread() -> Any:
    yield "a word"
    raise ERROR


@pytest.mark.parametrize(
    "producer", [failing, failing_in_a_task_group, yielding_what_no_json_can_say, failing_in_a_thread]
)
async def test_event_streams_that_failed_are_found_in_a_traceback(producer):
    """FastAPI completes the body of an event stream whose producer failed, in whichever way; that is a failure."""
    error = await raised_by_an_event_stream(producer)

    assert FAILED is watched(START, PART, LAST, error).outcome(error)


async def test_other_task_groups_are_no_event_streams():
    """A background task or a clean-up with a task group of its own fails after the answer, which stays delivered."""
    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())

    assert DONE is watched(START, LAST, raised.value).outcome(raised.value)


def test_exception_without_a_traceback_is_for_the_customer():
    """Where nothing tells what failed after a complete body, the credits are given back."""
    error = ExceptionGroup("streams", [ValueError("raised nowhere")])

    assert FAILED is watched(START, LAST, error).outcome(error)
