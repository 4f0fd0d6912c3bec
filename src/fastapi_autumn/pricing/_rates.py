"""Prices by what a call uses: tokens, images, seconds, characters, units. Pure and exact."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal, localcontext
from typing import Any, Literal

from fastapi_autumn.errors import AmountError, Unbounded
from fastapi_autumn.pricing._amounts import CEILING, rounded_up
from fastapi_autumn.pricing._amounts import credits as to_credits
from fastapi_autumn.pricing._counts import INPUT_KINDS, OUTPUT_KINDS, Counts
from fastapi_autumn.pricing._requests import CallRequest

__all__ = ["Rate", "images", "per_character", "per_second", "per_unit", "tokens"]

Amount = Decimal | float | str
_DIGITS = 80
"""Products of counts and prices have fewer, so only a division rounds, and it rounds up."""
_OUTPUT_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens", "maxOutputTokens")
_CHOICES = ("n", "best_of", "candidateCount", "candidate_count")
_TOKEN_KINDS = (*INPUT_KINDS, *OUTPUT_KINDS)


class Rate(ABC):
    """A price that depends on what a call uses. Immutable; equal where it charges the same."""

    __slots__ = ()

    def cost(self, *responses: Counts) -> Decimal:
        """What a call costs that got these responses: calculated exactly, rounded up once, at ten places."""
        with localcontext(prec=_DIGITS, rounding=ROUND_UP):
            return rounded_up(min(self._exact(responses), CEILING))

    def most(self, request: CallRequest) -> Decimal:
        """The most that a call can cost if it uses no more than `bounds`.

        Raises:
            Unbounded: Nothing says what the call can use at most; `detail` says which field to send.
        """
        with localcontext(prec=_DIGITS, rounding=ROUND_UP):
            return rounded_up(min(self._dearest(self.bounds(request)), CEILING))

    @abstractmethod
    def bounds(self, request: CallRequest) -> Counts:
        """The most that a call can use, by kind.

        Raises:
            Unbounded: As `most`.
        """

    def bound(self, request: CallRequest) -> "Rate":
        """The rate of this one call, where what it asks for decides on the price: the size of a picture."""
        del request
        return self

    @abstractmethod
    def _exact(self, responses: Iterable[Counts]) -> Decimal: ...

    @abstractmethod
    def _dearest(self, bounds: Counts) -> Decimal:
        """What `bounds` would cost if everything were of the dearest kind."""


@dataclass(frozen=True, slots=True)
class _Tier:
    above: int
    """Of all the tokens that the model reads; then these prices hold for all tokens of the response."""
    prices: tuple[Decimal, ...]
    """By kind, in the order of `_TOKEN_KINDS`."""


@dataclass(frozen=True, slots=True)
class TokenRate(Rate):
    """See `tokens`."""

    tiers: tuple[_Tier, ...]
    per: Decimal
    max_output: int | None = None
    max_input: int | None = None

    def bounds(self, request: CallRequest) -> Counts:
        """See `Rate.bounds`."""
        return Counts(input=self._most_input(request), output=self._most_output(request))

    def __str__(self) -> str:
        first = dict(zip(_TOKEN_KINDS, self.tiers[0].prices, strict=True))
        shown = [
            f"{price:f} {kind}"
            for kind, price in first.items()
            if kind in {"input", "output"} or price != first["input" if kind in INPUT_KINDS else "output"]
        ]
        more = ", more for long contexts" if len(self.tiers) > 1 else ""
        return f"{', '.join(shown)} per {self.per:f} tokens{more}"

    def _most_input(self, request: CallRequest) -> int:
        if not request.refers_elsewhere:
            return request.size if self.max_input is None else min(request.size, self.max_input)
        if self.max_input is None:
            raise Unbounded("Nothing says how many tokens the pictures, files or earlier messages of this call are.")
        return self.max_input

    def _most_output(self, request: CallRequest) -> int:
        asked = [limit for name in _OUTPUT_LIMITS if (limit := request.whole(name)) is not None]
        limits = [max(asked)] if asked else []
        if self.max_output is not None:
            limits.append(self.max_output)
        if not limits:
            if not self._sells_output:
                return 0
            raise Unbounded("Nothing says how long the answer can be: send max_tokens.", field="max_tokens")
        return min(limits) * max(request.whole(name) or 1 for name in _CHOICES)

    @property
    def _sells_output(self) -> bool:
        return any(any(tier.prices[len(INPUT_KINDS) :]) for tier in self.tiers)

    def _exact(self, responses: Iterable[Counts]) -> Decimal:
        total = Decimal(0)
        for counts in responses:
            prices = self._prices(counts.context)
            for kind, price in zip(_TOKEN_KINDS, prices, strict=True):
                total += getattr(counts, kind) * price
        return total / self.per

    def _dearest(self, bounds: Counts) -> Decimal:
        prices = self._prices(bounds.context)
        read, written = prices[: len(INPUT_KINDS)], prices[len(INPUT_KINDS) :]
        return (bounds.context * max(read) + bounds.written * max(written)) / self.per

    def _prices(self, context: int) -> tuple[Decimal, ...]:
        reached = self.tiers[0]
        for tier in self.tiers[1:]:
            if context <= tier.above:
                break
            reached = tier
        return reached.prices


@dataclass(frozen=True, slots=True)
class UnitRate(Rate):
    """See `per_second`, `per_character`, `per_unit`; also one image of a known size."""

    kind: Literal["images", "seconds", "characters", "units"]
    price: Decimal
    base: Decimal = Decimal(0)
    field: str | None = None
    at_most: Decimal | None = None

    def bounds(self, request: CallRequest) -> Counts:
        """See `Rate.bounds`."""
        asked = None if self.field is None else self._asked(request, self.field)
        if asked is None and self.kind == "characters" and request.size:
            asked = Decimal(request.size)
        if asked is None and self.kind == "images":
            asked = Decimal(1)
        limits = [limit for limit in (asked, self.at_most) if limit is not None]
        if not limits:
            what = f": send {self.field}" if self.field else ""
            raise Unbounded(f"Nothing says how many {self.kind} this call can use{what}.", field=self.field)
        try:
            return Counts(**{self.kind: min(limits)})  # type: ignore[arg-type] # Counts refuses what is not whole
        except AmountError as error:
            raise Unbounded(f"This call cannot be priced: {error}.", field=self.field) from None

    def __str__(self) -> str:
        base = f"{self.base:f} and " if self.base else ""
        return f"{base}{self.price:f} per {self.kind.removesuffix('s')}"

    @staticmethod
    def _asked(request: CallRequest, field: str) -> Decimal | None:
        value = request.field(field)
        if value is None:
            return None
        try:
            return to_credits(value)
        except AmountError:
            raise Unbounded(f"{field} has to be a positive number.", field=field) from None

    def _exact(self, responses: Iterable[Counts]) -> Decimal:
        used = sum((Decimal(getattr(counts, self.kind)) for counts in responses), start=Decimal(0))
        return self.base + used * self.price

    def _dearest(self, bounds: Counts) -> Decimal:
        return self._exact((bounds,))


@dataclass(frozen=True, slots=True)
class ImageRate(Rate):
    """See `images`."""

    prices: tuple[tuple[tuple[str, str | None], Decimal], ...]
    default: tuple[str, str | None] | None = None

    def bounds(self, request: CallRequest) -> Counts:
        """See `Rate.bounds`."""
        return Counts(images=request.whole("n") or 1)

    def __str__(self) -> str:
        shown = [f"{price:f} for {' '.join(filter(None, key))}" for key, price in self.prices]
        return f"{', '.join(shown)} per image"

    def most(self, request: CallRequest) -> Decimal:
        """See `Rate.most`."""
        return self.bound(request).cost(self.bounds(request))

    def bound(self, request: CallRequest) -> Rate:
        """See `Rate.bound`.

        Raises:
            Unbounded: The size or the quality has no price; `detail` has those that have one.
        """
        size, quality = request.text("size"), request.text("quality")
        if self.default is not None:
            size, quality = size or self.default[0], quality or self.default[1]
        matching = [
            price
            for (listed_size, listed_quality), price in self.prices
            if size in {None, listed_size} and (quality is None or listed_quality in {None, quality})
        ]
        exact = dict(self.prices).get((size, quality)) if size is not None else None
        if exact is None and not matching:
            offered = [" ".join(filter(None, key)) for key, _ in self.prices]
            raise Unbounded("There is no price for a picture of this size and quality.", field="size", offered=offered)
        # What is left open may be the dearest.
        return UnitRate("images", max(matching) if exact is None else exact, field="n")

    def _exact(self, responses: Iterable[Counts]) -> Decimal:
        return sum(counts.images for counts in responses) * max(price for _, price in self.prices)

    def _dearest(self, bounds: Counts) -> Decimal:
        return self._exact((bounds,))


def tokens(
    *,
    input: Amount = 0,  # noqa: A002 - the name that providers and users have for it
    output: Amount = 0,
    cached: Amount | None = None,
    cache_write: Amount | None = None,
    reasoning: Amount | None = None,
    audio_input: Amount | None = None,
    audio_output: Amount | None = None,
    per: Amount = 1_000_000,
    tiers: Mapping[int, Mapping[str, Amount]] | None = None,
    max_output: int | None = None,
    max_input: int | None = None,
) -> Rate:
    """Charge by tokens: credits for each `per` of them, a million by default.

    A kind that has no price costs as much as `input` or `output`. `tiers` are the prices of long contexts: from the
    number of tokens read, above which they hold for the whole response, to those prices that differ from below.

    Args:
        input: Tokens that the model reads.
        output: Tokens that it writes.
        cached: Those of the input that come from the provider's cache.
        cache_write: Those of the input that are written to it.
        reasoning: Those of the output that the model keeps to itself.
        audio_input: Those of the input that are sound.
        audio_output: Those of the output that are sound.
        per: For how many tokens the prices are.
        tiers: See above. A longer context is never cheaper.
        max_output: The most that the model can write, for requests that set no limit, and for those above it.
        max_input: The most that it can read: its context window. Without it, a call with pictures, files or a stored
            conversation is refused, because the bytes of its body do not bound what the model reads.

    Raises:
        AmountError: A price is no amount, everything is free, a limit is no positive number, or a tier is cheaper.
    """
    given = {
        "input": input,
        "cached": cached,
        "cache_write": cache_write,
        "audio_input": audio_input,
        "output": output,
        "reasoning": reasoning,
        "audio_output": audio_output,
    }
    first = {kind: to_credits(price, allow_zero=True) for kind, price in given.items() if price is not None}
    steps = [_Tier(0, _by_kind(first))]
    for above, prices in sorted((tiers or {}).items()):
        unknown = sorted(prices.keys() - set(_TOKEN_KINDS))
        if unknown or _whole("a tier", above) is None:
            raise AmountError(f"a tier has prices of {', '.join(_TOKEN_KINDS)}, not of {', '.join(unknown)}")
        changed = {kind: to_credits(price, allow_zero=True) for kind, price in prices.items()}
        first |= changed
        step = _Tier(above, _by_kind(first))
        if any(new < old for new, old in zip(step.prices, steps[-1].prices, strict=True)):
            raise AmountError(f"the tier above {above} is cheaper than the one below it")
        steps.append(step)
    if not any(steps[0].prices):
        raise AmountError("a price by tokens needs at least one that is not zero")
    return TokenRate(tuple(steps), to_credits(per), _whole("max_output", max_output), _whole("max_input", max_input))


def images(prices: Mapping[str | tuple[str, str], Amount], *, default: str | tuple[str, str] | None = None) -> Rate:
    """Charge by picture: credits for each, by its size, or by its size and quality.

    Sizes and qualities are those of the request's fields `size` and `quality`, and `n` is how many. Where a request
    leaves one open, `default` counts, and without it the dearest that fits. In a file a key is "1024x1024 hd".

    Raises:
        AmountError: A price is no positive amount, or there is none.
    """
    listed = tuple((_size_and_quality(key), to_credits(price)) for key, price in prices.items())
    if not listed:
        raise AmountError("a price by image needs at least one size")
    return ImageRate(listed, None if default is None else _size_and_quality(default))


def per_second(
    price: Amount, *, base: Amount = 0, field: str | None = "seconds", at_most: Amount | None = None
) -> Rate:
    """Charge by second, and `base` for each call. `field` of the request, or else `at_most`, says how many at most.

    Raises:
        AmountError: A price is no amount.
    """
    return _unit_rate("seconds", price, base, field, at_most)


def per_character(price: Amount, *, base: Amount = 0, field: str | None = None, at_most: Amount | None = None) -> Rate:
    """Charge by character, and `base` for each call. A request has no more characters than bytes.

    Raises:
        AmountError: A price is no amount.
    """
    return _unit_rate("characters", price, base, field, at_most)


def per_unit(price: Amount, *, base: Amount = 0, field: str | None = "n", at_most: Amount | None = None) -> Rate:
    """Charge by unit, whatever that is, and `base` for each call; limits as in `per_second`.

    Raises:
        AmountError: A price is no amount.
    """
    return _unit_rate("units", price, base, field, at_most)


def _unit_rate(
    kind: Literal["seconds", "characters", "units"],
    price: Amount,
    base: Amount,
    field: str | None,
    at_most: Amount | None,
) -> Rate:
    most = None if at_most is None else to_credits(at_most)
    return UnitRate(kind, to_credits(price), to_credits(base, allow_zero=True), field, most)


def _by_kind(given: Mapping[str, Decimal]) -> tuple[Decimal, ...]:
    return tuple(given.get(kind, given["input" if kind in INPUT_KINDS else "output"]) for kind in _TOKEN_KINDS)


def _whole(name: str, value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise AmountError(f"{name} has to be a positive whole number")
    return value


def _size_and_quality(key: str | tuple[str, str]) -> tuple[str, str | None]:
    size, _, quality = key.partition(" ") if isinstance(key, str) else (key[0], "", key[1])
    return size, quality or None
