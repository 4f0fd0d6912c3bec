"""Reading the usage that providers report, each in its own words.

Providers differ in what they count inside what. For OpenAI, Gemini and OpenTelemetry, cached tokens are part of the
input; for Anthropic and Bedrock they are not. For Gemini, reasoning is not part of the output; for the others it is.
`Counts` has each token once.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi_autumn.errors import AmountError, UnknownUsage
from fastapi_autumn.pricing import Counts

__all__ = ["counts_of", "response_id_of"]

_CONTAINERS = ("usage", "usage_metadata", "usageMetadata")
_ENVELOPES = ("response", "message")
"""Where events of a stream have the response that they are about."""
_KINDS = frozenset(Counts.__dataclass_fields__)
_OTEL = "gen_ai.usage."


def counts_of(usage: Any) -> Counts:
    """Read a provider's usage: an object or a mapping, or the response or the event of a stream that has one.

    Known are OpenAI (chat, responses, images, transcriptions), Anthropic, Gemini, Bedrock, LiteLLM, LangChain,
    PydanticAI, the attributes `gen_ai.usage.*` of OpenTelemetry, and mappings with the names of `Counts`.

    Raises:
        UnknownUsage: No counts can be found in it, or what is there cannot be a count.
    """
    try:
        for part in _places(usage):
            for read in _READERS:
                counts = read(part)
                if counts is not None:
                    return counts
    except AmountError as error:
        raise UnknownUsage(f"a provider's usage cannot be read: {error}") from None
    raise UnknownUsage(
        f"a value of type {type(usage).__name__} has no usage in it: pass the provider's usage object, the response "
        "that has it, or counts by kind, such as input=12, output=34"
    )


def response_id_of(usage: Any) -> str | None:
    """Return the id of the response that `usage` is of or came with, where it has one."""
    for name in _ENVELOPES:
        inner = _get(usage, name)
        if inner is not None and not isinstance(inner, str) and (found := response_id_of(inner)) is not None:
            return found
    for name in ("id", "response_id", "responseId"):
        found = _get(usage, name)
        if isinstance(found, str) and found:
            return found
    return None


def _places(usage: Any) -> Iterator[Any]:
    """Go through where counts may be, the usage itself first."""
    if usage is None or isinstance(usage, str | int | float):
        return
    yield usage
    for outer in (usage, *(_get(usage, name) for name in _ENVELOPES)):
        for name in _CONTAINERS:
            place = _get(outer, name)
            if place is not None and not isinstance(place, str | int | float):
                yield place
    attributes = _get(usage, "attributes")
    if attributes is not None:
        yield attributes


def _get(place: Any, name: str) -> Any:
    if place is None:
        return None
    if type(place) is dict:
        # Before the check of an abstract class, which takes longer than all the rest.
        return place.get(name)
    if isinstance(place, Mapping):
        return place.get(name)
    return getattr(place, name, None)


def _count(place: Any, *names: str) -> int | None:
    """Return the first of these fields that is there and not null."""
    if place is None:
        return None
    for name in names:
        value = _get(place, name)
        if type(value) is int and value >= 0:
            return value
        if value is None or callable(value):
            continue
        if isinstance(value, float) and value.is_integer():
            # LiteLLM and JSON of other languages have whole floats.
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise AmountError(f"{name} is not a whole number")
        if value < 0:
            raise AmountError(f"{name} is negative")
        return value
    return None


def _own(usage: Any) -> Counts | None:
    if isinstance(usage, Counts):
        return usage
    if isinstance(usage, dict | Mapping) and usage and _KINDS.issuperset(usage):
        return Counts(**{str(kind): 0 if value is None else value for kind, value in usage.items()})
    return None


def _otel(usage: Any) -> Counts | None:
    if not isinstance(usage, dict | Mapping):
        return None
    read = _count(usage, f"{_OTEL}input_tokens", f"{_OTEL}prompt_tokens")
    written = _count(usage, f"{_OTEL}output_tokens", f"{_OTEL}completion_tokens")
    if read is None and written is None:
        return None
    return _inclusive(
        read,
        written,
        cached=_count(usage, f"{_OTEL}cache_read.input_tokens", f"{_OTEL}details.cache_read_tokens"),
        cache_write=_count(usage, f"{_OTEL}cache_creation.input_tokens", f"{_OTEL}details.cache_write_tokens"),
        reasoning=_count(usage, f"{_OTEL}reasoning.output_tokens", f"{_OTEL}details.reasoning_tokens"),
    )


def _chat(usage: Any) -> Counts | None:
    """OpenAI's chat, and all who speak it: LiteLLM counts for every provider as OpenAI does."""
    read, written = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    if read is None and written is None:
        return None
    of_input, of_output = _get(usage, "prompt_tokens_details"), _get(usage, "completion_tokens_details")
    reasoning = _count(of_output, "reasoning_tokens")
    total = _count(usage, "total_tokens")
    if reasoning and total is not None and total >= (read or 0) + (written or 0) + reasoning:
        # xAI counts reasoning beside the completion.
        written = (written or 0) + reasoning
    cached = _count(of_input, "cached_tokens")
    return _inclusive(
        read,
        written,
        cached=_count(usage, "cache_read_input_tokens", "prompt_cache_hit_tokens") if cached is None else cached,
        cache_write=_count(of_input, "cache_creation_tokens", "cache_write_tokens")
        or _count(usage, "cache_creation_input_tokens"),
        audio_input=_count(of_input, "audio_tokens"),
        reasoning=reasoning,
        audio_output=_count(of_output, "audio_tokens"),
    )


def _gemini(usage: Any) -> Counts | None:
    read = _count(usage, "prompt_token_count", "promptTokenCount")
    written = _count(usage, "candidates_token_count", "candidatesTokenCount", "response_token_count")
    if read is None and written is None:
        return None
    of_tools = _count(usage, "tool_use_prompt_token_count", "toolUsePromptTokenCount") or 0
    thoughts = _count(usage, "thoughts_token_count", "thoughtsTokenCount") or 0
    return _inclusive(
        (read or 0) + of_tools,
        (written or 0) + thoughts,
        cached=_count(usage, "cached_content_token_count", "cachedContentTokenCount"),
        audio_input=_audio(_get(usage, "prompt_tokens_details") or _get(usage, "promptTokensDetails")),
        reasoning=thoughts,
        audio_output=_audio(_get(usage, "candidates_tokens_details") or _get(usage, "candidatesTokensDetails")),
    )


def _audio(details: Any) -> int | None:
    if not isinstance(details, list | tuple):
        return None
    modality = [str(getattr(_get(one, "modality"), "value", _get(one, "modality"))).upper() for one in details]
    counted = [
        _count(one, "token_count", "tokenCount") or 0
        for one, which in zip(details, modality, strict=True)
        if which == "AUDIO"
    ]
    return sum(counted)


def _bedrock(usage: Any) -> Counts | None:
    read, written = _count(usage, "inputTokens"), _count(usage, "outputTokens")
    if read is None and written is None:
        return None
    return Counts(
        input=read or 0,
        cached=_count(usage, "cacheReadInputTokens") or 0,
        cache_write=_count(usage, "cacheWriteInputTokens") or 0,
        output=written or 0,
    )


def _input_output(usage: Any) -> Counts | None:
    """Who counts `input_tokens` and `output_tokens`. Only Anthropic's do not include what was cached."""
    read, written = _count(usage, "input_tokens"), _count(usage, "output_tokens")
    if read is None and written is None:
        return None
    cached = _count(usage, "cache_read_input_tokens")
    cache_write = _count(usage, "cache_creation_input_tokens")
    if cached is not None or cache_write is not None:
        reasoning = _count(_get(usage, "output_tokens_details"), "thinking_tokens", "reasoning_tokens")
        return _inclusive(
            (read or 0) + (cached or 0) + (cache_write or 0),
            written,
            cached=cached,
            cache_write=cache_write,
            reasoning=reasoning,
        )
    of_input = _get(usage, "input_tokens_details") or _get(usage, "input_token_details")
    of_output = _get(usage, "output_tokens_details") or _get(usage, "output_token_details")
    details = _get(usage, "details")
    return _inclusive(
        read,
        written,
        cached=_first(_count(of_input, "cached_tokens", "cache_read"), _count(usage, "cache_read_tokens")),
        cache_write=_first(
            _count(of_input, "cache_creation", "cache_write_tokens", "cache_creation_tokens"),
            _count(usage, "cache_write_tokens"),
        ),
        audio_input=_first(_count(of_input, "audio", "audio_tokens"), _count(usage, "input_audio_tokens")),
        reasoning=_first(_count(of_output, "reasoning_tokens", "reasoning"), _count(details, "reasoning_tokens")),
        audio_output=_first(_count(of_output, "audio", "audio_tokens"), _count(usage, "output_audio_tokens")),
    )


def _duration(usage: Any) -> Counts | None:
    """OpenAI's transcriptions by the second."""
    seconds = _get(usage, "seconds") if _get(usage, "type") == "duration" else None
    return None if seconds is None else Counts(seconds=seconds)


def _first(*counts: int | None) -> int | None:
    return next((count for count in counts if count is not None), None)


def _inclusive(
    read: int | None,
    written: int | None,
    *,
    cached: int | None = None,
    cache_write: int | None = None,
    audio_input: int | None = None,
    reasoning: int | None = None,
    audio_output: int | None = None,
) -> Counts:
    """Take the parts out of totals that include them."""
    parts_read = (cached or 0) + (cache_write or 0) + (audio_input or 0)
    parts_written = (reasoning or 0) + (audio_output or 0)
    return Counts(
        # A cached token that is sound is in two of the parts; then the total is the smaller one.
        input=max(0, (read or 0) - parts_read),
        cached=cached or 0,
        cache_write=cache_write or 0,
        audio_input=audio_input or 0,
        output=max(0, (written or 0) - parts_written),
        reasoning=reasoning or 0,
        audio_output=audio_output or 0,
    )


_READERS = (_own, _chat, _otel, _gemini, _bedrock, _input_output, _duration)
"""OpenAI's chat early, because nearly everybody speaks it."""
