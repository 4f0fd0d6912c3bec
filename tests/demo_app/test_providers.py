"""The demo in front of an OpenAI-compatible server, which is another demo or a small app in the test."""

import asyncio
import threading
import time
from contextlib import ExitStack

import httpx
import openai
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from openai import OpenAI

HELLO = [{"role": "user", "content": "Hello there"}]


@pytest.fixture
def ask(serve):
    """Serve a demo in front of `upstream`, and return its address and a way to call it."""
    with ExitStack() as clients:

        def front(upstream):
            demo = serve(base_url=f"{upstream}/ai/v1", api_key="demo-carol")
            client = clients.enter_context(OpenAI(base_url=f"{demo}/ai/v1", api_key="demo-alice", max_retries=0))
            return demo, lambda **request: client.chat.completions.create(model="gpt-4o", messages=HELLO, **request)

        yield front


def upstream_that(answer):
    """An OpenAI-compatible server that gives `answer` to every chat."""
    app = FastAPI()

    @app.post("/ai/v1/chat/completions")
    async def chat(request: Request):
        return answer if isinstance(answer, Response) else answer(request)

    return app


def test_pass_through(serve, ask):
    """Answers and streams of the model come through as they are, its key included on the way there."""
    keys = []
    answer = {"id": "1", "object": "chat.completion", "model": "gpt-4o", "created": 1, "choices": [], "extra": "kept"}
    chunk = '{"id":"1","object":"chat.completion.chunk","created":1,"model":"gpt-4o","choices":[],"extra":"kept"}'

    def real(request):
        keys.append(request.headers["authorization"])
        if len(keys) == 1:
            return JSONResponse(answer)
        return StreamingResponse(iter([f": hello\n\ndata: {chunk}\n\n", "data: [DONE]\n\n"]))

    _, call = ask(serve(upstream_that(real)))

    assert call().model_extra == {"extra": "kept"}
    assert [chunk.model_extra for chunk in call(stream=True)] == [{"extra": "kept"}]
    assert keys == ["Bearer demo-carol"] * 2


@pytest.mark.parametrize("failure", ["mid-stream", "crash"])
def test_stream_that_fails_at_the_model(serve, ask, balance_of, failure):
    """Whether the model says that it failed or just breaks off, the customer hears of it and gets the credits back."""
    demo, call = ask(serve(word_delay=0.001))

    with pytest.raises(openai.APIError, match=r"failed in mid-stream|stopped in mid-answer"):
        list(call(stream=True, extra_body={"demo_fail": failure}))

    assert balance_of(demo, "demo-alice", until=50) == 50


def test_stream_that_ends_too_early(serve, ask, balance_of):
    """A stream without the final [DONE] is not a whole answer."""
    cut = StreamingResponse(iter(['data: {"choices":[]}\n\n']))
    demo, call = ask(serve(upstream_that(cut)))

    with pytest.raises(openai.APIError, match="ended too early"):
        list(call(stream=True))

    assert balance_of(demo, "demo-alice", until=50) == 50


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [
        (JSONResponse({"error": {"message": "Too long."}}, 400), 400, "Too long."),
        (PlainTextResponse("Slow down.", 429, {"Retry-After": "7"}), 429, "Too Many Requests"),
        (JSONResponse({"error": {"message": "Bad key sk-123."}}, 401), 502, "The model cannot be used right now."),
        (JSONResponse({"error": {"message": "Pay up."}}, 402), 502, "The model cannot be used right now."),
    ],
    ids=["400", "429", "401", "402"],
)
def test_refusals_of_the_model(serve, ask, balance_of, answer, status, message, stream):
    """What the customer did wrong is theirs to hear; what is between service and model is a 502. Both are free."""
    demo, call = ask(serve(upstream_that(answer)))

    with pytest.raises(openai.APIStatusError) as refused:
        call(stream=stream)

    assert refused.value.status_code == status
    assert refused.value.body["message"] == message
    assert refused.value.response.headers.get("retry-after") == answer.headers.get("retry-after")
    assert balance_of(demo, "demo-alice", until=50) == 50


@pytest.mark.parametrize("stream", [False, True])
def test_no_model_there(ask, balance_of, unused_port, stream):
    """A model that cannot be reached is a 502, and costs nothing."""
    demo, call = ask(f"http://127.0.0.1:{unused_port}")

    with pytest.raises(openai.InternalServerError, match="cannot be reached"):
        call(stream=stream)

    assert balance_of(demo, "demo-alice", until=50) == 50


def test_answer_that_is_no_json(serve, ask, balance_of):
    """A web page where an answer should be is a 502, and costs nothing."""
    demo, call = ask(serve(upstream_that(PlainTextResponse("<html>"))))

    with pytest.raises(openai.InternalServerError, match="not JSON"):
        call()

    assert balance_of(demo, "demo-alice", until=50) == 50


def test_hang_up(serve, ask, balance_of):
    """A customer who leaves in mid-stream has been served and pays; the model is stopped, not left running."""
    stopped = threading.Event()

    async def words():
        try:
            while True:
                yield 'data: {"choices":[]}\n\n'
                await asyncio.sleep(0.01)
        finally:
            stopped.set()

    demo, call = ask(serve(upstream_that(lambda _: StreamingResponse(words()))))
    stream = call(stream=True)
    next(iter(stream))
    stream.close()

    assert stopped.wait(60)
    time.sleep(0.3)  # longer than a refund takes
    assert balance_of(demo, "demo-alice") == 45


def test_stand_in_is_slow_enough_to_watch(serve):
    """The stand-in takes the time per word that it is told to take."""
    demo = serve(word_delay=0.05)
    answer = httpx.post(
        f"{demo}/ai/v1/chat/completions",
        headers={"Authorization": "Bearer demo-bob"},
        json={"model": "gpt-4o-mini", "messages": HELLO, "max_tokens": 4},
    )

    assert answer.elapsed.total_seconds() >= 0.2
