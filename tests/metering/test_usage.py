"""Reading the usage that providers report, in the shapes that they document and send."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionChunk
from openai.types.completion_usage import CompletionTokensDetails, CompletionUsage, PromptTokensDetails
from openai.types.responses import Response
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails, ResponseUsage

from fastapi_autumn.errors import UnknownUsage
from fastapi_autumn.metering import Counts, Meter, counts_of, response_id_of
from fastapi_autumn.pricing import tokens

CHAT = {
    "prompt_tokens": 2006,
    "completion_tokens": 300,
    "total_tokens": 2306,
    "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 192, "audio_tokens": 8, "accepted_prediction_tokens": 0},
}
READ = Counts(input=86, cached=1920, output=100, reasoning=192, audio_output=8)


def as_object(value):
    """The same as the objects of client libraries have it."""
    if isinstance(value, dict):
        return SimpleNamespace(**{name: as_object(inner) for name, inner in value.items()})
    return [as_object(inner) for inner in value] if isinstance(value, list) else value


SHAPES = {
    "openai chat": (CHAT, READ),
    "openai chat without details": (
        {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21, "prompt_tokens_details": None},
        Counts(input=9, output=12),
    ),
    "openai responses": (
        {
            "input_tokens": 328,
            "input_tokens_details": {"cached_tokens": 100},
            "output_tokens": 52,
            "output_tokens_details": {"reasoning_tokens": 40},
            "total_tokens": 380,
        },
        Counts(input=228, cached=100, output=12, reasoning=40),
    ),
    "openai transcription by the second": ({"type": "duration", "seconds": 12.5}, Counts(seconds=12.5)),
    "openai transcription by tokens": (
        {
            "type": "tokens",
            "input_tokens": 14,
            "input_token_details": {"text_tokens": 4, "audio_tokens": 10},
            "output_tokens": 45,
            "total_tokens": 59,
        },
        Counts(input=4, audio_input=10, output=45),
    ),
    "xai counts reasoning beside": (
        {
            "prompt_tokens": 32,
            "completion_tokens": 9,
            "total_tokens": 135,
            "completion_tokens_details": {"reasoning_tokens": 94},
        },
        Counts(input=32, output=9, reasoning=94),
    ),
    "deepseek": (
        {"prompt_tokens": 100, "completion_tokens": 5, "prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36},
        Counts(input=36, cached=64, output=5),
    ),
    "anthropic": (
        {
            "input_tokens": 21,
            "cache_creation_input_tokens": 188_086,
            "cache_read_input_tokens": 1000,
            "output_tokens": 393,
            "service_tier": "standard",
        },
        Counts(input=21, cached=1000, cache_write=188_086, output=393),
    ),
    "anthropic message_delta": ({"output_tokens": 15}, Counts(output=15)),
    "litellm of anthropic": (
        {
            "prompt_tokens": 189_107,
            "completion_tokens": 393,
            "total_tokens": 189_500,
            "prompt_tokens_details": {"cached_tokens": 1000, "cache_creation_tokens": 188_086},
            "cache_creation_input_tokens": 188_086,
            "cache_read_input_tokens": 1000,
        },
        Counts(input=21, cached=1000, cache_write=188_086, output=393),
    ),
    "gemini": (
        {
            "promptTokenCount": 1500,
            "cachedContentTokenCount": 1000,
            "candidatesTokenCount": 40,
            "thoughtsTokenCount": 300,
            "toolUsePromptTokenCount": 20,
            "totalTokenCount": 1860,
            "promptTokensDetails": [
                {"modality": "TEXT", "tokenCount": 1400},
                {"modality": "AUDIO", "tokenCount": 100},
            ],
        },
        Counts(input=420, cached=1000, audio_input=100, output=40, reasoning=300),
    ),
    "google-genai": (
        {"prompt_token_count": 10, "candidates_token_count": 4, "thoughts_token_count": None},
        Counts(input=10, output=4),
    ),
    "bedrock": (
        {"inputTokens": 30, "outputTokens": 628, "totalTokens": 658, "cacheReadInputTokens": 5},
        Counts(input=30, cached=5, output=628),
    ),
    "langchain": (
        {
            "input_tokens": 350,
            "output_tokens": 240,
            "total_tokens": 590,
            "input_token_details": {"audio": 10, "cache_creation": 200, "cache_read": 100},
            "output_token_details": {"audio": 10, "reasoning": 200},
        },
        Counts(input=40, cached=100, cache_write=200, audio_input=10, output=30, reasoning=200, audio_output=10),
    ),
    "pydantic-ai": (
        {
            "input_tokens": 100,
            "cache_read_tokens": 60,
            "cache_write_tokens": 0,
            "output_tokens": 20,
            "input_audio_tokens": 0,
            "output_audio_tokens": 0,
            "details": {"reasoning_tokens": 5},
        },
        Counts(input=40, cached=60, output=15, reasoning=5),
    ),
}


@pytest.mark.parametrize("form", [lambda usage: usage, as_object], ids=["mapping", "object"])
@pytest.mark.parametrize(("usage", "counts"), SHAPES.values(), ids=SHAPES)
def test_each_provider_in_its_own_words(usage, counts, form):
    """Each token once, whatever a provider counts inside what, from mappings and from objects."""
    assert counts_of(form(usage)) == counts


def test_attributes_of_opentelemetry():
    """By the names of the conventions, where what was cached is part of the input; also on a span."""
    attributes = {
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.cache_read.input_tokens": 60,
        "gen_ai.usage.cache_creation.input_tokens": 10,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.request.model": "gpt-4o",
    }
    read = Counts(input=30, cached=60, cache_write=10, output=20)
    assert counts_of(attributes) == counts_of(SimpleNamespace(attributes=attributes)) == read


def test_objects_of_the_official_client():
    """The classes of the package `openai`, by themselves and in the response and the chunk that carry them."""
    usage = CompletionUsage(
        prompt_tokens=2006,
        completion_tokens=300,
        total_tokens=2306,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=1920),
        completion_tokens_details=CompletionTokensDetails(reasoning_tokens=192, audio_tokens=8),
    )
    chunk = ChatCompletionChunk(
        id="chatcmpl-1", choices=[], created=1, model="gpt-4o", object="chat.completion.chunk", usage=usage
    )
    assert counts_of(usage) == counts_of(chunk) == READ
    assert (response_id_of(usage), response_id_of(chunk)) == (None, "chatcmpl-1")
    used = ResponseUsage.model_construct(
        input_tokens=10,
        input_tokens_details=InputTokensDetails.model_construct(cached_tokens=4),
        output_tokens=5,
        output_tokens_details=OutputTokensDetails.model_construct(reasoning_tokens=2),
        total_tokens=15,
    )
    completed = SimpleNamespace(type="response.completed", response=Response.model_construct(id="resp_1", usage=used))
    assert counts_of(completed) == Counts(input=6, cached=4, output=3, reasoning=2)
    assert response_id_of(completed) == "resp_1"


def test_events_of_a_stream_of_anthropics():
    """What was read comes at the beginning, what was written grows, and both are one response."""
    meter = Meter(tokens(input=1, output=1, per=1))
    begins = {"type": "message_start", "message": {"id": "msg_1", "usage": {"input_tokens": 25, "output_tokens": 1}}}
    meter.report(counts_of(begins), response_id_of(begins))
    for written in (10, 15):
        delta = {"type": "message_delta", "usage": {"output_tokens": written}}
        meter.report(counts_of(delta), "msg_1")
    assert meter.read().counts == Counts(input=25, output=15)


@pytest.mark.parametrize(
    "usage",
    [
        {},
        [],
        "many",
        7,
        pytest.param(object(), id="an object"),
        {"usage": None},
        {"prompt_tokens": -1},
        {"prompt_tokens": "7"},
        {"input_tokens": 1.5},
        {"input_tokens": True},
        {"input": 5, "words": 7},
    ],
    ids=repr,
)
def test_what_has_no_usage_in_it(usage):
    """It is an error of the application's: guessing would give credits away, or invent them."""
    with pytest.raises(UnknownUsage):
        counts_of(usage)


def test_counts_by_kind():
    """A mapping with the names of `Counts`, and `Counts` themselves."""
    assert counts_of({"input": 5, "output": None}) == counts_of(Counts(input=5)) == Counts(input=5)


REPORTS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=8)


@given(REPORTS, st.randoms())
def test_reports_in_any_order(reports, shuffle):
    """The order of reports, and reports that come twice, change nothing: of each response the fullest holds."""
    again = [*reports, *reports]
    shuffle.shuffle(again)
    read = []
    for order in (reports, again):
        meter = Meter(tokens(input=1, output=1, per=1))
        for response, written, reads in order:
            meter.report(Counts(input=reads, output=written), response)
        read.append(meter.read().cost)
    fullest = sum(
        max(reads for one, _, reads in reports if one == response)
        + max(written for one, written, _ in reports if one == response)
        for response in {one for one, _, _ in reports}
    )
    assert read == [fullest, fullest]


def test_more_detail_replaces_less():
    """A report with the same total and more detail is the better one, whichever comes first."""
    plain, detailed = Counts(input=100), Counts(input=60, cached=40)
    for order in ((plain, detailed), (detailed, plain)):
        meter = Meter(None)
        for counts in order:
            meter.report(counts, "r")
        assert meter.read().counts == detailed


def test_a_report_counts_what_passed_before_it():
    """What passed since is counted by its characters, and a report of the same response takes its place."""
    meter = Meter(tokens(output=1, per=1))
    meter.passed("12345678", "r")
    assert (meter.read().cost, meter.read().counted) == (2, "characters/4")
    meter.report(Counts(output=3), "r")
    assert (meter.read().cost, meter.read().counted) == (3, "reported")
    meter.passed("1234", "r")
    assert (meter.read().cost, meter.read().response_ids) == (4, ("r",))


def test_a_tokenizer_that_is_there_is_used():
    """The event says how the tokens were counted."""
    meter = Meter(tokens(output=1, per=1))
    meter.passed("one two three")
    reading = meter.read(lambda text: (len(text.split()), "tiktoken"))
    assert (reading.cost, reading.properties()) == (3, {"counted": "tiktoken", "used_output": 3})
