"""Providers that answer as OpenAI and Anthropic do, in the transport of the official clients."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anthropic
import httpx2
import openai

USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 40},
}
RESPONSES_USAGE = {
    "input_tokens": 100,
    "output_tokens": 20,
    "total_tokens": 120,
    "input_tokens_details": {"cached_tokens": 40},
    "output_tokens_details": {"reasoning_tokens": 0},
}
WORDS = [f"word {number} " for number in range(10)]


class Provider:
    """Answers every call with the same, and notes the bodies. `breaks` ends each stream after that many chunks."""

    def __init__(self, *, breaks: int | None = None, status: int = 200) -> None:
        self.breaks = breaks
        self.status = status
        self.bodies: list[dict[str, Any]] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)
        self.bodies.append(body)
        if self.status != 200:
            return httpx2.Response(self.status, json={"error": {"message": "no"}})
        kind = request.url.path.rsplit("/", 1)[-1]
        if not body.get("stream"):
            return httpx2.Response(200, json=getattr(self, f"{kind}_whole")(body))
        events = list(getattr(self, f"{kind}_events")(body))
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=_Stream(events, self.breaks))

    def completions_whole(self, body: Any) -> Any:
        message = {"role": "assistant", "content": "".join(WORDS)}
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": USAGE,
        }

    def completions_events(self, body: Any) -> Iterator[Any]:
        chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
        for word in WORDS:
            yield chunk | {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}
        if body.get("stream_options", {}).get("include_usage"):
            yield chunk | {"choices": [], "usage": USAGE}

    def responses_whole(self, body: Any, status: str = "completed") -> Any:
        return {
            "id": "resp_1",
            "object": "response",
            "created_at": 1,
            "model": body["model"],
            "status": status,
            "output": [],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": RESPONSES_USAGE if status == "completed" else None,
        }

    def responses_events(self, body: Any) -> Iterator[Any]:
        yield {"type": "response.created", "sequence_number": 0, "response": self.responses_whole(body, "in_progress")}
        for word in WORDS:
            yield {
                "type": "response.output_text.delta",
                "item_id": "msg_1",
                "output_index": 0,
                "content_index": 0,
                "delta": word,
                "sequence_number": 1,
                "logprobs": [],
            }
        yield {"type": "response.completed", "sequence_number": 2, "response": self.responses_whole(body)}

    def messages_whole(self, body: Any) -> Any:
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": [{"type": "text", "text": "".join(WORDS)}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 60, "cache_read_input_tokens": 40, "output_tokens": 20},
        }

    def messages_events(self, body: Any) -> Iterator[Any]:
        started = self.messages_whole(body) | {"content": [], "stop_reason": None}
        started["usage"] = started["usage"] | {"output_tokens": 1}
        yield {"type": "message_start", "message": started}
        yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        for word in WORDS:
            yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
        yield {"type": "content_block_stop", "index": 0}
        yield {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 20},
        }
        yield {"type": "message_stop"}

    def embeddings_whole(self, body: Any) -> Any:
        return {
            "object": "list",
            "model": body["model"],
            "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
            "usage": {"prompt_tokens": 100, "total_tokens": 100},
        }

    def moderations_whole(self, body: Any) -> Any:
        return {"id": "modr-1", "model": "omni", "results": []}


class _Stream(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    def __init__(self, events: list[Any], breaks: int | None) -> None:
        self._events = events
        self._breaks = breaks

    def __iter__(self) -> Iterator[bytes]:
        for number, event in enumerate(self._events):
            if number == self._breaks:
                raise httpx2.ReadError("the provider went away")
            named = f"event: {event['type']}\n" if "type" in event else ""
            yield f"{named}data: {json.dumps(event)}\n\n".encode()
        yield b"data: [DONE]\n\n"

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self:
            yield part


def openai_client(provider: Provider) -> openai.OpenAI:
    http = httpx2.Client(transport=httpx2.MockTransport(provider))
    return openai.OpenAI(api_key="key", base_url="http://provider/v1", http_client=http, max_retries=0)


def async_openai_client(provider: Provider) -> openai.AsyncOpenAI:
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(provider))
    return openai.AsyncOpenAI(api_key="key", base_url="http://provider/v1", http_client=http, max_retries=0)


def anthropic_client(provider: Provider) -> anthropic.Anthropic:
    http = httpx2.Client(transport=httpx2.MockTransport(provider))
    return anthropic.Anthropic(api_key="key", base_url="http://provider", http_client=http, max_retries=0)


def async_anthropic_client(provider: Provider) -> anthropic.AsyncAnthropic:
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(provider))
    return anthropic.AsyncAnthropic(api_key="key", base_url="http://provider", http_client=http, max_retries=0)
