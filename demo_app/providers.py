"""The model behind the service: any OpenAI-compatible server, or a stand-in that needs nothing.

A provider answers in OpenAI's format. Whatever goes wrong there comes out as a `ProviderError`, before the first chunk
or after some.
"""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Literal, Protocol

import httpx
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["Failure", "ModelSettings", "OpenAICompatible", "Provider", "ProviderError", "StandIn", "provider_for"]

Failure = Literal["before-first-byte", "mid-stream", "crash", "rate-limit"]


class ModelSettings(BaseSettings):
    """Where the model is: `MODEL_BASE_URL`, such as `https://api.openai.com/v1`, and `MODEL_API_KEY`."""

    model_config = SettingsConfigDict(env_prefix="MODEL_", env_file=".env", extra="ignore", frozen=True)

    base_url: str | None = None
    """None is the built-in stand-in."""
    api_key: SecretStr = SecretStr("")
    timeout: float = Field(default=120.0, gt=0)
    """Seconds to wait for the next bytes of an answer."""
    word_delay: float = Field(default=0.03, ge=0)
    """Seconds that the stand-in takes for a word."""


class ProviderError(Exception):
    """The model could not answer.

    `status` is what the customer gets if nothing was sent yet, `body` the error in OpenAI's shape, which is what an
    OpenAI client expects both as an answer and as an event of a stream.
    """

    def __init__(self, status: int, message: str, *, code: str, retry_after: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": "provider_error", "param": None, "code": code}}
        self.headers = {"Retry-After": retry_after} if retry_after else {}


class Provider(Protocol):
    """A model that speaks OpenAI's chat format."""

    async def complete(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the whole answer, a `chat.completion`.

        Raises:
            ProviderError: There is none.
        """
        ...

    def stream(self, request: Mapping[str, Any]) -> AsyncGenerator[str, None]:
        """Yield the answer's `chat.completion.chunk` objects as JSON texts, without the final `[DONE]`.

        Raises:
            ProviderError: From the iteration, at any point of it.
        """
        ...


@asynccontextmanager
async def provider_for(settings: ModelSettings) -> AsyncIterator[Provider]:
    """Make the provider that `settings` ask for, with one pool of connections for the life of the service."""
    if settings.base_url is None:
        yield StandIn(word_delay=settings.word_delay)
        return
    headers = {"Authorization": f"Bearer {settings.api_key.get_secret_value()}"}
    async with httpx.AsyncClient(base_url=settings.base_url, headers=headers, timeout=settings.timeout) as http:
        yield OpenAICompatible(http)


class OpenAICompatible:
    """A server with OpenAI's API, reached through `http`, whose base URL ends where `/chat/completions` begins."""

    # What the customer did wrong. Anything else, such as a refused key, is between this service and its provider.
    _CUSTOMERS_OWN = frozenset({400, 404, 413, 422, 429})

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def complete(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """See `Provider.complete`."""
        try:
            response = await self._http.post("/chat/completions", json=request)
            self._raise_for_status(response)
            answer: dict[str, Any] = response.json()
        except httpx.HTTPError as error:
            raise _unreachable() from error
        except ValueError as error:
            raise ProviderError(502, "The model's answer is not JSON.", code="bad_answer") from error
        return answer

    async def stream(self, request: Mapping[str, Any]) -> AsyncGenerator[str, None]:
        """See `Provider.stream`."""
        try:
            async with self._http.stream("POST", "/chat/completions", json=request) as response:
                if response.is_error:
                    await response.aread()
                self._raise_for_status(response)
                async for line in response.aiter_lines():
                    if not line.startswith("data:"):
                        continue
                    data = line.removeprefix("data:").strip()
                    if data == "[DONE]":
                        return
                    if data.lstrip("{ ").startswith('"error"'):
                        raise ProviderError(502, _message(data) or "The model failed.", code="stream_failed")
                    yield data
        except httpx.HTTPError as error:
            raise _unreachable() from error
        raise ProviderError(502, "The model's answer ended too early.", code="stream_failed")

    def _raise_for_status(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        if response.status_code not in self._CUSTOMERS_OWN:
            raise ProviderError(502, "The model cannot be used right now.", code="provider_unavailable")
        raise ProviderError(
            response.status_code,
            _message(response.text) or HTTPStatus(response.status_code).phrase,
            code="provider_refused",
            retry_after=response.headers.get("retry-after"),
        )


def _unreachable() -> ProviderError:
    return ProviderError(502, "The model cannot be reached, or stopped in mid-answer.", code="provider_unreachable")


def _message(text: str) -> str | None:
    """Return the message of an error in OpenAI's shape, if `text` is one."""
    try:
        message = json.loads(text)["error"]["message"]
    except (ValueError, TypeError, KeyError):
        return None
    return message if isinstance(message, str) else None


class StandIn:
    """A model that says something about credits, word by word, and fails when the request's `demo_fail` asks for it.

    - `before-first-byte`: no answer at all; the customer gets a 502.
    - `rate-limit`: the provider's own 429, with Retry-After.
    - `mid-stream`: the provider fails after some words; the stream ends with an error event.
    - `crash`: a bug of this service after some words; the connection breaks without an explanation.

    One word counts as one token.
    """

    _TEXT = (
        "This answer is made up on the spot, and its credits were taken before the first word. "
        "Had it failed half-way, they would be back by now. "
        "Hang up, and they stay where they are, because the words were on their way to you. "
        "Nobody had to write any code for that in the route."
    )
    _WORDS_BEFORE_FAILURE = 8

    def __init__(self, *, word_delay: float) -> None:
        self._word_delay = word_delay

    async def complete(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """See `Provider.complete`."""
        words, finish_reason = self._answer(request)
        text = "".join([word async for word in self._speak(words, request.get("demo_fail"))])
        message = {"role": "assistant", "content": text}
        return {
            **_envelope("chat.completion", request),
            "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
            "usage": _usage(request, words),
        }

    async def stream(self, request: Mapping[str, Any]) -> AsyncGenerator[str, None]:
        """See `Provider.stream`."""
        words, finish_reason = self._answer(request)
        envelope = _envelope("chat.completion.chunk", request)
        include_usage = (request.get("stream_options") or {}).get("include_usage", False)
        if include_usage:
            envelope["usage"] = None

        def chunk(delta: dict[str, str], reason: str | None = None) -> str:
            return json.dumps({**envelope, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})

        role = {"role": "assistant"}
        async for word in self._speak(words, request.get("demo_fail")):
            yield chunk({**role, "content": word})
            role = {}
        yield chunk({}, finish_reason)
        if include_usage:
            yield json.dumps({**envelope, "choices": [], "usage": _usage(request, words)})

    def _answer(self, request: Mapping[str, Any]) -> tuple[list[str], str]:
        words = self._TEXT.split(" ")
        limit = request.get("max_completion_tokens") or request.get("max_tokens") or len(words)
        return words[:limit], "stop" if limit >= len(words) else "length"

    async def _speak(self, words: list[str], failure: Failure | None) -> AsyncGenerator[str, None]:
        if failure == "before-first-byte":
            raise ProviderError(502, "The model cannot be used right now.", code="provider_unavailable")
        if failure == "rate-limit":
            raise ProviderError(429, "The model has too much to do.", code="rate_limit_exceeded", retry_after="1")
        for number, word in enumerate(words):
            if failure is not None and number == self._WORDS_BEFORE_FAILURE:
                if failure == "crash":
                    raise RuntimeError("a bug in the service, because demo_fail asked for one")
                raise ProviderError(502, "The model failed in mid-stream.", code="stream_failed")
            await asyncio.sleep(self._word_delay)
            yield word if number == 0 else f" {word}"


def _envelope(kind: str, request: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": request["model"],
    }


def _usage(request: Mapping[str, Any], words: list[str]) -> dict[str, int]:
    prompt = sum(len(str(message.get("content", "")).split()) for message in request["messages"])
    return {"prompt_tokens": prompt, "completion_tokens": len(words), "total_tokens": prompt + len(words)}
