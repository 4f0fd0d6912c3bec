"""What reports its use while it runs: a charge with a rate, and a step of a budget."""

import threading
from decimal import Decimal
from typing import Any, Literal

from fastapi_autumn.metering import Counts, Meter, Reading, counts_of, response_id_of
from fastapi_autumn.metering._clients import Client, metered_client
from fastapi_autumn.metering._passed import by_characters, count_tokens, prepare
from fastapi_autumn.pricing import CallRequest, Rate

__all__ = ["Failed", "Metered"]

_making = threading.Lock()

Failed = Literal["nothing", "used"]
"""What a call costs that failed: nothing, or what it had used by then."""


class Metered:
    """Whoever makes a model call says here what it used.

    Attributes:
        model: The model that was priced. Call this one, not what the request said.
        rate: What the use costs; None where the price is fixed.
        bounds: The most that the call was taken to use, for whoever makes it to keep to; None where that is not known.
    """

    __slots__ = ("_meter", "_request_bytes", "bounds", "model", "rate")

    def __init__(self, model: str, *, rate: Rate | None, bounds: Counts | None, request: CallRequest | None) -> None:
        self.model = model
        self.rate = rate
        self.bounds = bounds
        self._request_bytes = 0 if request is None else request.size
        self._meter: Meter | None = None

    @property
    def closed(self) -> bool:
        """Whether what it costs is decided."""
        raise NotImplementedError

    @property
    def metered(self) -> bool:
        """Whether what it costs depends on what it uses."""
        return self.rate is not None

    def used(self, usage: Any = None, *, response_id: str | None = None, **counts: Decimal | float) -> bool:
        """Report what was used so far: a provider's usage, or the response that has one, or counts by kind.

        Reports of one response replace each other, also when they come twice or in the wrong order; those of different
        ones add up. Which response it is, its id says, or `response_id`; without either, each report is a response of
        its own. None instead of a usage, as in most chunks of a stream, reports nothing. May be called until the end,
        from any thread. Returns False, and changes nothing, when that has come.

        Args:
            usage: See `fastapi_autumn.metering.counts_of`.
            response_id: The provider's id of the response, where `usage` has none.
            counts: In place of `usage`, by the kinds of `Counts`, such as `input=12, output=34`.

        Raises:
            UnknownUsage: There are no counts in `usage`.
            AmountError: One of `counts` is none.
        """
        if usage is not None:
            return self._report(counts_of(usage), response_id or response_id_of(usage))
        if counts:
            return self._report(Counts(**counts), response_id)  # type: ignore[arg-type] # Counts refuses a fraction
        return not self.closed

    def passed(self, text: str, *, response_id: str | None = None) -> None:
        """Note text of the answer as it passes, in case that the stream breaks before the provider reports its usage.

        What passed after the last report is counted then: by `tiktoken` where it is installed and ready, else as a
        token for each four characters. The event at Autumn says which.
        """
        self._the_meter().passed(text, response_id)

    def meter(self, client: Client, *, ask_for_usage: bool = True) -> Client:
        """Return a copy of a provider's client whose calls are reported here by themselves.

            client = charge.meter(AsyncOpenAI())

        It takes the clients of the packages `openai` and `anthropic`, sync and async, and those of other providers that
        are made with them. Plain, streamed and parsed responses are reported, and text that has passed when a stream
        breaks. OpenAI's streams are asked for their usage; who did not ask for it does not get the chunk that has it.

        Args:
            client: It stays as it is, and shares its connections with the copy.
            ask_for_usage: False for servers that do not know OpenAI's `stream_options`.

        Raises:
            ConfigurationError: It is no such client.
        """
        return metered_client(client, self, ask_for_usage=ask_for_usage)

    @property
    def used_so_far(self) -> Decimal:
        """What the reports come to, in credits; 0 before the first, and where the price is fixed."""
        # Text that passed is counted by its characters here: this may be asked for at each chunk.
        return Decimal(0) if self._meter is None else self._meter.read(by_characters).cost or Decimal(0)

    @property
    def counts(self) -> Counts:
        """What the reports add up to."""
        return Counts() if self._meter is None else self._meter.read(by_characters).counts

    def _report(self, counts: Counts, response_id: str | None) -> bool:
        self._the_meter().report(counts, response_id)
        return True

    def _the_meter(self) -> Meter:
        # Made when it is needed: most calls have a fixed price. Two threads that make one each at once are not to lose
        # what either was told.
        if self._meter is None:
            with _making:
                if self._meter is None:
                    prepare(self.model)
                    self._meter = Meter(self.rate, request_bytes=self._request_bytes)
        return self._meter

    def _reading(self) -> Reading | None:
        return None if self._meter is None else self._meter.read(lambda text: count_tokens(text, self.model))
