"""The metered route: OpenAI's chat API, at a price per call or by tokens.

`charge: ModelCharge` is all the billing there is: the credits are taken before the handler runs, and given back when it
fails. Two things are said by hand: a failure that HTTP does not show, and what a call used, for models whose price
depends on that.
"""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from demo_app.providers import Failure, Provider, ProviderError
from fastapi_autumn import Charge, ModelCharge, ModelPrices

__all__ = ["chat_router", "provider_failed", "shown_code"]


class ChatRequest(BaseModel):
    """OpenAI's `chat.completions` request. What is not listed here is passed on to the model as it is."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None
    n: Literal[1] = 1
    """More answers for the price of one are not on offer."""
    demo_fail: Failure | None = None
    """Only for the stand-in: how this call is to fail."""


def get_provider(request: Request) -> Provider:
    """Return the model that the lifespan has set up."""
    provider: Provider = request.state.provider
    return provider


def chat_router(prices: ModelPrices) -> APIRouter:
    """Make the routes; `prices` are the models on offer."""
    router = APIRouter(prefix="/ai/v1", tags=["chat"])

    @router.get("/models")
    async def list_models() -> dict[str, Any]:
        """The models that can be called, in OpenAI's format; costs nothing."""
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "demo"} for name in prices]
        return {"object": "list", "data": models}

    @router.post("/chat/completions", response_model=None)
    async def create_chat_completion(
        body: ChatRequest, charge: ModelCharge, provider: Annotated[Provider, Depends(get_provider)]
    ) -> Response:
        """Answer a chat, at once or as a stream of server-sent events."""
        request = {**body.model_dump(exclude_unset=True), "model": charge.model}
        if not body.stream:
            answer = await provider.complete(request)
            charge.used(answer.get("usage"), response_id=answer.get("id"))
            return JSONResponse(answer)
        request["stream_options"] = {**(body.stream_options or {}), "include_usage": True}
        chunks = provider.stream(request)
        # Waiting for the first chunk lets a refusal be what it is, an HTTP status, which also gives the credits back.
        first = await anext(chunks)
        asked = bool((body.stream_options or {}).get("include_usage"))
        return StreamingResponse(_events(first, chunks, charge, shows_usage=asked), media_type="text/event-stream")

    return router


def shown_code(router: APIRouter) -> list[Any]:
    """Return the functions that answer a chat, for people who want to see how little billing there is in them."""
    (route,) = (one for one in router.routes if getattr(one, "name", "") == "create_chat_completion")
    return [route.endpoint, _events]  # type: ignore[attr-defined]


async def _events(
    first: str, rest: AsyncGenerator[str, None], charge: Charge, *, shows_usage: bool
) -> AsyncGenerator[str, None]:
    async with aclosing(rest):
        try:
            yield f"data: {first}\n\n"
            async for chunk in rest:
                if _reports_usage(chunk, charge) and not shows_usage:
                    continue
                yield f"data: {chunk}\n\n"
        except ProviderError as error:
            # The customer's client has seen a 200, and will see a complete body: only this line knows better.
            charge.refund(str(error))
            yield f"data: {json.dumps(error.body)}\n\n"
            return
    yield "data: [DONE]\n\n"


def _reports_usage(chunk: str, charge: Charge) -> bool:
    """Tell the charge what a chunk says about its use; whether that is all that the chunk is for."""
    said = json.loads(chunk)
    charge.used(said.get("usage"), response_id=said.get("id"))
    for choice in said["choices"]:
        charge.passed((choice.get("delta") or {}).get("content") or "", response_id=said.get("id"))
    return not said["choices"]


async def provider_failed(_request: Request, error: Exception) -> Response:
    """Answer a `ProviderError` the way OpenAI would; a status of 400 or more gives the credits back."""
    assert isinstance(error, ProviderError)  # noqa: S101 - Starlette types every handler for Exception
    return JSONResponse(error.body, error.status, headers=error.headers)
