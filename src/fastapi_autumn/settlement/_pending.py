"""What the next commit will write: the outbox's memory, in which nothing waits and nothing can fail."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import NamedTuple

from fastapi_autumn.settlement._entry import Entry
from fastapi_autumn.settlement._outcome import Action
from fastapi_autumn.settlement._tables import State

__all__ = ["Change", "Pending"]


class Change(NamedTuple):
    """What the next commit does to one row. `state` is None where no row is to be left."""

    entry: Entry
    state: State | None
    journalled: bool = False
    """A charge of this process was noted before its credits were taken, and this follows from that."""
    written: bool = False
    """A row may be there already."""
    claimed: bool = False
    """The result of a delivery; void if the row belongs to somebody else by now."""


class Pending:
    """Changes by charge, the newest of each, and the charges that are open.

    Args:
        doubt: How long others may still be at work on a charge that they took for a dead worker's, in milliseconds.
        now: The time in milliseconds.
    """

    def __init__(self, *, doubt: int, now: Callable[[], int]) -> None:
        self._doubt = doubt
        self._now = now
        self._open: dict[str, Entry] = {}
        self._in_doubt: set[str] = set()
        self._changes: dict[str, Change] = {}

    def __len__(self) -> int:
        return len(self._changes)

    @property
    def open_charges(self) -> int:
        """How many charges are open."""
        return len(self._open)

    def open(self, entry: Entry) -> None:
        """A charge is opened."""
        self._open[entry.charge_id] = entry
        self.note(Change(entry, "open", journalled=True))

    def put(self, entry: Entry) -> None:
        """A charge is closed, and something is to be done."""
        journalled = self._open.pop(entry.charge_id, None) is not None
        change = Change(entry, "due", journalled=journalled)
        if entry.charge_id in self._in_doubt:
            self._in_doubt.discard(entry.charge_id)
            change = self._compared(change)
        self.note(change)

    def close(self, charge_id: str) -> None:
        """A charge is closed, and nothing is to be done."""
        entry = self._open.pop(charge_id, None)
        if entry is None:
            return
        change = Change(entry, None, journalled=True)
        if charge_id in self._in_doubt:
            self._in_doubt.discard(charge_id)
            self.note(self._compared(change))
            return
        unwritten = self._changes.get(charge_id)
        if unwritten is not None and not unwritten.written:
            del self._changes[charge_id]
        else:
            self.note(change)

    def note(self, change: Change) -> None:
        """Whatever was noted for this charge before is overtaken."""
        self._changes[change.entry.charge_id] = change

    def take(self) -> dict[str, Change]:
        """Hand over what is to be written."""
        changes, self._changes = self._changes, {}
        return changes

    def take_back(self, changes: Mapping[str, Change]) -> None:
        """Keep what could not be written; what came in meanwhile is newer and wins."""
        for charge_id, change in changes.items():
            # A commit that failed may have got through all the same.
            self._changes.setdefault(charge_id, change._replace(written=True))

    def doubt(self, changes: Mapping[str, Change]) -> None:
        """Others have begun to settle what was open here: write it again, and have each compared when it ends.

        `changes` were not written either.
        """
        unwritten = {**changes, **self._changes}
        self._in_doubt = set(self._open)
        self._changes = {
            charge_id: Change(entry, "open", journalled=True, written=True) for charge_id, entry in self._open.items()
        }
        for charge_id, change in unwritten.items():
            # Claims went with the old name; who has them now delivers them, under the same keys.
            if charge_id not in self._open and change.state != "open" and not change.claimed:
                self._changes[charge_id] = self._compared(change) if change.journalled else change

    def _compared(self, change: Change) -> Change:
        """Have a charge that others may have given back brought to what it should come to."""
        value = change.entry.value if change.state == "due" else Decimal(0)
        # By then a delivery that is under way has ended, one way or the other.
        due_at = max(change.entry.due_at, self._now() + self._doubt)
        return Change(replace(change.entry, action=Action.LOOK_UP, value=value, due_at=due_at), "due")
