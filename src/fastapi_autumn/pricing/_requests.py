"""What a request says about the most that its call can use."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from fastapi_autumn.errors import Unbounded

__all__ = ["CallRequest"]

_NESTED = ("generationConfig", "generation_config")
"""Where Gemini's requests have their limits."""
_REFERENCES = frozenset(
    {
        "conversation",
        "fileData",
        "file_data",
        "file_id",
        "file_uri",
        "file_url",
        "image_url",
        "inlineData",
        "inline_data",
        "input_image",
        "previous_response_id",
    }
)
"""Fields through which a model reads more than the body has: what is stored elsewhere, and pictures."""
_REFERRING_TYPES = frozenset({"document", "file", "image", "image_url", "input_file", "input_image"})


@dataclass(frozen=True, slots=True)
class CallRequest:
    """A request for a model call.

    Attributes:
        body: Its fields.
        size: The bytes of it. A byte-pair tokenizer makes at most one token of a byte.
    """

    body: Mapping[str, Any]
    size: int

    @classmethod
    def of(cls, request: "CallRequest | Mapping[str, Any] | bytes | str | None") -> Self | "CallRequest":
        """Read a request: the arguments of a model call, or the JSON of it."""
        if isinstance(request, CallRequest):
            return request
        if request is None:
            return cls({}, 0)
        if isinstance(request, Mapping):
            return cls(request, len(json.dumps(request, ensure_ascii=False, default=_text_of).encode(errors="replace")))
        raw = request.encode(errors="replace") if isinstance(request, str) else request
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError):
            body = None
        return cls(body if isinstance(body, dict) else {}, len(raw))

    def field(self, name: str) -> Any:
        """Return a field, also one that stands where Gemini's requests have their limits."""
        for place in (self.body, *(self.body.get(nested) for nested in _NESTED)):
            if isinstance(place, Mapping) and place.get(name) is not None:
                return place[name]
        return None

    def whole(self, name: str, *, zero: bool = False) -> int | None:
        """Return a field that is a whole number, or None where there is none.

        Raises:
            Unbounded: It is there and no such number.
        """
        value = self.field(name)
        if value is None:
            return None
        if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 16:  # noqa: PLR2004 - as Counts
            # Forms have only texts.
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < (0 if zero else 1) or value > 10**15:
            raise Unbounded(f"{name} has to be a positive whole number.", field=name)
        return value

    def text(self, name: str) -> str | None:
        """Return a field that is a text."""
        value = self.field(name)
        return value if isinstance(value, str) else None

    @property
    def refers_elsewhere(self) -> bool:
        """Whether the model reads more than the bytes of the body."""
        if isinstance(self.body.get("prompt"), Mapping):
            return True
        return any(not _REFERENCES.isdisjoint(place) or _has_picture(place) for place in _objects_in(self.body))


def _has_picture(place: Mapping[str, Any]) -> bool:
    kind = place.get("type")
    return isinstance(kind, str) and kind in _REFERRING_TYPES


def _objects_in(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    waiting: list[Any] = [body]
    while waiting:
        place = waiting.pop()
        if isinstance(place, Mapping):
            yield place
            waiting.extend(place.values())
        elif isinstance(place, list | tuple):
            waiting.extend(place)


def _text_of(value: Any) -> Any:
    """Write what JSON does not know: the models of client libraries as their JSON, anything else as its text."""
    dump = getattr(value, "model_dump", None)
    return dump() if callable(dump) else str(value)
