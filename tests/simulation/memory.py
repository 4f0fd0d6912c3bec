"""The database as dictionaries: the store in memory of the package's own tests, in virtual time, with faults."""

import copy
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from fastapi_autumn.settlement.replies import LIFETIME_MS, Attempt, Conflict, RepliesAwayError
from fastapi_autumn.settlement.sql_replies import _judge
from memory_store import MemoryDatabase, MemoryStore
from simulation.world import World

__all__ = ["SimulatedDatabase", "SimulatedStore"]

_MATTERS = {"commit", "claim_worker", "take_over", "leave", "learn", "open", "reply"}
"""What always takes time. What only looks, or only says that somebody lives, does in one of three cases: it is most of
what happens, and hardly ever does anything depend on when."""
_WRITES = {"commit", "leave", "claim", "claim_worker", "take_over", "adopt_orphans", "learn", "open", "reply"}


class DatabaseAway(Exception):
    """What a driver raises when its database does not answer."""


class Trouble:
    """What the plan says about the database. See `simulation.database.Database` for the arguments."""

    def __init__(self, world: World, *, faults: list[dict[str, Any]], weather: list[dict[str, Any]]) -> None:
        self.world = world
        self.weather = weather
        self.troubles: list[tuple[float, str]] = []
        self.saved_at = self.restored_at = -1.0
        self._faults = list(faults)
        self._draws = world.seed % 2**31

    def trouble(self, loop: Any, what: str) -> None:
        """Remember that a process could not do what it wanted."""
        self.world.happened[f"database: {what}"] += 1
        self.troubles.append((self.world.now, loop.name))
        self.world.note(loop.name, f"database: {what}")

    def is_in(self, fault: str, loop: Any) -> dict[str, Any] | None:
        """Return the weather of this kind around a process, if there is any."""
        if not self.weather:
            return None
        now = self.world.now
        for window in self.weather:
            if (
                window["fault"] == fault
                and window["at"] <= now < window["at"] + window["for"]
                and window.get("worker") in (None, loop.worker)
            ):
                return window
        return None

    def take(self, loop: Any) -> str | None:
        """Return what is to happen to this commit."""
        if not self._faults:
            return None
        for place, fault in enumerate(self._faults):
            if fault["at"] <= self.world.now and fault.get("worker") in (None, loop.worker):
                return self._faults.pop(place)["fault"]
        return None

    def draw(self) -> float:
        """Return a number from 0 up to 1. There are so many of these that a cheap sequence has to do."""
        self._draws = (self._draws * 1_103_515_245 + 12_345) % 2**31
        return (self._draws >> 8) / 2**23

    def delay(self, loop: Any) -> float:
        slow = self.is_in("slow", loop)
        return 0.0001 + 0.0007 * self.draw() + (slow["d"] if slow else 0.0)

    def restored(self) -> None:
        self.restored_at = self.world.now
        self.world.note("database", "IS RESTORED from an older copy")
        self.world.happened["database: restored"] += 1


class SimulatedDatabase(Trouble):
    """One database, which all workers share."""

    is_sql = False

    def __init__(self, world: World, *, faults: list[dict[str, Any]], weather: list[dict[str, Any]]) -> None:
        super().__init__(world, faults=faults, weather=weather)
        self.content = MemoryDatabase()
        self.replies: dict[str, Any] = {}

    def arm_restore(self, at: float, age: float) -> None:
        """Copy the database at one time, and put the copy back at another."""
        copies: list[Any] = []

        def save() -> None:
            self.saved_at = self.world.now
            copies.extend((self.content.backup(), {key: copy.copy(row) for key, row in self.replies.items()}))

        def restore() -> None:
            self.content.restore(copies[0])
            self.replies = copies[1]
            self.restored()

        self.world.at(max(0.0, at - age), save)
        self.world.at(at, restore)

    def at_rest(self, alive: int) -> bool:
        """Whether nothing is left to do: no row but those for people, and only workers that live."""
        content = self.content
        return all(row.state == "shortfall" for row in content.charges.values()) and len(content.workers) <= alive

    def next_due(self) -> int | None:
        """Return when the next row is due, in ms."""
        return min((row.entry.due_at for row in self.content.charges.values() if row.state == "due"), default=None)

    def rows_left(self) -> list[tuple[str, str, str]]:
        """Return what is left, as state, charge and what the row says about it."""
        rows = self.content.charges
        return [(row.state, id_, f"{row.entry.doubt.value} {row.entry.last_error}") for id_, row in rows.items()]

    def close(self) -> None:
        """Do nothing."""


class SimulatedStore(MemoryStore):
    """The store of one process.

    Args:
        database: The world's database.
        account: Whose rows it writes.
        loop: The process.
    """

    def __init__(self, database: SimulatedDatabase, account: Any, loop: Any) -> None:
        super().__init__(database.content, account)
        self._world_database = database
        self._loop = loop
        self._fault: str | None = None
        self._draw = 0.0
        self._is_beat = False

    async def _wait(self, seconds: float) -> None:
        loop = self._loop
        future = loop.create_future()
        loop.world.at(seconds, _release, loop, future)
        await future

    async def before(self, what: str) -> None:
        database, loop = self._world_database, self._loop
        draw = self._draw = database.draw()
        matters = what in _MATTERS and not (self._is_beat and what == "commit")
        if matters or draw < 0.3 or database.is_in("slow", loop):
            await self._wait(database.delay(loop))
        while database.is_in("cut", loop):
            database.trouble(loop, "cut off")
            raise DatabaseAway("cut off")
        if what in _WRITES and database.is_in("locked", loop):
            until = loop.world.now + 2.0
            while database.is_in("locked", loop):
                if loop.world.now >= until:
                    database.trouble(loop, "locked")
                    raise DatabaseAway("locked")
                await self._wait(0.05)
        self._fault = database.take(loop) if what in _WRITES else None
        if self._fault == "lost_commit":
            database.trouble(loop, "commit lost")
            raise DatabaseAway("the commit was lost")

    async def close(self) -> None:
        """Let go; that cannot fail."""

    async def after(self, what: str) -> None:
        database, loop = self._world_database, self._loop
        fault, self._fault = self._fault, None
        if what == "commit":
            loop.committed_at = loop.world.now
            loop.world.moment("committed", loop.worker)
        if fault == "commit_answer_lost":
            database.trouble(loop, "commit done, its answer lost")
            raise DatabaseAway("the answer was lost")
        if self._draw > 0.9 or database.is_in("slow", loop):
            # Most answers come at once, in the same moment as the work; time passes before it.
            await self._wait(database.delay(loop))

    async def commit(self, batch: Any) -> None:
        self._is_beat = not batch.changes
        await super().commit(batch)

    async def claim(self, worker_id: str, *, limit: int, **how: Any) -> Any:
        if not self.database.charges:
            await self.before("claim")
            await self.after("claim")
            if not self.database.charges:
                return []
        # Rows that another transaction looks at are skipped, so a claim may see any part of what is due.
        if self._world_database.draw() < 0.1:
            limit = max(1, limit // 8)
        return await super().claim(worker_id, limit=limit, **how)


class SimulatedReplies:
    """What became of callers' attempts, in memory; the rule is the package's own.

    Args:
        store: The store of the process.
        machine: For ids.
    """

    def __init__(self, store: SimulatedStore, machine: Any) -> None:
        self._store = store
        self._machine = machine

    def new_attempt(self, key: str) -> Any:
        return Attempt(key, self._machine.new_id())

    async def claim(self, attempt: Any, fingerprint: str, *, worker_id: str, now: int) -> Any:
        rows, key = await self._begin(), attempt.key
        row, found = rows.get(key), ()
        if row is not None:
            row.owner_lives = row.owner in self._store.database.workers
            judged = _judge(row, fingerprint, now=now)
            if isinstance(judged, Conflict):
                await self._end()
                return judged
            found = judged
        rows[key] = SimpleNamespace(
            fingerprint=fingerprint,
            standing="retrying" if found else "running",
            attempt_id=attempt.attempt_id,
            owner=worker_id,
            charges=row.charges if row is not None and found else "[]",
            expires_at=row.expires_at if row is not None and found else now + LIFETIME_MS,
        )
        await self._end()
        return replace(attempt, paid=found)

    async def release(self, attempt: Any) -> None:
        rows = await self._begin()
        row = rows.get(attempt.key)
        if row is not None and row.attempt_id == attempt.attempt_id:
            if row.charges == "[]":
                del rows[attempt.key]
            else:
                row.standing = "paid"
        await self._end()

    async def finish(self, attempt: Any, standing: Any, charges: Any) -> None:
        rows = await self._begin()
        row = rows.get(attempt.key)
        if row is not None and row.attempt_id == attempt.attempt_id:
            if standing is None:
                del rows[attempt.key]
            else:
                row.standing = standing
                row.charges = json.dumps(
                    [[one.charge_id, str(one.credits), str(one.cost), one.what] for one in charges]
                )
        await self._end()

    async def _begin(self) -> dict[str, Any]:
        try:
            await self._store.before("reply")
        except DatabaseAway as error:
            raise RepliesAwayError(str(error)) from error
        return self._store._world_database.replies

    async def _end(self) -> None:
        try:
            await self._store.after("reply")
        except DatabaseAway as error:
            raise RepliesAwayError(str(error)) from error


def _release(loop: Any, future: Any) -> None:
    if not loop.dead and not future.done():
        future.set_result(None)
