"""Paging: cursors from API 2.3.0 on, offsets before that and on the older paths."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass

from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator._errors import ApiError
from fastapi_autumn.emulator.books._customer import AttachedPlan, Customer
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


@dataclass(slots=True, frozen=True)
class Narrowing:
    """Which customers or entities are wanted: with one of some plans, and with a processor who takes their money.

    `versions` says for each plan that was named which of its versions are meant; all are if none is named.
    """

    versions: dict[str, list[int]]
    status: str | None
    processors: list[str]

    @classmethod
    def read(cls, fields: Fields) -> Narrowing:
        """Read `plans`, `subscription_status` and `processors`."""
        versions = {}
        for item in fields.objects("plans"):
            named = item.raw("versions") or []
            if not isinstance(named, list) or not all(isinstance(version, int) for version in named):
                item.fail("versions", "Invalid input")
                named = []
            versions[item.text("id")] = named
        processors = fields.strings("processors")
        if not set(processors) <= {"stripe", "revenuecat", "vercel"}:
            fields.fail("processors", "Invalid input")
        return cls(versions, fields.choice("subscription_status", ("active", "scheduled")), processors)

    def __bool__(self) -> bool:
        """Whether anything was asked for."""
        return bool(self.versions or self.status or self.processors)

    def wants(self, customer: Customer, entity_id: str | None = None) -> bool:
        """Whether a customer is meant, or one of their entities, which has the customer's plans too."""
        if self.processors and not ("stripe" in self.processors and customer.stripe_id):
            return False
        plans = [plan for plan in customer.plans if plan.entity_id in (None, entity_id)]
        return not (self.versions or self.status) or any(map(self._fits, plans))

    def _fits(self, plan: AttachedPlan) -> bool:
        if self.status not in (None, plan.status):
            return False
        named = self.versions.get(plan.plan_id)
        return not self.versions or (named is not None and (not named or plan.version in named))


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
