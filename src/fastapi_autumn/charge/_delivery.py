"""Doing at Autumn what the entries of the outbox say."""

from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, assert_never

from fastapi_autumn.client import AutumnClient
from fastapi_autumn.errors import RequestRejected
from fastapi_autumn.models import Event
from fastapi_autumn.settings import AutumnSettings
from fastapi_autumn.settlement import Action, Entry

if TYPE_CHECKING:
    from fastapi_autumn.settlement.outbox import LostWorker, Outbox

__all__ = ["Delivery"]

_CLOCK_SLACK_MS = 60_000
_EVENTS_A_PAGE = 1000


class Delivery:
    """What the sender is handed.

    Args:
        settings: How long a hold lasts.
        client: The way to Autumn.
        outbox: Where charges that nobody wrote down are put when they are found.
    """

    def __init__(self, settings: AutumnSettings, *, client: AutumnClient, outbox: "Outbox") -> None:
        self._hold_ms = int(settings.hold_ttl * 1000)
        self._client = client
        self._outbox = outbox

    async def send(self, entry: Entry) -> Entry | None:
        """Do what `entry` says and return what follows from it, if anything does."""
        match entry.action:
            case Action.TRACK:
                await self._track(entry)
                return None
            case Action.CONFIRM | Action.RELEASE:
                return await self._finalize(entry)
            case Action.LOOK_UP:
                return await self._look_up(entry)
            case _:
                assert_never(entry.action)

    async def recover(self, worker: "LostWorker") -> None:
        """Find the charges that a lost worker made and never wrote down, and give them back.

        Such a charge never got as far as an answer to a customer, or it ended in the worker's last moments.
        """
        prefix = f"{worker.id}-"
        async for event in self._events(start=worker.seen_at - _CLOCK_SLACK_MS):
            charge_id = str(event.properties.get("charge_id", ""))
            number = charge_id.removeprefix(prefix)
            is_deduction = event.value > 0 and "settlement" not in event.properties
            if not charge_id.startswith(prefix) or not number.isdecimal() or not is_deduction:
                continue
            if int(number) > worker.complete_to:
                self._outbox.put(
                    Entry(
                        charge_id=charge_id,
                        customer_id=event.customer_id or "",
                        feature_id=event.feature_id,
                        credits=event.value,
                        action=Action.TRACK,
                        value=-event.value,
                        reason="the process died",
                        created_at=event.timestamp,
                    )
                )
        await self._outbox.flush()

    async def _track(self, entry: Entry) -> None:
        await self._client.balances.track(
            entry.customer_id,
            feature_id=entry.feature_id,
            entity_id=entry.entity_id,
            value=entry.value,
            properties={"charge_id": entry.charge_id, "settlement": "track", "reason": entry.reason},
            idempotency_key=entry.idempotency_key,
        )

    async def _finalize(self, entry: Entry) -> Entry | None:
        confirm = entry.action is Action.CONFIRM
        override = entry.value if confirm and entry.value != entry.credits else None
        try:
            await self._client.balances.finalize(
                entry.charge_id,
                "confirm" if confirm else "release",
                override_value=override,
                idempotency_key=entry.idempotency_key,
            )
        except RequestRejected as error:
            if "lock not found" not in error.message.lower():
                raise
            return self._without_hold(entry)
        return None

    def _without_hold(self, entry: Entry) -> Entry | None:
        """The hold is gone. If its time had run out, Autumn gave it back, and a call that went through still costs."""
        expired = self._outbox.now() > entry.created_at + self._hold_ms
        never_placed = entry.maybe_sent_at is None
        if entry.action is Action.CONFIRM and (expired or never_placed):
            return replace(entry, action=Action.TRACK, reason=f"{entry.reason}; its hold was gone", due_at=0)
        return None

    async def _look_up(self, entry: Entry) -> Entry | None:
        start = entry.created_at - _CLOCK_SLACK_MS
        async for event in self._events(start=start, customer_id=entry.customer_id):
            if event.properties.get("charge_id") == entry.charge_id and event.value > 0:
                if entry.value == Decimal(0):
                    return None
                return replace(entry, action=Action.TRACK, due_at=0, attempts=0, maybe_sent_at=None)
        return None

    async def _events(self, *, start: int, customer_id: str | None = None) -> AsyncIterator[Event]:
        cursor = ""
        while True:
            page = await self._client.events.list(
                customer_id=customer_id,
                start=start,
                end=self._outbox.now() + _CLOCK_SLACK_MS,
                start_cursor=cursor,
                limit=_EVENTS_A_PAGE,
            )
            for event in page.list:
                yield event
            if not page.next_cursor:
                return
            cursor = page.next_cursor
