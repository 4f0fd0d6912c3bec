"""A `Store` in memory: the semantics of `SqlStore` in dictionaries, and seams where a simulator makes trouble."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from fastapi_autumn.settlement.entry import Doubt, Entry
from fastapi_autumn.settlement.store import (
    NOBODY,
    Account,
    Batch,
    Delivered,
    Ended,
    Opened,
    Row,
    State,
    TakenForDeadError,
    WorkerRow,
)

__all__ = ["MemoryDatabase", "MemoryStore"]

_PER_CUSTOMER = 4


@dataclass(slots=True)
class _Charge:
    entry: Entry
    account: str
    state: State
    owner: str
    lease_until: int = 0


@dataclass(slots=True)
class _Worker:
    row: WorkerRow
    account: str
    lease_until: int = 0


@dataclass
class MemoryDatabase:
    """What several stores share. It outlives the processes that open it."""

    charges: dict[str, _Charge] = field(default_factory=dict)
    workers: dict[str, _Worker] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)

    def backup(self) -> "MemoryDatabase":
        """Return a copy, as of now."""
        return copy.deepcopy(self)

    def restore(self, backup: "MemoryDatabase") -> None:
        """Become what a copy was. Whoever has it open goes on with that."""
        fresh = backup.backup()
        self.charges, self.workers, self.accounts = fresh.charges, fresh.workers, fresh.accounts


class MemoryStore:
    """See `Store`.

    Each method calls `before` with its own name, does its work at once, and calls `after`. A subclass that raises in
    `before` loses a call, one that raises in `after` loses its answer, and one that waits is slow.
    """

    def __init__(self, database: MemoryDatabase, account: Account = NOBODY) -> None:
        self.database = database
        self.account = account

    async def before(self, what: str) -> None:
        """Run before the work of the method that is called `what`."""

    async def after(self, what: str) -> None:
        """Run after it."""

    async def open(self) -> None:
        await self.before("open")
        if self.account != NOBODY:
            self._join()
        await self.after("open")

    def _join(self) -> None:
        self.account = self.database.accounts.setdefault(self.account.key_digest, self.account)

    async def close(self) -> None:
        await self.before("close")
        await self.after("close")

    async def learn(self, organisation: str) -> None:
        await self.before("learn")
        self.account = replace(self.account, organisation=organisation)
        self.database.accounts[self.account.key_digest] = self.account
        await self.after("learn")

    # Writing.

    async def commit(self, batch: Batch) -> None:
        await self.before("commit")
        if self.account != NOBODY:
            # As for a file that was deleted: whoever finds an empty one says again whose rows these are.
            self._join()
        self._beat(batch)
        if batch.former_id is not None:
            self.database.workers.pop(batch.former_id, None)
            for charge_id, charge in list(self.database.charges.items()):
                if charge.owner == batch.former_id and charge.state == "open":
                    del self.database.charges[charge_id]
        for charge_id, change in batch.changes.items():
            self._write(charge_id, change, batch.worker_id)
        await self.after("commit")

    def _beat(self, batch: Batch) -> None:
        row = WorkerRow(batch.worker_id, batch.beat, batch.complete_to, batch.seen_at)
        known = self.database.workers.get(batch.worker_id)
        if batch.confirmed and (known is None or not batch.confirmed <= known.row.beat < batch.beat):
            raise TakenForDeadError
        if known is None:
            self.database.workers[batch.worker_id] = _Worker(row, self.account.key_digest)
        else:
            known.row = row

    def _write(self, charge_id: str, change: Opened | Ended | Delivered, owner: str) -> None:
        charges = self.database.charges
        match change:
            case Opened(entry):
                charges[charge_id] = self._charge(entry, "open", owner)
            case Ended(entry, owed=True):
                charges[charge_id] = self._charge(entry, "due", owner)
            case Ended():
                charges.pop(charge_id, None)
            case Delivered(entry, state, until):
                if charge_id not in charges or charges[charge_id].owner != owner or not charges[charge_id].lease_until:
                    return
                if until is not None and charges[charge_id].lease_until != until:
                    return
                if state is None:
                    del charges[charge_id]
                else:
                    charges[charge_id] = self._charge(entry, state, owner)

    def _charge(self, entry: Entry, state: State, owner: str) -> _Charge:
        return _Charge(entry, self.account.key_digest, state, owner)

    async def leave(self, worker_id: str) -> None:
        await self.before("leave")
        self.database.workers.pop(worker_id, None)
        await self.after("leave")

    # Delivering.

    async def claim(self, worker_id: str, *, limit: int, doubtful: bool, now: int, until: int) -> list[Entry]:
        await self.before("claim")
        found = [
            charge
            for charge in self._ours("due")
            if charge.entry.due_at <= now
            and charge.lease_until < now
            and (charge.entry.doubt is not Doubt.NONE) is doubtful
        ]
        if not found:
            await self.after("claim")
            return []
        found.sort(key=lambda charge: (charge.entry.due_at, charge.entry.charge_id))
        if doubtful:
            found = _in_turn(found)
        claimed = found[:limit]
        for charge in claimed:
            if charge.lease_until and charge.entry.doubt is Doubt.NONE:
                charge.entry = charge.entry._replace(doubt=Doubt.UNKNOWN)
            charge.owner, charge.lease_until = worker_id, until
        await self.after("claim")
        return sorted((charge.entry for charge in claimed), key=lambda entry: (entry.due_at, entry.charge_id))

    async def renew(self, worker_id: str, charge_ids: Sequence[str], *, until: int) -> None:
        await self.before("renew")
        for charge in self._ours("due"):
            if charge.entry.charge_id in charge_ids and charge.owner == worker_id and charge.lease_until:
                charge.lease_until = until
        await self.after("renew")

    # Workers.

    async def workers(self) -> list[WorkerRow]:
        await self.before("workers")
        ours = self._accounts()
        found = [worker.row for _, worker in sorted(self.database.workers.items()) if worker.account in ours]
        await self.after("workers")
        return found

    async def claim_worker(self, worker: WorkerRow, *, now: int, until: int) -> bool:
        await self.before("claim_worker")
        known = self._silent(worker)
        taken = known is not None and known.lease_until < now
        if known is not None and taken:
            known.lease_until = until
        await self.after("claim_worker")
        return taken

    async def take_over(self, worker: WorkerRow, *, by: str, unwritten: Sequence[Entry], now: int) -> int | None:
        await self.before("take_over")
        taken: int | None = None
        if self._silent(worker) is not None:
            del self.database.workers[worker.id]
            taken = self._adopt(lambda charge: charge.owner == worker.id, by=by, now=now) + len(unwritten)
            for entry in unwritten:
                self.database.charges.setdefault(entry.charge_id, self._charge(entry, "due", by))
        await self.after("take_over")
        return taken

    async def adopt_orphans(self, *, by: str, now: int) -> int:
        await self.before("adopt_orphans")
        adopted = self._adopt(lambda charge: charge.owner not in self.database.workers, by=by, now=now)
        await self.after("adopt_orphans")
        return adopted

    def _silent(self, worker: WorkerRow) -> _Worker | None:
        known = self.database.workers.get(worker.id)
        return known if known is not None and known.row.beat == worker.beat else None

    def _adopt(self, whose, *, by: str, now: int) -> int:
        for charge in self._ours("due"):
            if whose(charge) and charge.lease_until >= now:
                charge.lease_until = now - 1
        adopted = [charge for charge in self._ours("open") if whose(charge)]
        for charge in adopted:
            charge.entry = charge.entry._replace(due_at=now)
            charge.state, charge.owner, charge.lease_until = "due", by, 0
        return len(adopted)

    # For people.

    async def list(self, state: State | None = None, *, limit: int = 100, everybody: bool = False) -> Sequence[Row]:
        await self.before("list")
        rows = [
            Row(charge.state, charge.entry, self.database.accounts[charge.account])
            for charge in self._ours(state, everybody=everybody)
        ]
        rows.sort(key=lambda row: (row.entry.created_at, row.entry.charge_id))
        await self.after("list")
        return rows[:limit]

    async def count(self, *, everybody: bool = False) -> dict[State, int]:
        await self.before("count")
        counted: dict[State, int] = {"open": 0, "due": 0, "shortfall": 0}
        for charge in self._ours(everybody=everybody):
            counted[charge.state] += 1
        await self.after("count")
        return counted

    async def next_due_at(self) -> int | None:
        await self.before("next_due_at")
        due_at = min((charge.entry.due_at for charge in self._ours("due")), default=None)
        await self.after("next_due_at")
        return due_at

    async def retry(self, charge_id: str, *, now: int) -> bool:
        await self.before("retry")
        charge = self.database.charges.get(charge_id)
        kept = charge is not None and charge.state == "shortfall"
        if charge is not None and kept:
            charge.state, charge.lease_until = "due", 0
            charge.entry = charge.entry._replace(due_at=now, doubt=Doubt.UNKNOWN, attempts=0)
        await self.after("retry")
        return kept

    async def drop(self, charge_id: str) -> bool:
        await self.before("drop")
        dropped = self.database.charges.pop(charge_id, None) is not None
        await self.after("drop")
        return dropped

    # Whose rows.

    def _accounts(self) -> set[str]:
        """The keys of one organisation are one account."""
        mine = self.account
        if len(self.database.accounts) < 2:
            return {mine.key_digest}
        same = {mine.key_digest}
        known = self.database.accounts.get(mine.key_digest)
        if known is not None and known.organisation is not None:
            same |= {
                account.key_digest
                for account in self.database.accounts.values()
                if (account.origin, account.environment, account.organisation)
                == (known.origin, known.environment, known.organisation)
            }
        return same

    def _ours(self, state: State | None = None, *, everybody: bool = False) -> Iterator[_Charge]:
        ours = self._accounts()
        for charge in self.database.charges.values():
            if (everybody or charge.account in ours) and state in {None, charge.state}:
                yield charge


def _in_turn(charges: Sequence[_Charge]) -> Sequence[_Charge]:
    """The first of each customer, then the second of each, and at most four of one."""
    places: dict[str, int] = {}
    ranked = []
    for charge in charges:
        place = places[charge.entry.customer_id] = places.get(charge.entry.customer_id, 0) + 1
        ranked.append((place, charge))
    ranked.sort(key=lambda pair: pair[0])
    return [charge for place, charge in ranked if place <= _PER_CUSTOMER]
