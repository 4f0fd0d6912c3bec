"""Nothing secret leaves, and nothing that a caller sends gets them a call for free or somebody else's balance."""

import json
import logging
import traceback
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from fastapi import Request
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fastapi_autumn import Autumn, AutumnSettings, ModelCharge
from fastapi_autumn.errors import AutumnError
from service import Service, request_raw

KEY = "am_sk_test_thisMustNeverBeSeen"
SECRET = "thisMustNeverBeSeen"

ANSWERS = {
    "refused": httpx.ConnectError("refused"),
    "broken": httpx.RemoteProtocolError("dropped"),
    "late": httpx.ReadTimeout("late"),
    "wrong key": httpx.Response(
        401, json={"message": f"Invalid secret key: {KEY[:15]}****", "code": "invalid_secret_key"}
    ),
    "key echoed": httpx.Response(400, json={"message": f"what is {KEY}?", "code": "invalid_inputs"}),
    "500": httpx.Response(500, text=f"Traceback ... {KEY}"),
    "429": httpx.Response(429, text="slow down", headers={"retry-after": "9"}),
    "202": httpx.Response(202, json={"allowed": True, "balance": None}),
    "not JSON": httpx.Response(200, text=f"<html>{KEY}</html>"),
    "another shape": httpx.Response(200, json={"allowed": KEY}),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
@pytest.mark.parametrize("operation", ["customers.get_or_create", "balances.check", "balances.track"])
async def test_the_key_is_never_seen(tmp_path, caplog, answer, operation):
    """On every failure path the key is in no log, no answer, no error, no trace and no repr."""
    caplog.set_level(logging.DEBUG)

    def respond(request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == f"Bearer {KEY}"
        if request.url.path == f"/v1/{operation}":
            if isinstance(answer, Exception):
                raise answer
            return answer
        if request.url.path.endswith("check"):
            balance = {"feature_id": "f", "granted": 9, "remaining": 8, "usage": 1} | dict.fromkeys(
                ["unlimited", "overage_allowed"], False
            )
            return httpx.Response(200, json={"allowed": True, "customer_id": "ada", "balance": balance, "flag": None})
        return httpx.Response(200, json={"id": "ada", "customer_id": "ada", "value": 1})

    made = AutumnSettings(
        _env_file=None,
        secret_key=KEY,
        max_retries=1,
        shutdown_timeout=0.2,
        outbox_url=f"sqlite+aiosqlite:///{tmp_path}/outbox.db",
    )
    client = httpx.AsyncClient(transport=httpx.MockTransport(respond))
    service = Service(tmp_path)
    service.autumn = autumn = Autumn(made, prices={"large": 5}, http_client=client)
    service.app.user_middleware[0].kwargs["autumn"] = autumn

    @service.app.post("/ai/chat")
    async def chat(charge: ModelCharge) -> Any:
        raise ValueError("the model failed")

    seen: list[str] = [repr(made), str(made), repr(autumn), made.model_dump_json()]
    async with service.calling() as caller:
        response = await caller.post("/ai/chat", json={"model": "large"})
        seen += [response.text, str(response.headers), (await caller.get("/openapi.json")).text]
        try:
            await autumn.client.balances.check("ada", "ai_usage")
        except AutumnError as error:
            seen += [str(error), repr(error), *traceback.format_exception(error)]
        seen.append(repr(autumn.client))
        seen.append(repr(await autumn.outbox.store.list()))
    await client.aclose()
    seen.append(caplog.text)

    assert not [text for text in seen if SECRET in text]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.just("large"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.just("model"), inner, max_size=3)
    ),
    max_leaves=8,
)
TOKENS = st.sampled_from(['"model"', ":", "{", "}", ",", '"large"', '"\\u006dodel"', "[", "]", " ", "1"])
BODIES = st.one_of(
    JSON.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=60),
    st.lists(TOKENS, max_size=14).map(lambda tokens: "".join(tokens).encode()),
)
TYPES = st.sampled_from(["application/json", "text/plain", "", "application/json; charset=utf-8"])
PIECES = st.sampled_from(
    ["/", "ai", "chat", "%2F", "%61i", "..", ".", "//", "AI", "\\", ";", "%00", "%252F", "é", "?", "#"]
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    service = Service(tmp_path_factory.mktemp("fuzz"), prices=lambda _: "0.0000000001")

    @service.app.post("/ai/chat")
    async def chat(request: Request, charge: ModelCharge) -> Any:
        # What a handler reads for itself, with the parser that everybody uses.
        return [json.loads(await request.body())["model"], charge.model]

    with TestClient(service.app, headers={"x-user": "ada"}) as made:
        yield made


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(body=BODIES, content_type=TYPES)
def test_any_body_is_refused_or_charged_for_what_it_names(client, body, content_type):
    """Whatever the body, the answer is a refusal, or the handler's own reading names the model that was charged."""
    response = client.post("/ai/chat", content=body, headers={"content-type": content_type})

    assert response.status_code in {200, 422}
    if response.status_code == 200:
        own, charged = response.json()
        assert own == charged


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@example(path="ai/chat")
@example(path="ai%2Fchat")
@example(path="%61i/chat")
@given(path=st.lists(PIECES, max_size=7).map("".join))
def test_no_path_gets_around_the_gate(client, path):
    """However the path is spelled, the gated handler is reached only through a charge."""
    raw = partial(request_raw, client.app, unquote(f"/{path}"), body=b'{"model": "large"}')
    status, headers = client.portal.call(raw)

    assert status in {200, 404}
    assert (b"autumn-credits-charged" in headers) == (status == 200)
