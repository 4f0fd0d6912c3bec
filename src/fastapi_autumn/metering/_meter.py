"""Adding up what a call used while it runs: from any thread, in any order, with reports that come twice."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from fastapi_autumn.metering._passed import count_tokens
from fastapi_autumn.pricing import Counts, Rate

__all__ = ["Meter", "Reading"]

_CHARACTERS_A_TOKEN = 4
"""Of the request, where nobody reports what was read."""
_IDS_SHOWN = 20
"""Response ids in an event. An agent that makes hundreds of calls must not make an event that Autumn refuses."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a meter shows.

    Attributes:
        cost: In credits; None where nothing was counted, or where there is no rate.
        counts: All that was counted.
        counted: How: `reported`, or what stood in for a report, or `nothing`.
        response_ids: Of the responses that were reported.
    """

    cost: Decimal | None
    counts: Counts
    counted: str
    response_ids: tuple[str, ...]

    def properties(self) -> dict[str, Any]:
        """What Autumn's event says about it."""
        shown: dict[str, Any] = {f"used_{kind}": count for kind, count in self.counts.shown().items()}
        if self.response_ids:
            shown["response_ids"] = list(self.response_ids[:_IDS_SHOWN])
            shown["responses"] = len(self.response_ids)
        return {"counted": self.counted, **shown}


_NOTHING = Counts()


@dataclass(slots=True)
class _Response:
    counts: Counts = _NOTHING
    reported: bool = False
    passed: list[str] = field(default_factory=list)
    """Text that passed since the last report. A report comes after the text that it counts."""


class Meter:
    """The responses of one call, or of several calls that are charged together.

    Args:
        rate: What they cost; None counts without a price.
        request_bytes: The size of the request, from which the input is estimated where nobody reports it.
    """

    __slots__ = ("_lock", "_rate", "_request_bytes", "_responses")

    def __init__(self, rate: Rate | None, *, request_bytes: int = 0) -> None:
        self._rate = rate
        self._request_bytes = request_bytes
        self._responses: dict[str | int | None, _Response] = {}
        self._lock = threading.Lock()

    def report(self, counts: Counts, response_id: str | None = None) -> None:
        """Note what a response used. Reports of one response hold the most that it used; others add up.

        Reports of one response are cumulative, and may come twice or in the wrong order: of two, that which counts
        more replaces the other, for what was read and what was written apart. Without an id each is a response.
        """
        with self._lock:
            # A response that has no id gets a number.
            response = self._response(len(self._responses) if response_id is None else response_id)
            response.counts = _newest(response.counts, counts)
            response.reported = True
            response.passed.clear()
            unnamed = self._responses.get(None)
            if unnamed is not None:
                unnamed.passed.clear()

    def passed(self, text: str, response_id: str | None = None) -> None:
        """Note text that the caller got, in case that no report comes after it."""
        with self._lock:
            self._response(response_id).passed.append(text)

    def _response(self, response_id: str | int | None) -> _Response:
        response = self._responses.get(response_id)
        if response is None:
            response = self._responses[response_id] = _Response()
        return response

    def read(self, counted_by: Callable[[str], tuple[int, str]] = count_tokens) -> Reading:
        """Tell what was counted so far; what passed without a report is counted by `counted_by`."""
        with self._lock:
            responses = [
                (response_id, response.counts, response.reported, "".join(response.passed))
                for response_id, response in self._responses.items()
            ]
        how = "nothing"
        counted: list[Counts] = []
        for _, counts, reported, text in responses:
            if text:
                tokens, how = counted_by(text)
                # The whole request stands in for the input of the first response that nobody reported on.
                read = 0 if counts.context or counted else -(-self._request_bytes // _CHARACTERS_A_TOKEN)
                counts = replace(counts, input=counts.input + read, output=counts.output + tokens)  # noqa: PLW2901
            elif reported and how == "nothing":
                how = "reported"
            elif not reported:
                continue
            counted.append(counts)
        if not counted:
            return Reading(None, Counts(), "nothing", ())
        cost = None if self._rate is None else self._rate.cost(*counted)
        ids = tuple(one for one, _, reported, _ in responses if isinstance(one, str) and reported)
        return Reading(cost, Counts.sum(counted), how, ids)


_SIDES = (
    ("input", "cached", "cache_write", "audio_input"),
    ("output", "reasoning", "audio_output"),
    ("images",),
    ("seconds",),
    ("characters",),
    ("units",),
)


def _newest(old: Counts, new: Counts) -> Counts:
    """Of two reports of one response keep what counts more, side by side; of equals the one with more detail."""
    if old is _NOTHING or old == new:
        return new
    kept: dict[str, Any] = {}
    for side in _SIDES:
        before, after = ([getattr(counts, kind) for kind in side] for counts in (old, new))
        chosen = after if (sum(after), sum(map(bool, after))) >= (sum(before), sum(map(bool, before))) else before
        kept.update(zip(side, chosen, strict=True))
    return Counts(**kept)
