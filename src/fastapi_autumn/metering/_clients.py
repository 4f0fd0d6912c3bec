"""Metering the clients of providers: what a copy of one calls is reported, and the client itself stays as it is.

The official clients of OpenAI and Anthropic send every call through their public method `post`, whatever resource it
was made on, plain, streamed or parsed. A copy with another `post` is all that is needed, so nothing of theirs is
patched, and neither package is imported here.
"""

import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from fastapi_autumn.errors import ConfigurationError, UnknownUsage
from fastapi_autumn.metering._usage import counts_of, response_id_of
from fastapi_autumn.settlement import Outcome

__all__ = ["Begin", "Call", "Client", "Reports", "metered_client"]

_log = logging.getLogger("fastapi_autumn")

Client = TypeVar("Client")

_STREAMS_WITHOUT_USAGE = ("/chat/completions", "/completions")
"""Where OpenAI streams say what they used only if they are asked to."""


class Reports(Protocol):
    """Who is told what a call uses."""

    def used(self, usage: Any = None, *, response_id: str | None = None) -> bool:
        """See `Metered.used`."""
        ...

    def passed(self, text: str, *, response_id: str | None = None) -> None:
        """See `Metered.passed`."""
        ...


class Call(Reports, Protocol):
    """One model call that is reserved for before it is made, and ends with it."""

    def finish(self, outcome: Outcome) -> Any:
        """End it the way the call ended."""
        ...


Begin = Callable[[str, Mapping[str, Any]], Awaitable[Call]]
"""From the model and the arguments of a call to what it is reported to. What it raises is raised by the client."""


def metered_client(
    client: Client, reports: Reports | None, *, begin: Begin | None = None, ask_for_usage: bool
) -> Client:
    """Return a copy of `client` whose calls are reported to `reports`, or each to what `begin` returns for it.

    Raises:
        ConfigurationError: It is no client of OpenAI's or Anthropic's, or `begin` is given and it is not async.
    """
    copy: Any = getattr(client, "with_options", None)
    if copy is None or not callable(getattr(client, "post", None)):
        raise ConfigurationError(
            f"A {type(client).__name__} cannot be metered: pass a client of the packages openai or anthropic, or "
            "report the usage of each response with used(...)."
        )
    metered: Any = copy()
    post = metered.post

    def with_options(**changed: Any) -> Any:
        return metered_client(copy(**changed), reports, begin=begin, ask_for_usage=ask_for_usage)

    # A copy with a longer time-out, for one, is not to be a way around.
    metered.with_options = metered.copy = with_options
    if inspect.iscoroutinefunction(post):

        async def post_async(path: str, **options: Any) -> Any:
            body = options.get("body")
            one = reports if begin is None else await begin(_model_of(body), body if isinstance(body, Mapping) else {})
            seen = _Seen(one, ends=begin is not None)
            try:
                return seen.result(await post(path, **seen.asking(path, options, ask_for_usage)))
            except BaseException as error:
                seen.end(Outcome.FAILED if isinstance(error, Exception) else Outcome.GONE)
                raise

        metered.post = post_async
    elif reports is None:
        raise ConfigurationError("A budget meters async clients: what it takes from itself for a call is awaited.")
    else:

        def post_sync(path: str, **options: Any) -> Any:
            seen = _Seen(reports, ends=False)
            return seen.result(post(path, **seen.asking(path, options, ask_for_usage)))

        metered.post = post_sync
    return metered  # type: ignore[no-any-return] # it is what the client made of itself


def _model_of(body: Any) -> str:
    return str(body.get("model", "")) if isinstance(body, Mapping) else ""


class _Seen:
    """What is seen of one call."""

    __slots__ = ("_ends", "_hides", "_id", "_reports")

    def __init__(self, reports: Any, *, ends: bool) -> None:
        self._reports = reports
        self._ends = ends
        self._hides = False
        self._id: str | None = None

    def asking(self, path: str, options: dict[str, Any], ask_for_usage: bool) -> dict[str, Any]:
        """Return the arguments of `post`, with the wish for usage where it has to be said."""
        body = options.get("body")
        if not (ask_for_usage and options.get("stream") and path.endswith(_STREAMS_WITHOUT_USAGE)):
            return options
        if not isinstance(body, Mapping):
            return options
        wishes = body.get("stream_options")
        wishes = dict(wishes) if isinstance(wishes, Mapping) else {}
        # Who did not ask for the chunk has no choices in it to look at, and may break on that.
        self._hides = not wishes.get("include_usage")
        return {**options, "body": {**body, "stream_options": {**wishes, "include_usage": True}}}

    def result(self, result: Any) -> Any:
        """Report a response, or return what reports it as it is read."""
        if callable(getattr(result, "parse", None)) and hasattr(result, "http_response"):
            return _Raw(result, self)
        if hasattr(result, "__aiter__") and hasattr(result, "__anext__"):
            return _AsyncStream(result, self)
        if hasattr(result, "__iter__") and hasattr(result, "__next__"):
            return _Stream(result, self)
        self._report(result, response_id_of(result))
        self.end(Outcome.DONE)
        return result

    def end(self, outcome: Outcome) -> None:
        if self._ends:
            self._reports.finish(outcome)

    def shows(self, item: Any) -> bool:
        """Note an item of a stream; returns whether the caller is to see it."""
        kind = getattr(item, "type", None)
        if not isinstance(kind, str):
            return self._chat(item)
        if kind == "content_block_delta":
            delta = item.delta
            for name in ("text", "partial_json", "thinking"):
                self._passed(getattr(delta, name, None))
        elif kind == "message_start":
            self._id = item.message.id
            self._report(item.message, self._id)
        elif kind == "message_delta":
            self._report(item.usage, self._id)
        elif kind.endswith(".delta"):
            self._passed(getattr(item, "delta", None))
        else:
            response = getattr(item, "response", None)
            if response is not None:
                self._id = getattr(response, "id", None)
                self._report(response, self._id)
        return True

    def _chat(self, chunk: Any) -> bool:
        self._id = getattr(chunk, "id", None) or self._id
        choices = getattr(chunk, "choices", None) or ()
        for choice in choices:
            delta = getattr(choice, "delta", None)
            self._passed(getattr(choice, "text", None) if delta is None else delta.content)
            for call in getattr(delta, "tool_calls", None) or ():
                self._passed(getattr(call.function, "arguments", None))
        if getattr(chunk, "usage", None) is None:
            return True
        self._report(chunk, self._id)
        return bool(choices) or not self._hides

    def _passed(self, text: Any) -> None:
        if isinstance(text, str) and text:
            self._reports.passed(text, response_id=self._id)

    def _report(self, usage: Any, response_id: str | None) -> None:
        try:
            counts = counts_of(usage)
        except UnknownUsage:
            if getattr(usage, "usage", None) is not None:
                # A customer's answer does not fail over this. Without a report the call costs what was held.
                _log.warning("The usage of a %s cannot be read, so nothing is reported.", type(usage).__name__)
            return
        self._reports.used(counts, response_id=response_id)


class _Stream:
    """A stream of a provider's client, reported as it is read."""

    def __init__(self, stream: Any, seen: _Seen) -> None:
        self._stream = stream
        self._seen = seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        item = next(self._stream)
        while not self._seen.shows(item):
            item = next(self._stream)
        return item

    def __enter__(self) -> Self:
        self._stream.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stream.__exit__(kind, error, traceback)


class _AsyncStream:
    """As `_Stream`. It also ends what was reserved for the call alone."""

    def __init__(self, stream: Any, seen: _Seen) -> None:
        self._stream = stream
        self._seen = seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        try:
            item = await anext(self._stream)
            while not self._seen.shows(item):
                item = await anext(self._stream)
        except StopAsyncIteration:
            self._seen.end(Outcome.DONE)
            raise
        except BaseException as error:
            self._seen.end(Outcome.FAILED if isinstance(error, Exception) else Outcome.GONE)
            raise
        return item

    async def close(self) -> None:
        """Close it before its end: nobody wants the rest."""
        self._seen.end(Outcome.GONE)
        await self._stream.close()

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._seen.end(Outcome.GONE)
        await self._stream.__aexit__(kind, error, traceback)


class _Raw:
    """A response that the caller parses (`with_raw_response`), reported when they do."""

    def __init__(self, response: Any, seen: _Seen) -> None:
        self._response = response
        self._seen = seen
        self._parsed: dict[Any, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._response, name)

    def parse(self, *arguments: Any, **options: Any) -> Any:
        """Parse it, as the client does."""
        parsed = self._response.parse(*arguments, **options)
        if inspect.isawaitable(parsed):
            return self._later(parsed)
        return self._once(parsed)

    async def _later(self, parsed: Awaitable[Any]) -> Any:
        return self._once(await parsed)

    def _once(self, parsed: Any) -> Any:
        key = id(parsed)
        if key not in self._parsed:
            # Kept with what it was made of, so that the id is not another object's.
            self._parsed[key] = (parsed, self._seen.result(parsed))
        return self._parsed[key][1]
