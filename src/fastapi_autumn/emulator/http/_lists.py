"""Paging: cursors from API 2.3.0 on, offsets before that and on the older paths."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass

from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator._errors import ApiError
from fastapi_autumn.emulator.http._call import Call
from fastapi_autumn.emulator.http._validation import Fields

_DEFAULT = 50
_MOST = 5_000
_LAST = 2**62


@dataclass(slots=True, frozen=True)
class Page:
    """Which part of a list is wanted."""

    limit: int
    offset: int
    cursor: Document | None
    by_cursor: bool


def read(call: Call, fields: Fields) -> Page:
    """Read `limit`, and `start_cursor` or `offset`, from the body or from the query of a GET."""
    limit = fields.integer("limit", least=1, most=_MOST)
    offset = fields.integer("offset", least=0)
    text = fields.string("start_cursor")
    fields.check()
    by_cursor = call.version >= (2, 3, 0)
    return Page(
        limit=limit or _in_query(call, "limit") or _DEFAULT,
        offset=0 if by_cursor else offset or _in_query(call, "offset"),
        cursor=_parse(text) if text and by_cursor else None,
        by_cursor=by_cursor,
    )


def cursor(identifier: str | None, time: int) -> str:
    """Write the cursor that continues after an entry."""
    text = json.dumps({"v": 0, "id": identifier, "t": time}, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _in_query(call: Call, name: str) -> int:
    value = call.query.get(name, "")
    return min(int(value), _MOST) if value.isdecimal() else 0


def _parse(text: str) -> Document:
    try:
        found: Document = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, binascii.Error):
        raise ApiError(400, "invalid_cursor", "cursor payload is not valid JSON") from None
    time, identifier = (found.get("t"), found.get("id")) if isinstance(found, dict) else (None, None)
    if not isinstance(time, int) or not 0 <= time < _LAST or not isinstance(identifier, str | None):
        raise ApiError(400, "invalid_cursor", "cursor payload has an unexpected shape")
    return found
