"""Refusals in the words of the caller's client: that client is the real one, and calls over a socket."""

from typing import Annotated

import anthropic
import openai
import pytest
from fastapi import Depends
from fastapi.middleware.cors import CORSMiddleware
from starlette.middleware import Middleware
from starlette.responses import JSONResponse

from fastapi_autumn import AutumnMiddleware, Charge, CreditGate, ModelCharge
from fastapi_autumn.emulator import Fault
from fastapi_autumn.errors import ConfigurationError
from service import Service

HI = [{"role": "user", "content": "Hi"}]


def speaking(service, dialect, **gate):
    """The service with a dialect, and a route that speaks as far as the refusals need it."""
    service.autumn.refusals = dialect
    service.runs = 0

    async def answer(charge: Annotated[Charge, Depends(CreditGate(**gate))]) -> str:
        service.runs += 1
        return charge.model

    service.app.post("/ai/v1/chat/completions")(answer)
    service.app.post("/ai/v1/messages")(answer)
    return service


@pytest.fixture
def service(tmp_path):
    # The middleware reads `x-user`, and the official clients can send it.
    return Service(tmp_path, prices={"small": 1, "large": 5, "dear": 500}, max_body_bytes=400)


def openai_at(client, user="ada", retries=0):
    return openai.AsyncOpenAI(
        base_url=f"{client.base_url}/ai/v1", api_key="key", default_headers={"x-user": user}, max_retries=retries
    )


async def refused(client, **call):
    with pytest.raises(openai.APIStatusError) as caught:
        await client.chat.completions.create(**{"model": "small", "messages": HI} | call)
    return caught.value


async def test_openais_client_raises_its_own_exceptions_with_the_balance(service):
    """Each refusal arrives as the exception of the official client, with its code, and a 402 with the balance."""
    speaking(service, "openai")
    async with service.serving() as client, openai_at(client) as ada, openai_at(client, user="") as nobody:
        paid = await refused(ada, model="dear")
        assert (type(paid), paid.status_code, paid.type) == (openai.APIStatusError, 402, "insufficient_quota")
        assert paid.code == "insufficient_credits"
        assert "The balance does not cover this call." in paid.message
        assert (paid.body["balance"]["remaining"], paid.body["required"]) == (50, 500)

        unknown = await refused(ada, model="nonsense")
        assert (type(unknown), unknown.code, unknown.param) == (openai.BadRequestError, "unknown_model", "model")
        unidentified = await refused(nobody)
        assert (type(unidentified), unidentified.code) == (openai.AuthenticationError, "not_authenticated")
        large = await refused(ada, messages=[{"role": "user", "content": "x" * 500}])
        assert (large.status_code, large.code) == (413, "body_too_large")
        invalid = await refused(ada, model=["small"])
        assert (type(invalid), invalid.code) == (openai.UnprocessableEntityError, "invalid_model")
        assert invalid.param == "body.model"
    assert service.runs == 0


async def test_openais_client_repeats_an_outage_and_not_a_402(service):
    """A 503 is tried again after its `Retry-After`; a 402 is asked once, however many retries are allowed."""
    speaking(service, "openai")
    asked = []
    service.app.middleware("http")(lambda request, call_next: asked.append(1) or call_next(request))
    async with service.serving() as client, openai_at(client, retries=2) as ada:
        assert (await refused(ada, model="dear")).status_code == 402
        assert len(asked) == 1

        asked.clear()
        service.emulator.faults.add("balances.check", Fault(kind="unverified", times=1))
        assert await ada.chat.completions.create(model="small", messages=HI) == "small"
        assert len(asked) == 2


async def test_403_and_409_and_422_of_a_key_and_a_plan(service):
    """A plan that does not include the call, and a key that was answered or is another request's."""
    speaking(service, "openai")
    OnPro = Annotated[Charge, Depends(CreditGate(plans=["pro"]))]  # noqa: N806 - a type

    @service.app.post("/ai/pro")
    async def pro(charge: OnPro) -> str:
        return charge.model

    async with service.calling() as client:
        entitled = await client.post("/ai/pro", json={"model": "small"})
        assert (entitled.status_code, entitled.json()["error"]["type"]) == (403, "permission_error")
        key = {"Idempotency-Key": "one"}
        assert (await client.post("/ai/v1/messages", json={"model": "small"}, headers=key)).status_code == 200
        again = await client.post("/ai/v1/messages", json={"model": "small"}, headers=key)
        assert (again.status_code, again.json()["error"]["code"]) == (409, "already_answered")
        assert again.headers["x-should-retry"] == "false"
        other = await client.post("/ai/v1/messages", json={"model": "large"}, headers=key)
        assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")


async def test_anthropics_client_raises_its_own_exceptions(service):
    """The same for Anthropic's client, whose body is the whole error."""
    speaking(service, "anthropic")
    async with (
        service.serving() as client,
        anthropic.AsyncAnthropic(
            base_url=f"{client.base_url}/ai", api_key="key", default_headers={"x-user": "ada"}, max_retries=0
        ) as ada,
    ):
        with pytest.raises(anthropic.APIStatusError) as paid:
            await ada.messages.create(model="dear", max_tokens=5, messages=HI)
        assert paid.value.status_code == 402
        assert paid.value.body["error"]["type"] == "billing_error"
        assert paid.value.body["error"]["balance"]["remaining"] == 50
        with pytest.raises(anthropic.BadRequestError):
            await ada.messages.create(model="nonsense", max_tokens=5, messages=HI)


async def test_a_gate_and_a_function_word_their_own(service):
    """A gate's dialect goes before the middleware's, and a function sees status, code, message and detail."""
    told = []

    def own(refusal):
        told.append(refusal)
        return {"oops": refusal.code}

    speaking(service, "openai", refusals=own)

    @service.app.post("/ai/other")
    async def other(charge: ModelCharge) -> str:
        return charge.model

    async with service.calling() as client:
        response = await client.post("/ai/v1/messages", json={"model": "dear"})
        assert (response.status_code, response.json()) == (402, {"oops": "insufficient_credits"})
        assert (told[0].status, told[0].detail["required"]) == (402, 500)
        response = await client.post("/ai/other", json={"model": "dear"})
        assert response.json()["error"]["code"] == "insufficient_credits"


async def test_what_others_add_to_a_refusal_stays(service):
    """The headers of a middleware inside are kept: without those of CORS no page could read the balance."""
    speaking(service, "openai")
    # Inside of the middleware that words the refusal, which is the one that was added last.
    service.app.user_middleware.append(Middleware(CORSMiddleware, allow_origins=["*"]))
    async with service.calling() as client:
        response = await client.post("/ai/v1/messages", json={"model": "dear"}, headers={"origin": "https://a.example"})
        assert response.headers["access-control-allow-origin"] == "*"
        assert response.json()["error"]["code"] == "insufficient_credits"
        assert int(response.headers["content-length"]) == len(response.content)


async def test_another_answer_of_the_applications_stays(service):
    """An application that makes something else of a refusal, and of what is no refusal of a gate, is left alone."""
    speaking(service, "openai")

    @service.app.exception_handler(402)
    async def sell(request, error):
        assert error.detail["code"] == "insufficient_credits"
        return JSONResponse("buy some")

    async with service.calling() as client:
        response = await client.post("/ai/v1/messages", json={"model": "dear"})
        assert (response.status_code, response.text) == (200, '"buy some"')
        assert (await client.post("/ai/nowhere")).json() == {"detail": "Not Found"}


def test_a_dialect_that_there_is_not_is_refused_at_start(service):
    """A misspelt name is not found out by a customer."""
    with pytest.raises(ConfigurationError, match="'opnai' is none of 'openai', 'anthropic'"):
        AutumnMiddleware(service.app, autumn=service.autumn, refusals="opnai")
    with pytest.raises(ConfigurationError, match="opnai"):
        CreditGate(refusals="opnai")


async def test_the_document_does_not_promise_another_shape(service):
    """With a dialect, the refusals are in the OpenAPI document without FastAPI's shape."""
    speaking(service, "openai")
    async with service.calling() as client:
        await client.post("/ai/v1/messages", json={"model": "small"})
        document = (await client.get("/openapi.json")).json()
    told = document["paths"]["/ai/v1/messages"]["post"]["responses"]["402"]
    assert told["content"] == {"application/json": {}}
    assert "InsufficientCreditsRefusal" not in str(document)
