"""The outbox's store in a service under test: it can be cut off, and it tells which calls a commit has made safe."""

import asyncio
import os
import random
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from chaos.settings import COMMITS, COUNTS, report
from fastapi_autumn import Autumn
from fastapi_autumn.settlement.store import Batch, Store

LOST_ANSWERS = 0.01


class CutOffError(OSError):
    """What a database driver raises that cannot reach its server."""


class ReportingStore:
    """A store between the outbox and the real one.

    While the file `cut-off-PID` is there, nothing gets through. Of some commits only the answer is lost.
    """

    def __init__(self, store: Store, folder: Path, ended: list[str], *, faulty: bool) -> None:
        self._store = store
        self._folder = folder
        self._ended = ended
        self._lost_answers = LOST_ANSWERS if faulty else 0.0
        self._switch = folder / f"cut-off-{os.getpid()}"

    def __getattr__(self, name: str) -> Any:
        there = getattr(self._store, name)
        if not asyncio.iscoroutinefunction(there) or name == "close":
            return there

        async def reached(*arguments: Any, **named: Any) -> Any:
            await self._reach()
            return await there(*arguments, **named)

        return reached

    async def _reach(self) -> None:
        if self._switch.exists():
            await asyncio.sleep(0.05)
            raise CutOffError

    async def commit(self, batch: Batch) -> None:
        """Commit, and report the calls that had ended before: they are safe, whatever happens to this process."""
        covered, self._ended[:] = list(self._ended), []
        try:
            await self._reach()
            await self._store.commit(batch)
            await self._reach()
            self._lose_the_answer()
        except BaseException:
            self._ended[:0] = covered
            raise
        if covered:
            report(self._folder, COMMITS, os.getpid(), *covered)

    def _lose_the_answer(self) -> None:
        if random.random() < self._lost_answers:
            report(self._folder, COUNTS, "a_commit's_answer_lost")
            raise CutOffError


class WatchedAutumn(Autumn):
    """An `Autumn` whose outbox has a `ReportingStore`."""

    def watch(self, folder: Path, ended: list[str], *, faulty: bool) -> None:
        """Say what to report, and where."""
        self._watched = folder, ended, faulty

    def new_store(self) -> Store:
        """Return another store with this account, which reports nothing."""
        return super()._make_store()

    def _make_store(self) -> Store:
        folder, ended, faulty = self._watched
        return ReportingStore(super()._make_store(), folder, ended, faulty=faulty)


class Noting:
    """Outermost middleware: notes the number of each call that has ended."""

    def __init__(self, app: ASGIApp, *, ended: list[str]) -> None:
        self.app = app
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        finally:
            self._ended += [value.decode() for name, value in scope.get("headers", ()) if name == b"x-call"]
