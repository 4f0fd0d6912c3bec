"""Doing at Autumn what the entries of the outbox say."""

import asyncio
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
_SECONDS_BETWEEN_PAGES = 0.2


class Delivery:
    """What the sender is handed.

    Args:
        settings: How long Autumn's event log may take to show what has happened.
        client: The way to Autumn.
        outbox: Whose clock is used.
    """

    def __init__(self, settings: AutumnSettings, *, client: AutumnClient, outbox: "Outbox") -> None:
        self._event_delay_ms = int(settings.event_delay * 1000)
        self._client = client
        self._outbox = outbox
        self._next_page_at: dict[str | None, float] = {}

    async def send(self, entry: Entry) -> Entry | None:
        """Do what `entry` says and return what follows from it, if anything does."""
        match entry.action:
            case Action.TRACK | Action.CORRECT:
                if not (entry.look_first and await self._is_tracked(entry)):
                    await self._track(entry)
                return None
            case Action.CONFIRM | Action.RELEASE:
                return await self._finalize(entry)
            case Action.LOOK_UP:
                return await self._look_up(entry)
            case _:
                assert_never(entry.action)

    async def recover(self, worker: "LostWorker") -> list[Entry]:
        """Find the charges that a lost worker made and never wrote down, and return what gives them back.

        Such a charge never got as far as an answer to a customer, or it ended in the worker's last moments.
        """
        prefix = f"{worker.id}-"
        found = []
        async for event in self._events(start=worker.seen_at - _CLOCK_SLACK_MS):
            charge_id = str(event.properties.get("charge_id", ""))
            number = charge_id.removeprefix(prefix)
            is_deduction = event.value > 0 and "settlement" not in event.properties
            if not charge_id.startswith(prefix) or not number.isdecimal() or not is_deduction:
                continue
            if int(number) > worker.complete_to:
                found.append(
                    Entry(
                        charge_id=charge_id,
                        customer_id=event.customer_id or "",
                        feature_id=event.feature_id,
                        entity_id=event.entity_id,
                        credits=event.value,
                        action=Action.TRACK,
                        value=-event.value,
                        reason="the process died",
                        created_at=event.timestamp,
                    )
                )
        return found

    async def _track(self, entry: Entry) -> None:
        await self._client.balances.track(
            entry.customer_id,
            feature_id=entry.feature_id,
            entity_id=entry.entity_id,
            value=entry.value,
            properties={
                "charge_id": entry.charge_id,
                "settlement": entry.action.value,
                "reason": entry.reason,
            },
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
            return self._without_hold(entry) if confirm else None
        return None

    def _without_hold(self, entry: Entry) -> Entry:
        """A call that went through costs even if its hold is gone."""
        again = replace(entry, reason=f"{entry.reason}; its hold was gone", attempts=0, maybe_sent_at=None)
        if entry.maybe_sent_at is None and not entry.look_first:
            # Nobody else finalizes it: its time has run out, or it was never placed.
            return replace(again, action=Action.TRACK, due_at=0)
        # Or else an attempt whose answer was lost has confirmed it. The event log knows.
        due_at = self._outbox.now() + self._event_delay_ms
        return replace(again, action=Action.LOOK_UP, value=entry.value - entry.credits, due_at=due_at)

    async def _look_up(self, entry: Entry) -> Entry | None:
        taken, total, settled = False, Decimal(0), False
        async for event in self._events_of(entry):
            taken = taken or event.value > 0
            settled = settled or event.properties.get("settlement") == Action.TRACK.value
            total += event.value
        missing = entry.credits + entry.value - total
        if not taken or not missing:
            return None
        # The key of a first settlement is used up if there was one.
        action = Action.CORRECT if settled else Action.TRACK
        return replace(entry, action=action, value=missing, due_at=0, attempts=0, maybe_sent_at=None)

    async def _is_tracked(self, entry: Entry) -> bool:
        async for event in self._events_of(entry):
            if event.properties.get("settlement") == entry.action.value:
                return True
        return False

    async def _events_of(self, entry: Entry) -> AsyncIterator[Event]:
        async for event in self._events(start=entry.created_at - _CLOCK_SLACK_MS, customer_id=entry.customer_id):
            if event.properties.get("charge_id") == entry.charge_id:
                yield event

    async def _events(self, *, start: int, customer_id: str | None = None) -> AsyncIterator[Event]:
        cursor = ""
        while True:
            await self._keep_to_the_limit(customer_id)
            page = await self._client.events.list(
                customer_id=customer_id,
                start=start,
                start_cursor=cursor,
                limit=_EVENTS_A_PAGE,
            )
            for event in page.list:
                yield event
            if not page.next_cursor:
                return
            cursor = page.next_cursor

    async def _keep_to_the_limit(self, customer_id: str | None) -> None:
        """Wait for this customer's turn: Autumn answers five pages a second for each."""
        now = asyncio.get_running_loop().time()
        at = max(now, self._next_page_at.get(customer_id, 0.0))
        if len(self._next_page_at) > _EVENTS_A_PAGE:
            self._next_page_at = {id_: next_at for id_, next_at in self._next_page_at.items() if next_at > now}
        self._next_page_at[customer_id] = at + _SECONDS_BETWEEN_PAGES
        await asyncio.sleep(at - now)
