"""One call to the API, and what an operation answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator._errors import ApiError
from fastapi_autumn.emulator.books._catalog import Catalog
from fastapi_autumn.emulator.books._tokens import RateTable, built_in_rates
from fastapi_autumn.emulator.http._store import Store
from fastapi_autumn.emulator.http._validation import Fields

Version: TypeAlias = tuple[int, int, int]

NEWEST: Version = (2, 3, 0)
# 2.4.0 and 2.5.0 are what the published clients send; they get the answers of 2.3.0.
_VERSIONS: dict[str, Version] = {
    f"{major}.{minor}.0": (major, minor, 0)
    for major, minor in ((2, 5), (2, 4), (2, 3), (2, 2), (2, 1), (2, 0), (1, 2), (1, 1), (0, 2), (0, 1))
}


@dataclass(slots=True, frozen=True)
class Answer:
    """An answer other than 200 with JSON."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)
    media_type: str = "application/json"


@dataclass(slots=True)
class Call:
    """A request, as operations see it."""

    store: Store
    catalog: Catalog
    now: int
    body: Any = None
    version: Version = NEWEST
    path: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    raw: bytes = b""
    authorization: str = ""
    env: str = "sandbox"
    publishable: bool = False
    origin: Callable[[], str] = str
    rates: RateTable = built_in_rates
    event_quiet_ms: int = 0

    @property
    def base_url(self) -> str:
        """Where the emulator is reached, for the addresses of its own pages."""
        return self.origin().rstrip("/")

    def fields(self) -> Fields:
        """Read the body as an object, field by field."""
        return Fields(self.body)

    def form(self) -> dict[str, str]:
        """Read the body as a form, as browsers send it; a field that comes twice counts once."""
        return dict(parse_qsl(self.raw.decode(errors="replace")))


@dataclass(slots=True, frozen=True)
class Operation:
    """A function that answers calls. `writes` says whether a call needs the write lock; it may look at the body."""

    name: str
    run: Callable[[Call], Any]
    writes: Callable[[Any], bool] | bool = True
    public: bool = False
    """Whether it can be called without a key."""

    def needs_lock(self, body: Any) -> bool:
        """Whether this call writes."""
        return self.writes if isinstance(self.writes, bool) else self.writes(body)


def parse_json(raw: bytes) -> Any:
    """Parse a request body as Autumn does: what is not JSON counts as nothing sent."""
    try:
        parsed = json.loads(raw, parse_constant=_not_json)
        if b"\\u" in raw:
            # Half a surrogate pair is no text: it could be neither kept nor sent back.
            json.dumps(parsed, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return parsed


def parse_version(header: str | None) -> Version:
    """Read `x-api-version`; "2.3" means 2.3.0, and no header the newest."""
    if header is None:
        return NEWEST
    version = _VERSIONS.get(header) or _VERSIONS.get(f"{header}.0")
    if version is None:
        raise ApiError(400, "invalid_api_version", f'"{header}" is not a valid API version')
    return version


def parse_object(value: Any) -> Document:
    """Return a JSON object, or an empty one where something else was sent."""
    return value if isinstance(value, dict) else {}


def _not_json(name: str) -> float:
    raise ValueError(name)
