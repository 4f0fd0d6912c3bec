"""The event log's delay: Autumn gathers events and writes them when 350 ms were quiet, or when 200 have come together.

Under steady traffic an event is therefore seen late: 200 events that come 0.3 seconds apart wait a minute. Off unless
the emulator was given `event_quiet_ms`, so that what is done is seen at once.
"""

from __future__ import annotations

from fastapi_autumn.emulator.http._store import Store

_MOST = 200


def wait(store: Store, number: int, *, now: int, quiet_ms: int) -> None:
    """Let a new event, the one in row `number`, wait for quiet; what waited before may have been written by now."""
    first = hidden_from(store, now=now, quiet_ms=quiet_ms)
    if first is None:
        first = number
    elif waiting(store, first) >= _MOST:
        first = None
    store.run("INSERT OR REPLACE INTO event_log VALUES (1, ?, ?)", first, now)


def hidden_from(store: Store, *, now: int, quiet_ms: int) -> int | None:
    """Return the row of the first event that is not written yet; None if all are."""
    row = store.row("SELECT first_waiting, last_at FROM event_log") if quiet_ms else None
    return row[0] if row is not None and now - row[1] < quiet_ms else None


def waiting(store: Store, first: int) -> int:
    """Count the events that wait."""
    row = store.row("SELECT count(*) FROM events WHERE seq >= ?", first)
    return int(row[0]) if row else 0
