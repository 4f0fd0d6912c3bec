"""Prices by use: exact, rounded up once, and never more than what was held."""

from decimal import ROUND_UP, Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_autumn.errors import AmountError, PriceListError, Unbounded
from fastapi_autumn.pricing import (
    CallRequest,
    Counts,
    ModelPrices,
    images,
    per_character,
    per_second,
    per_unit,
    price_list,
    price_of,
    tokens,
)

INPUT = ("input", "cached", "cache_write", "audio_input")
OUTPUT = ("output", "reasoning", "audio_output")

prices = st.decimals(min_value=0, max_value=1000, places=4)
some = st.integers(0, 2_000_000)


@st.composite
def rates(draw):
    """A price by tokens with any of its parts, and the same as a mapping from kind and context to a price."""
    first = {kind: draw(prices) for kind in (*INPUT, *OUTPUT) if draw(st.booleans())}
    first["input"], first["output"] = draw(prices) + 1, draw(prices)
    above = draw(st.integers(1, 1_000_000))
    tier = {kind: price + draw(prices) for kind, price in first.items()} if draw(st.booleans()) else None

    def price(kind, context):
        listed = first if tier is None or context <= above else tier
        return listed.get(kind, listed["input" if kind in INPUT else "output"])

    return tokens(**first, tiers=None if tier is None else {above: tier}, max_output=100_000), price


counts = st.builds(Counts, **dict.fromkeys((*INPUT, *OUTPUT), some))


@given(rates(), st.lists(counts, min_size=1, max_size=4))
def test_tokens_cost_what_their_prices_say(rate_and_price, responses):
    """Each response by its own context, in fractions; the sum is rounded up once, at ten places."""
    rate, price = rate_and_price
    exact = (
        sum(
            (
                Fraction(price(kind, one.context)) * getattr(one, kind)
                for one in responses
                for kind in (*INPUT, *OUTPUT)
            ),
            start=Fraction(0),
        )
        / 1_000_000
    )
    with localcontext(prec=60):
        rounded = (Decimal(exact.numerator) / exact.denominator).quantize(Decimal("1e-10"), rounding=ROUND_UP)
    cost = rate.cost(*responses)
    # What has more digits than a JSON number keeps is rounded up further.
    assert rounded <= cost <= rounded * (1 + Decimal("1e-14")) + Decimal("1e-10")
    if rounded < 10_000:
        assert cost == rounded


@given(rates(), counts, st.sampled_from([*INPUT, *OUTPUT]), some)
def test_more_never_costs_less(rate_and_price, used, kind, more):
    """Whatever a call uses in addition, its price does not fall."""
    rate, _ = rate_and_price
    assert rate.cost(used + Counts(**{kind: more})) >= rate.cost(used)


@given(rates(), st.integers(2, 200_000), st.integers(1, 200_000), st.integers(1, 4), st.data())
def test_no_use_within_the_bounds_costs_more_than_the_most(rate_and_price, size, limit, choices, data):
    """Whatever the kinds of what is read and written, the bytes and the limit of the request bound its price."""
    rate, _ = rate_and_price
    request = CallRequest({"max_tokens": limit, "n": choices}, size)
    left = {INPUT: rate.bounds(request).input, OUTPUT: rate.bounds(request).output}
    assert left == {INPUT: size, OUTPUT: min(limit, 100_000) * choices}
    used = {}
    for kinds, most in left.items():
        for kind in kinds:
            used[kind] = data.draw(st.integers(0, most))
            most -= used[kind]  # noqa: PLW2901 - what is left of it
    assert rate.cost(Counts(**used)) <= rate.most(request)


def test_the_price_of_the_issue():
    """Credits for a million tokens, cached ones apart."""
    rate = tokens(input=25, output=100, cached=12.5)
    assert rate.cost(Counts(input=1_000_000, cached=1_000_000, output=10_000)) == Decimal("38.5")
    assert rate.cost(Counts(input=1)) == Decimal("0.000025")
    assert tokens(input=1, per=3).cost(Counts(input=1)) == Decimal("0.3333333334")
    assert tokens(input=1, per=3).cost(Counts(input=1), Counts(input=1), Counts(input=1)) == 1


@pytest.mark.parametrize(
    ("body", "bounds"),
    [
        ({"max_tokens": 10}, 10),
        ({"max_completion_tokens": 10}, 10),
        ({"max_output_tokens": 10}, 10),
        ({"max_tokens": 10, "max_completion_tokens": 20}, 20),
        ({"generationConfig": {"maxOutputTokens": 10, "candidateCount": 2}}, 20),
        ({"max_tokens": 10, "n": 3}, 30),
        ({"max_tokens": 10, "best_of": 3, "n": 2}, 30),
        ({"max_tokens": 10_000}, 500),
        ({}, 500),
        ({"n": 2}, 1000),
        ({"max_tokens": "10"}, 10),
    ],
)
def test_what_bounds_the_answer(body, bounds):
    """The request's own limit, the model's, and how many answers are asked for; of two limits the looser one."""
    assert tokens(output=1, max_output=500).bounds(CallRequest(body, 100)).output == bounds


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "ten", [10], {"a": 1}, 10**30, "1" * 30])
def test_a_limit_that_is_none(bad):
    """A limit that a model might read in another way is refused, and named."""
    with pytest.raises(Unbounded) as refused:
        tokens(output=1, max_output=500).bounds(CallRequest({"max_tokens": bad}, 100))
    assert refused.value.detail["field"] == "max_tokens"


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"content": [{"type": "image_url", "image_url": {"url": "https://x"}}]}]},
        {"input": [{"content": [{"type": "input_image", "file_id": "f"}]}]},
        {"messages": [{"content": [{"type": "document", "source": {}}]}]},
        {"contents": [{"parts": [{"fileData": {}}]}]},
        {"previous_response_id": "resp_1"},
        {"prompt": {"id": "pmpt_1"}},
    ],
)
def test_what_is_not_in_the_body(body):
    """Pictures, files and stored conversations are read by the model and not counted by the bytes of the body."""
    request = CallRequest(body | {"max_tokens": 1}, 200)
    with pytest.raises(Unbounded):
        tokens(input=1).bounds(request)
    assert tokens(input=1, max_input=128_000).bounds(request).input == 128_000
    assert tokens(input=1, max_input=128_000).bounds(CallRequest({"max_tokens": 1}, 200)).input == 200


def test_embeddings_need_no_limit():
    """Where nothing is charged for what is written, nothing has to bound it."""
    assert tokens(input=1).bounds(CallRequest({"input": "words"}, 20)) == Counts(input=20)


SIZES = {"1024x1024": 4, ("1024x1024", "hd"): 8, "1792x1024": 12}


@pytest.mark.parametrize(
    ("body", "default", "most", "each"),
    [
        ({"size": "1024x1024"}, None, 4, 4),
        ({"size": "1024x1024", "quality": "hd", "n": 3}, None, 24, 8),
        ({"size": "1024x1024", "quality": "standard"}, None, 4, 4),
        ({"size": "1792x1024", "quality": "hd"}, None, 12, 12),
        ({}, None, 12, 12),
        ({}, "1024x1024", 4, 4),
        ({"quality": "hd"}, ("1024x1024", "standard"), 8, 8),
    ],
)
def test_pictures(body, default, most, each):
    """By size and quality; what a request leaves open is the default, or the dearest that fits."""
    rate = images(SIZES, default=default)
    request = CallRequest(body, 50)
    assert (rate.most(request), rate.bound(request).cost(Counts(images=1))) == (most, each)
    assert rate.bound(request).most(request) == most


def test_a_picture_without_a_price():
    """It is refused, with the sizes that have one."""
    with pytest.raises(Unbounded) as refused:
        images(SIZES).most(CallRequest({"size": "9x9"}, 10))
    assert refused.value.detail["offered"] == ["1024x1024", "1024x1024 hd", "1792x1024"]


@pytest.mark.parametrize(
    ("rate", "body", "most", "used", "cost"),
    [
        (per_second("0.1"), {"seconds": 12.5}, "1.25", Counts(seconds=3.25), "0.325"),
        (per_second(1, at_most=60), {}, "60", Counts(seconds=0.5), "0.5"),
        (per_second(1, at_most=60), {"seconds": 90}, "60", Counts(seconds=1), "1"),
        (per_character("0.01"), {"input": "words"}, "1", Counts(characters=5), "0.05"),
        (per_unit(2, base=3), {"n": 4}, "11", Counts(units=Decimal("1.5")), "6"),
        (per_unit(2, base=3, field="pages"), {"pages": 2}, "7", Counts(), "3"),
    ],
)
def test_other_units(rate, body, most, used, cost):
    """Seconds, characters and units, with a base for each call, bounded by the request or by the list."""
    assert rate.most(CallRequest(body, 100)) == Decimal(most)
    assert rate.cost(used) == Decimal(cost)


@pytest.mark.parametrize("body", [{}, {"seconds": -1}, {"seconds": "long"}, {"seconds": True}])
def test_other_units_without_bounds(body):
    """Nothing is held for what nobody can tell."""
    with pytest.raises(Unbounded) as refused:
        per_second(1).most(CallRequest(body, 10))
    assert refused.value.detail["field"] == "seconds"


@pytest.mark.parametrize(
    "make",
    [
        lambda: tokens(input=0),
        lambda: tokens(input=-1),
        lambda: tokens(input=1, tiers={1000: {"input": "0.5"}}),
        lambda: tokens(input=1, tiers={1000: {"words": 2}}),
        lambda: tokens(input=1, tiers={0: {"input": 2}}),
        lambda: tokens(input=1, max_output=0),
        lambda: tokens(input=1, per=0),
        lambda: images({}),
        lambda: images({"1024x1024": 0}),
        lambda: per_second(0),
    ],
)
def test_rates_that_are_none(make):
    """They are refused when they are made, and not while somebody waits."""
    with pytest.raises(AmountError):
        make()


@pytest.mark.parametrize(
    "bad",
    [{"input": -1}, {"input": 1.5}, {"input": True}, {"input": "7"}, {"seconds": float("nan")}, {"input": 10**16}],
)
def test_counts_that_are_none(bad):
    """What a provider cannot have counted is no count."""
    with pytest.raises(AmountError):
        Counts(**bad)


def test_rates_in_a_file(tmp_path):
    """Each kind is a table; numbers keep the digits of the file, and aliases lead to rates as to prices."""
    file = tmp_path / "prices.toml"
    file.write_text(
        """
[models]
"gpt-4o" = { input = 25, output = 100, cached = 12.5, max_output = 16_384 }
"dall-e-3" = { images = { "1024x1024" = 4, "1024x1024 hd" = 8 }, default = "1024x1024" }
"whisper-1" = { second = 0.1, at_most = 600 }
"tts-1" = { character = 0.001 }
"search" = { unit = 2, base = 1, field = "pages" }
"fixed" = 3

[models."gemini-2.5-pro"]
input = 12.5
output = 100
tiers = { 200_000 = { input = 25, output = 150 } }

[aliases]
omni = "gpt-4o"
"""
    )
    prices = ModelPrices.from_toml(file)
    assert prices.get_model_price("omni") == tokens(input=25, output=100, cached=12.5, max_output=16_384)
    assert prices.get_model_price("openai/dall-e-3") == images(
        {"1024x1024": 4, ("1024x1024", "hd"): 8}, default="1024x1024"
    )
    assert prices.get_model_price("whisper-1") == per_second("0.1", at_most=600)
    assert prices.get_model_price("tts-1") == per_character("0.001")
    assert prices.get_model_price("search") == per_unit(2, base=1, field="pages")
    long = prices.get_model_price("gemini-2.5-pro")
    assert long.cost(Counts(input=200_000)) == Decimal("2.5")
    assert long.cost(Counts(input=200_001)) == Decimal("5.000025")
    assert (prices.get_model_credits("fixed"), prices.get_model_credits("omni"), "omni" in prices) == (3, None, True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a = { input = 25, otput = 100 }", "line 2: .*otput is unknown"),
        ("a = { input = -1 }", "line 2: .*must not be negative"),
        ("a = { images = 4 }", "line 2: the price of 'a' is no price"),
        ("a = { input = 1, tiers = { many = { input = 2 } } }", "line 2: .*a tier begins at a number"),
        ("a = { input = 1, tiers = 5 }", "line 2: the price of 'a' is no price"),
        ("gpt-4.1 = 3", "line 2: .*with a dot needs quotes"),
    ],
)
def test_rates_in_a_file_that_are_none(tmp_path, text, reason):
    """A refusal names the file, the line, and what is wrong."""
    file = tmp_path / "prices.toml"
    file.write_text(f"[models]\n{text}\n")
    with pytest.raises(PriceListError, match=reason):
        ModelPrices.from_toml(file)


async def test_functions_may_return_rates():
    """A price out of a function may be a rate, and text is as good an amount as elsewhere."""
    prices = price_list(lambda model: tokens(input=1) if model == "metered" else "0.5")
    assert await price_of(prices, "metered") == tokens(input=1)
    assert await price_of(prices, "fixed") == Decimal("0.5")
    assert (prices.get_model_credits("metered"), prices.get_model_credits("fixed")) == (None, Decimal("0.5"))
