"""What the outbox needs of a database: a small interface, so that the rule above it can be tried without one.

`SqlStore` keeps the rows in SQLite or PostgreSQL. The tests have another one in memory, and one suite of tests that
both have to pass.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from fastapi_autumn.settlement.entry import Entry

__all__ = [
    "NOBODY",
    "Account",
    "Batch",
    "Change",
    "Delivered",
    "Ended",
    "Opened",
    "Row",
    "State",
    "Store",
    "TakenForDeadError",
    "WorkerRow",
]

State = Literal["open", "due", "shortfall"]
"""A charge that is under way; one that Autumn has to be told about; one that a person has to look at."""


@dataclass(frozen=True, slots=True)
class Account:
    """Whose rows these are: which Autumn, and which organisation and environment there.

    Services that share a database share only the rows of their own account. The key itself is never stored. What is, is
    a digest of it, which is known at once; the organisation is learnt from Autumn and makes the keys of one
    organisation, before and after a rotation, the same account.
    """

    key_digest: str
    origin: str
    environment: str
    """`sandbox`, `live` or `emulator`."""
    organisation: str | None = None


NOBODY = Account(key_digest="", origin="", environment="")
"""The account of a person who looks at the rows of all accounts, and writes none."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A charge of this process begins. Until it ends, its row says what to do if the process dies."""

    entry: Entry
    fresh: bool = True
    """No commit can have written it yet."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A charge of this process has ended. Unless something is owed, no row is left."""

    entry: Entry
    owed: bool
    journalled: bool = False
    """A hold that may have a row: whoever takes this worker for dead may settle it, as every deduction."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """What became of a row that this process had claimed. Void if anybody has claimed or written the row since."""

    entry: Entry
    state: State | None
    until: int | None = None
    """When the claim ends. It tells this claim from a later one of the same process; None stands for any."""


Change = Opened | Ended | Delivered


@dataclass(frozen=True, slots=True)
class Batch:
    """What one commit writes.

    A commit is also the worker's heartbeat. `beat` grows with each attempt, and `confirmed` is the one of the last
    commit whose answer came: a database that knows less than that has been restored from an older copy.
    """

    worker_id: str
    beat: int
    confirmed: int
    complete_to: int
    """Charges up to this number have either a row or nothing left to do."""
    seen_at: int
    changes: Mapping[str, Change] = field(default_factory=dict)
    former_id: str | None = None
    """Set when the worker begins again under a new id: rows that are still open under the old one are obsolete."""


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A worker as the database knows it. `seen_at` is its own wall clock at its last commit, in ms."""

    id: str
    beat: int
    complete_to: int
    seen_at: int


@dataclass(frozen=True, slots=True)
class Row:
    """A row, for people."""

    state: State
    entry: Entry
    account: Account


class TakenForDeadError(Exception):
    """The database does not know this worker, or knows an earlier state of it."""


class Store(Protocol):
    """Rows of charges, and the workers they belong to. Each method is one transaction. Times are ms.

    Raises:
        TakenForDeadError: From `commit`, when others may have settled what is open here.
        Exception: Whatever the database raises. The commit may have got through all the same.
    """

    async def open(self) -> None:
        """Connect, and create or migrate what is missing."""
        ...

    @property
    def account(self) -> Account:
        """Whose rows are written and worked on."""
        ...

    async def learn(self, organisation: str) -> None:
        """Note which organisation the account's key belongs to."""
        ...

    async def close(self) -> None:
        """Disconnect."""
        ...

    async def commit(self, batch: Batch) -> None:
        """Write a batch, if the worker is still known as it was."""
        ...

    async def leave(self, worker_id: str) -> None:
        """Forget a worker that has written everything."""
        ...

    async def claim(self, worker_id: str, *, limit: int, doubtful: bool, now: int, until: int) -> list[Entry]:
        """Take rows that are due, oldest first, for this worker alone until `until`.

        `doubtful` are those for which the log has to be asked; they are slow, and must not hold up the others. A row
        whose last claim ran out comes back in doubt: whoever had it may have sent it.
        """
        ...

    async def renew(self, worker_id: str, charge_ids: Sequence[str], *, until: int) -> None:
        """Keep rows claimed that this worker has claimed before; those that others have claimed since are theirs."""
        ...

    async def workers(self) -> list[WorkerRow]:
        """Return the workers of this account."""
        ...

    async def claim_worker(self, worker: WorkerRow, *, now: int, until: int) -> bool:
        """Take a silent worker, for this one to settle its charges; False if it is taken or has shown life since."""
        ...

    async def take_over(self, worker: WorkerRow, *, by: str, unwritten: Sequence[Entry], now: int) -> int | None:
        """Make a silent worker's open charges due, add those it never wrote, and forget it; None if it lives.

        Its claims end. Returns how many charges were taken over.
        """
        ...

    async def adopt_orphans(self, *, by: str, now: int) -> int:
        """Make open charges due whose worker has left, and end its claims; returns how many charges."""
        ...

    async def list(self, state: State | None = None, *, limit: int = 100, everybody: bool = False) -> Sequence[Row]:
        """Return rows, oldest first; `everybody` includes those of other accounts."""
        ...

    async def count(self, *, everybody: bool = False) -> dict[State, int]:
        """Return how many rows are in each state; `everybody` includes those of other accounts."""
        ...

    async def next_due_at(self) -> int | None:
        """Return when the next row of this account is due, or None where nothing waits."""
        ...

    async def retry(self, charge_id: str, *, now: int) -> bool:
        """Make a row that a person looked at due again, from the log on; returns whether there was one."""
        ...

    async def drop(self, charge_id: str) -> bool:
        """Delete a row unsent; returns whether there was one."""
        ...
