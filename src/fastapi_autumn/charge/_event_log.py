"""Autumn's event log: what it says that a charge has come to."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from decimal import Decimal

from fastapi_autumn.client import AutumnClient
from fastapi_autumn.models import Event
from fastapi_autumn.settlement import Entry, ledger

__all__ = ["SCAN_SLACK_MS", "EventLog", "Shown"]

_HOUR_MS = 3_600_000
_SUM_SLACK_MS = 12 * _HOUR_MS
"""How far clocks may be apart without a charge being missed in a sum. A sum is asked for by charge, so it is cheap."""
SCAN_SLACK_MS = _HOUR_MS // 4
"""As above, where all events of a time have to be read. Times are by Autumn's clock, as far as that is known."""
_EVENTS_A_PAGE = 1000
_SECONDS_BETWEEN_PAGES = 0.25
_SECONDS_BETWEEN_SUMS = 0.1
"""Autumn answers 25 such calls a second for the whole organisation, and 5 pages of the log for one customer."""
_CUSTOMERS_REMEMBERED = 64


@dataclass(slots=True)
class Shown:
    """What the log shows for one charge.

    `asked` is the sum of what its events were asked to move, in units of the feature. `moved` is what they did move, in
    units of the balance that paid, or None where this log does not say. The two differ where a grant was used up and is
    gone, where there was not enough, and where no more could come back than was used.
    """

    asked: Decimal = Decimal(0)
    moved: Decimal | None = None

    def add(self, event: Event) -> None:
        """Count one more event."""
        self.asked += event.value
        if event.deductions is not None:
            # An event that moved nothing says nothing; it counts for nothing where another one says what it moved.
            self.moved = sum((deduction.value for deduction in event.deductions), start=self.moved or Decimal(0))


@dataclass(slots=True)
class _Reading:
    """One customer's events, read from now back to `since`.

    `begun_at` is when: what the log had to show by then is in `shown`, by feature and charge. The lock keeps others of
    the same customer waiting for one reading instead of beginning their own.
    """

    begun_at: int = -1
    since: int = 0
    shown: dict[tuple[str, str], Shown] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class EventLog:
    """Reads the log, no faster than Autumn allows.

    Args:
        client: The way to Autumn.
        now: The time of day in ms, by Autumn's clock.
    """

    def __init__(self, client: AutumnClient, *, now: Callable[[], int]) -> None:
        self._client = client
        self._now = now
        self._turns: dict[str, float] = {}
        self._readings: OrderedDict[str, _Reading] = OrderedDict()

    async def sum_of(self, entry: Entry) -> Decimal:
        """Return the sum of a charge's events. It is one call, and it may lag behind the log itself."""
        await self._turn("sums", _SECONDS_BETWEEN_SUMS)
        sums = await self._client.events.aggregate(
            entry.customer_id,
            entry.feature_id,
            filter_by={ledger.CHARGE_ID: entry.charge_id},
            start=entry.created_at - _SUM_SLACK_MS,
            end=self._now() + _SUM_SLACK_MS,
        )
        total = sums.total.get(entry.feature_id)
        return Decimal(0) if total is None else total.sum

    async def shown_for(self, entry: Entry) -> Shown:
        """Return what the events themselves say, as they were when the entry fell due or later.

        That takes all of the customer's events since the charge began, so whoever asks about the same customer
        meanwhile is answered from one reading.
        """
        since = entry.created_at - SCAN_SLACK_MS
        reading = self._reading(entry.customer_id)
        async with reading.lock:
            # An entry falls due when the log has to show all of it, so any reading begun later will do.
            if reading.begun_at <= entry.due_at or reading.since > since:
                # Further back than this one needs: the next one may have begun a little earlier.
                await self._read(reading, entry.customer_id, since - SCAN_SLACK_MS)
            return reading.shown.get((entry.feature_id, entry.charge_id), Shown())

    def _reading(self, customer_id: str) -> _Reading:
        reading = self._readings.setdefault(customer_id, _Reading())
        self._readings.move_to_end(customer_id)
        if len(self._readings) > _CUSTOMERS_REMEMBERED:
            # Whoever is waiting for the one that is forgotten still holds it.
            self._readings.popitem(last=False)
        return reading

    async def _read(self, reading: _Reading, customer_id: str, since: int) -> None:
        # The time before the first page: what comes in while the pages are read is on none of them.
        begun_at, shown = self._now(), dict[tuple[str, str], Shown]()
        async for event in self.events(start=since, customer_id=customer_id):
            charge = event.properties.get(ledger.CHARGE_ID)
            if charge is not None:
                shown.setdefault((event.feature_id, str(charge)), Shown()).add(event)
        reading.begun_at, reading.since, reading.shown = begun_at, since, shown

    async def events_since(self, start: int) -> AsyncIterator[Event]:
        """Go through all events of everybody from now back to `start`, and a little further for the clocks."""
        async for event in self.events(start=start - SCAN_SLACK_MS):
            yield event

    async def events(self, *, start: int, customer_id: str | None = None) -> AsyncIterator[Event]:
        """Go through events, newest first."""
        cursor = ""
        while True:
            await self._turn(f"pages of {customer_id}", _SECONDS_BETWEEN_PAGES)
            page = await self._client.events.list(
                customer_id=customer_id, start=start, start_cursor=cursor, limit=_EVENTS_A_PAGE
            )
            for event in page.list:
                yield event
            if not page.next_cursor:
                return
            cursor = page.next_cursor

    async def _turn(self, line: str, seconds: float) -> None:
        """Wait for one's turn in a line that moves on every so many seconds."""
        now = asyncio.get_running_loop().time()
        at = max(now, self._turns.get(line, 0.0))
        if len(self._turns) > _EVENTS_A_PAGE:
            self._turns = {name: next_at for name, next_at in self._turns.items() if next_at > now}
        # Taken before the wait, so that whoever comes meanwhile stands behind.
        self._turns[line] = at + seconds
        await asyncio.sleep(at - now)
