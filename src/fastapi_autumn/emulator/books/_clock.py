"""Time: a clock that can be moved, and the calendar of resets, trials and windows.

Times are milliseconds since 1970 (UTC), as on the wire.
"""

from __future__ import annotations

import calendar
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

SECOND = 1_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR

_FIXED = {"minute": 60 * SECOND, "hour": HOUR, "day": DAY, "week": 7 * DAY}
_MONTHS = {"month": 1, "quarter": 3, "semi_annual": 6, "year": 12}
RESET_INTERVALS = ("one_off", *_FIXED, *_MONTHS)
BILLING_INTERVALS = ("one_off", "week", *_MONTHS)


class Clock:
    """The emulator's time: a source, plus an offset that lives in the emulator's file so that all workers see it."""

    def __init__(self, source: Callable[[], int], offset: Callable[[], int], move: Callable[[int], None]) -> None:
        self._source = source
        self._offset = offset
        self._move = move

    def now(self) -> int:
        """Return the emulator's time in milliseconds."""
        return self._source() + self._offset()

    def advance(
        self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0, milliseconds: float = 0
    ) -> None:
        """Move time forward. Resets, expiries and trials that fall due happen at the next request."""
        step = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds, milliseconds=milliseconds)
        if step < timedelta(0):
            raise ValueError("the emulator's clock moves forward only")
        self._move(int(step / timedelta(milliseconds=1)))


def add_interval(start: int, interval: str, count: int = 1) -> int:
    """Return `start` plus `count` intervals. A month keeps the day, or takes the last one of a shorter month."""
    if interval in _FIXED:
        return start + _FIXED[interval] * count
    moment = datetime.fromtimestamp(start / 1_000, UTC)
    months = moment.month - 1 + _MONTHS[interval] * count
    year, month = moment.year + months // 12, months % 12 + 1
    day = min(moment.day, calendar.monthrange(year, month)[1])
    moved = moment.replace(year=year, month=month, day=day, microsecond=0)
    return int(moved.timestamp()) * 1_000 + start % 1_000


def next_after(anchor: int, interval: str, count: int, now: int) -> int:
    """Return the first time after `now` that lies whole intervals away from `anchor`.

    Counting from the anchor keeps the 31st the 31st: a month that ends early does not move the ones after it.
    """
    steps = _whole_intervals(anchor, interval, count, now)
    while add_interval(anchor, interval, count * (steps - 1)) > now:
        steps -= 1
    while add_interval(anchor, interval, count * steps) <= now:
        steps += 1
    return add_interval(anchor, interval, count * steps)


def window_start(anchor: int, interval: str, now: int) -> int:
    """Return the start of the interval around `now`, counted from `anchor`."""
    return add_interval(next_after(anchor, interval, 1, now), interval, -1)


def calendar_start(interval: str, now: int) -> int:
    """Return the start of the day, week (Monday), month or year around `now`, in UTC."""
    moment = datetime.fromtimestamp(now // 1_000, UTC).replace(hour=0, minute=0, second=0)
    if interval == "week":
        moment -= timedelta(days=moment.weekday())
    elif interval in ("month", "year"):
        moment = moment.replace(day=1, month=moment.month if interval == "month" else 1)
    return int(moment.timestamp()) * 1_000


def _whole_intervals(anchor: int, interval: str, count: int, now: int) -> int:
    length = _FIXED.get(interval) or _MONTHS[interval] * 30 * DAY
    return (now - anchor) // (length * count)
