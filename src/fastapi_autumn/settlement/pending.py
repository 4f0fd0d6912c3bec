"""What the next commit will write: the outbox's memory, in which nothing waits and nothing can fail."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fastapi_autumn.settlement import ledger
from fastapi_autumn.settlement.entry import Doubt, Entry
from fastapi_autumn.settlement.store import Change, Delivered, Ended, Opened, State

__all__ = ["Pending", "Taken"]


@dataclass(frozen=True, slots=True)
class Taken:
    """What was handed over to be committed."""

    changes: Mapping[str, Change] = field(default_factory=dict)
    unwritten: Mapping[str, Entry] = field(default_factory=dict)
    """Charges that began and ended between two commits and leave no row."""


class Pending:
    """The newest change of each charge, the charges that are under way, and those that came and went unseen."""

    def __init__(self) -> None:
        self._open: dict[str, Entry] = {}
        self._contested: set[str] = set()
        self._changes: dict[str, Change] = {}
        # Until a commit says that this worker was complete up to here, others that take it for dead would find these
        # charges in Autumn's log and give them back. So they are remembered, in case that happens.
        self._unwritten: dict[str, Entry] = {}

    def __len__(self) -> int:
        return len(self._changes)

    @property
    def unproven(self) -> int:
        """How many charges of this process the database does not know to have ended as they did."""
        return len(self._changes) + len(self._unwritten)

    @property
    def open_charges(self) -> int:
        """How many charges are under way."""
        return len(self._open)

    def open(self, entry: Entry) -> None:
        """Note a charge that begins."""
        self._open[entry.charge_id] = entry
        self._changes[entry.charge_id] = Opened(entry)

    def end(self, entry: Entry, *, owed: bool) -> None:
        """Note a charge that has ended; `entry` says what it came to."""
        was_open = self._open.pop(entry.charge_id, None) is not None
        if entry.charge_id in self._contested:
            self._contested.discard(entry.charge_id)
            self._changes[entry.charge_id] = Ended(_contested(entry), owed=True)
        elif owed:
            journalled = was_open and ledger.ends_by_itself(entry.charging)
            self._changes[entry.charge_id] = Ended(entry, owed=True, journalled=journalled)
        elif was_open:
            self._forget(entry)

    def _forget(self, entry: Entry) -> None:
        change = self._changes.get(entry.charge_id)
        if isinstance(change, Opened) and change.fresh:
            del self._changes[entry.charge_id]
            self._unwritten[entry.charge_id] = entry
        else:
            self._changes[entry.charge_id] = Ended(entry, owed=False)

    def delivered(self, entry: Entry, state: State | None, until: int | None = None) -> None:
        """Note what became of a claimed row, unless this process says something else about its charge by now.

        It does if others took it for dead and it claimed, as anybody may, what they had made of a charge of its own.
        """
        if isinstance(self._changes.get(entry.charge_id), Delivered | None):
            self._changes[entry.charge_id] = Delivered(entry, state, until)

    def take(self) -> Taken:
        """Hand over what is to be written."""
        taken = Taken(self._changes, self._unwritten)
        self._changes, self._unwritten = {}, {}
        return taken

    def take_back(self, taken: Taken) -> None:
        """Keep what could not be written; what came in meanwhile is newer and wins, but not as in `delivered`."""
        for charge_id, change in taken.changes.items():
            newer = self._changes.get(charge_id)
            if newer is None or (isinstance(newer, Delivered) and not isinstance(change, Delivered)):
                newer = change
            # A commit that failed may have got through all the same.
            self._changes[charge_id] = replace(newer, fresh=False) if isinstance(newer, Opened) else newer
        self._unwritten = {**taken.unwritten, **self._unwritten}

    def contest(self, taken: Taken) -> None:
        """Have every charge checked that others may have settled, because they took this worker for dead.

        That is every charge that was not known to have ended when the worker last showed life. `taken` was not written.
        """
        changes = {**taken.changes, **self._changes}
        ended = {**taken.unwritten, **self._unwritten}
        ends = {charge_id: change for charge_id, change in changes.items() if isinstance(change, Ended)}
        ended |= {charge_id: change.entry for charge_id, change in ends.items()}
        self._contested = set(self._open)
        self._unwritten = {}
        # What was claimed under the old name is delivered by whoever has claimed it since.
        self._changes = {charge_id: Opened(entry, fresh=False) for charge_id, entry in self._open.items()}
        for charge_id, entry in ended.items():
            if charge_id in self._open:
                continue
            # A hold of which nothing was noted before is in no journal, so nobody else can have settled it.
            end = ends.get(charge_id)
            alone = ledger.ends_by_itself(entry.charging) and end is not None and not end.journalled
            ending = entry if alone else _contested(entry)
            self._changes[charge_id] = Ended(ending, owed=True)


def _contested(entry: Entry) -> Entry:
    """Begin with the first key that others can have used."""
    number = 0 if entry.taken is None else max(1, entry.key_number)
    return entry._replace(contested=True, doubt=Doubt.UNKNOWN, key_number=number)
