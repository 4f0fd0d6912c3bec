"""The official `openai` client, unmodified, as a customer of the demo."""

import openai
import pytest
from openai import OpenAI

ALICE, BOB = "demo-alice", "demo-bob"
HELLO = [{"role": "user", "content": "Hello there"}]


@pytest.fixture
def client(demo):
    with OpenAI(base_url=f"{demo}/ai/v1", api_key=ALICE, max_retries=0) as client:
        yield client


def test_answer(client, demo, balance_of):
    """A plain call answers in OpenAI's types, counts tokens and costs what the price list says."""
    answer = client.chat.completions.create(model="gpt-4o", messages=HELLO)

    assert answer.choices[0].message.content.startswith("This answer is made up")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "gpt-4o"
    assert answer.usage.prompt_tokens == 2
    assert answer.usage.total_tokens == 2 + len(answer.choices[0].message.content.split())
    assert balance_of(demo, ALICE) == 45


def test_stream(client, demo, balance_of):
    """A streamed call arrives word by word, ends with the usage when asked, and costs the same."""
    stream = client.chat.completions.create(
        model="gpt-4o", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.startswith("This answer is made up")
    assert len(chunks) > 40
    assert [chunk.usage is None for chunk in chunks[-2:]] == [True, False]
    assert chunks[-1].usage.completion_tokens == len(text.split())
    assert balance_of(demo, ALICE) == 45


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_max_tokens(client, limit):
    """The answer is as short as the customer asked for, and says that it was cut."""
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, **{limit: 4})

    assert answer.choices[0].message.content == "This answer is made"
    assert answer.choices[0].finish_reason == "length"


def test_credit_headers(client):
    """What a call cost and what is left is in the headers, where the raw response has them."""
    raw = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=HELLO)

    assert raw.headers["autumn-credits-charged"] == "5"
    assert raw.headers["autumn-credits-remaining"] == "45"


def test_models(client, demo, balance_of):
    """The models on offer are those of the price list, and looking costs nothing."""
    assert [model.id for model in client.models.list()] == [
        "gpt-4o-mini",
        "gpt-4o",
        "claude-opus-4",
        "gpt-4.1",
        "claude-sonnet-4",
    ]
    assert balance_of(demo, ALICE) == 50


@pytest.mark.parametrize("stream", [False, True])
def test_payment_required(client, demo, balance_of, stream):
    """Out of credits is an APIStatusError with the balance, and the plans that would help, in its body."""
    client.chat.completions.create(model="claude-opus-4", messages=HELLO, max_tokens=1)

    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(model="claude-opus-4", messages=HELLO, stream=stream)

    assert refused.value.status_code == 402
    detail = refused.value.body["detail"]
    assert detail["code"] == "insufficient_credits"
    assert detail["required"] == 30
    assert (detail["balance"]["remaining"], detail["balance"]["granted"]) == (20, 50)
    assert [plan["id"] for plan in detail["plans"]] == ["pro", "credit_top_up"]
    assert balance_of(demo, ALICE) == 20


def test_payment_required_is_not_retried(demo):
    """The client repeats what may pass, such as a 429, but asks once when the credits are gone."""
    asked = []
    client = OpenAI(base_url=f"{demo}/ai/v1", api_key=BOB, max_retries=2)
    client._client.event_hooks["response"].append(asked.append)
    client.chat.completions.create(model="claude-opus-4", messages=HELLO, max_tokens=1)

    with pytest.raises(openai.APIStatusError):
        client.chat.completions.create(model="claude-opus-4", messages=HELLO)

    assert [response.status_code for response in asked] == [200, 402]
    client.close()


def test_stream_that_fails_is_refunded(client, demo, balance_of):
    """After some words the model fails: the client raises what the provider said, and the balance comes back."""
    words = []
    stream = client.chat.completions.create(
        model="gpt-4o", messages=HELLO, stream=True, extra_body={"demo_fail": "mid-stream"}
    )
    with pytest.raises(openai.APIError, match="failed in mid-stream") as failed:
        words.extend(chunk.choices[0].delta.content for chunk in stream)

    assert words[:3] == ["This", " answer", " is"]
    assert failed.value.code == "stream_failed"
    assert balance_of(demo, ALICE, until=50) == 50


def test_stream_that_crashes_is_refunded(client, demo, balance_of):
    """A bug in mid-stream breaks the connection, and the balance comes back all the same."""
    words = []
    stream = client.chat.completions.create(
        model="gpt-4o", messages=HELLO, stream=True, extra_body={"demo_fail": "crash"}
    )
    with pytest.raises(openai.APIConnectionError):
        words.extend(chunk.choices[0].delta.content for chunk in stream)

    assert len(words) == 8
    assert balance_of(demo, ALICE, until=50) == 50


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("failure", "error", "status"),
    [("before-first-byte", openai.InternalServerError, 502), ("rate-limit", openai.RateLimitError, 429)],
)
def test_refusal_of_the_provider_is_refunded(client, demo, balance_of, failure, error, status, stream):
    """What fails before the first byte has its own status and OpenAI's error, names no credits and costs none."""
    with pytest.raises(error) as failed:
        client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=stream, extra_body={"demo_fail": failure})

    assert failed.value.status_code == status
    assert failed.value.body["type"] == "provider_error"
    assert "autumn-credits-charged" not in failed.value.response.headers
    assert balance_of(demo, ALICE, until=50) == 50


def test_nobody(demo):
    """A token that nobody has is the client's AuthenticationError."""
    mallory = OpenAI(base_url=f"{demo}/ai/v1", api_key="demo-mallory", max_retries=0)
    with mallory, pytest.raises(openai.AuthenticationError) as refused:
        mallory.chat.completions.create(model="gpt-4o", messages=HELLO)

    assert refused.value.body["detail"]["code"] == "not_authenticated"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"model": "gpt-99", "messages": HELLO}, 400),
        ({"model": "gpt-4o", "messages": []}, 422),
        ({"model": "gpt-4o", "messages": HELLO, "n": 5}, 422),
        ({"model": "gpt-4o", "messages": HELLO, "max_tokens": 0}, 422),
    ],
)
def test_bad_requests_cost_nothing(client, demo, balance_of, request_, status):
    """A request that cannot be served is refused and costs nothing, also when its price was taken first."""
    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(**request_)

    assert refused.value.status_code == status
    assert balance_of(demo, ALICE, until=50) == 50


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_is_priced_by_tokens(client, demo, balance_of, stream):
    """It costs what it used: a hundredth of a credit for each of two words read, a twentieth for each of 41 written."""
    answer = client.chat.completions.create(model="gpt-4.1", messages=HELLO, stream=stream)
    if stream:
        chunks = list(answer)
        assert not any(chunk.usage for chunk in chunks)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    else:
        text = answer.choices[0].message.content

    left = round(50 - 0.02 - 0.05 * len(text.split()), 2)
    assert balance_of(demo, ALICE, until=left) == left
