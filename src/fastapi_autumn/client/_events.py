"""The operations `events.*`."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Literal

from fastapi_autumn import models
from fastapi_autumn.client._bodies import given, whole_range
from fastapi_autumn.client._calls import Caller, Repeat

__all__ = ["Events"]

_BETWEEN_PAGES = 0.2


class Events:
    """The operations `events.*`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def list(
        self,
        *,
        customer_id: str | None = None,
        entity_id: str | None = None,
        feature_id: str | Sequence[str] | None = None,
        start: int | None = None,
        end: int | None = None,
        start_cursor: str = "",
        limit: int = 50,
    ) -> models.EventPage:
        """Return one page of events, newest first; `start` and `end` are in milliseconds.

        Autumn allows 5 of these a second per customer and answers more with 429.
        """
        body = given(
            customer_id=customer_id,
            entity_id=entity_id,
            feature_id=feature_id,
            custom_range=given(start=start, end=end) or None,
            start_cursor=start_cursor,
            limit=limit,
        )
        return await self._caller.read(models.EventPage, "events.list", body, repeat=Repeat.IDEMPOTENT)

    async def iterate(
        self,
        *,
        customer_id: str | None = None,
        entity_id: str | None = None,
        feature_id: str | Sequence[str] | None = None,
        start: int | None = None,
        end: int | None = None,
        page: int = 1000,
    ) -> AsyncIterator[models.Event]:
        """Go through events, newest first, page by page and no faster than Autumn allows."""
        cursor = ""
        while True:
            found = await self.list(
                customer_id=customer_id,
                entity_id=entity_id,
                feature_id=feature_id,
                start=start,
                end=end,
                start_cursor=cursor,
                limit=page,
            )
            for event in found.list:
                yield event
            if not found.next_cursor:
                return
            cursor = found.next_cursor
            await asyncio.sleep(_BETWEEN_PAGES)

    async def aggregate(
        self,
        customer_id: str,
        feature_id: str | Sequence[str],
        *,
        entity_id: str | None = None,
        range: str | None = None,  # noqa: A002 - Autumn's own name
        start: int | None = None,
        end: int | None = None,
        filter_by: Mapping[str, str] | None = None,
        bin_size: Literal["hour", "day", "week", "month"] | None = None,
        group_by: str | None = None,
    ) -> models.EventAggregate:
        """Return sums by period, and count and sum in total.

        Args:
            customer_id: Whose events.
            feature_id: Of which features.
            entity_id: Of one entity only.
            range: One of 24h, 7d, 30d, 90d, last_cycle, 1bc, 3bc.
            start: Instead of `range`, with `end`: milliseconds since 1970. The period in which it falls counts whole.
            end: At most 1000 days after `start`.
            filter_by: Property to value; only events that have all of these count. At most five.
            bin_size: How long a period is.
            group_by: A property, such as `properties.model`.

        The sums are of Autumn's doubles, so they may be off in the last digits, and they are of what was asked for, not
        of what moved. An event shows up here a minute or more after it happened.

        Raises:
            ValueError: One of `start` and `end` without the other, or both with `range`.
        """
        body = given(
            customer_id=customer_id,
            feature_id=feature_id,
            entity_id=entity_id,
            range=range,
            custom_range=whole_range(range, start, end),
            filter_by=filter_by,
            bin_size=bin_size,
            group_by=group_by,
        )
        return await self._caller.read(models.EventAggregate, "events.aggregate", body, repeat=Repeat.IDEMPOTENT)
