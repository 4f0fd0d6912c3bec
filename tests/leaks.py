"""Fails a test that leaves something behind: a task, a thread, a socket, a connection to a database.

What is there before a test begins is not the test's, and neither is what a fixture of a wider scope makes. Everything
else has to be gone once the test and its fixtures are done. What is not is named, and a connection with the line that
opened it.
"""

import asyncio
import contextlib
import gc
import os
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import AsyncIterator, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

_TURNS = 20
"""How many turns of the event loop a task may take to end. A task that was cancelled needs a few of them."""

_ENDS_WITH_THE_LOOP = {"_shutdown_watcher"}
"""Tasks that a library has one of in each event loop and ends with it: sse-starlette's."""

_DESCRIPTORS = Path("/proc/self/fd")
_root = ""


def pytest_addoption(parser: pytest.Parser) -> None:
    # A driver's thread, for one, says that it has closed and ends after that. Only a test that fails waits for so long.
    parser.addini("leak_grace_seconds", "how long what a test started may take to end", default="30")


def pytest_configure(config: pytest.Config) -> None:
    global _root  # noqa: PLW0603 - there is one session
    _root = str(config.rootpath)
    config.pluginmanager.register(_LeakCheck(float(config.getini("leak_grace_seconds"))))


class _LeakCheck:
    """Compares what is open before and after each test."""

    def __init__(self, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self._known: set[Any] = set()

    def pytest_sessionstart(self) -> None:
        sqlite3.connect = _connect
        gc.collect()
        gc.freeze()

    def pytest_unconfigure(self) -> None:
        sqlite3.connect = _real_connect

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, Any, Any]:
        before = set(_open()) if fixturedef.scope != "function" else None
        try:
            return (yield)
        finally:
            if before is not None:
                self._known |= set(_open()) - before

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self) -> Generator[None, None, None]:
        self._known = set(_open())
        return (yield)

    # First, that is, around pytest's own: the log that it captures holds errors, and they the frames they came from.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Generator[None, None, None]:
        yield
        left = self._left()
        # Later collections need not look again at what outlives this test, which keeps each of them at a millisecond.
        gc.freeze()
        if left:
            pytest.fail(f"left behind: {'; '.join(left)}", pytrace=False)

    def _left(self) -> list[str]:
        deadline = time.monotonic() + self._grace_seconds
        while True:
            opened = _open()
            left = [
                what
                for key, what in opened.items()
                if key not in self._known and not self._extends_known(key) and not self._was_accepted(what, opened)
            ]
            if not left or time.monotonic() > deadline:
                return sorted(left)
            gc.collect()
            time.sleep(0.01)

    def _was_accepted(self, what: str, opened: dict[Any, str]) -> bool:
        """Tell whether a server of a fixture of a wider scope accepted it: that closes it in its own time."""
        return any(what.startswith(f"{server} to ") for key, server in opened.items() if key in self._known)

    def _extends_known(self, key: Any) -> bool:
        """Tell whether it is one more connection, or its thread, of a pool of a fixture of a wider scope."""
        opened = next((one for one in _connections if key in {one, one.thread}), None)
        return (
            opened is not None
            and opened.database != ":memory:"
            and any(isinstance(known, _Opened) and known.database == opened.database for known in self._known)
        )


def _open() -> dict[Any, str]:
    """Everything that is open, by its identity."""
    threads = {thread: f"the thread {thread.name!r}" for thread in threading.enumerate()}
    return threads | _sockets() | {one: f"the connection to {one.database} ({one.where})" for one in list(_connections)}


def _sockets() -> dict[Any, str]:
    """The sockets of this process, as far as the operating system tells: Linux does."""
    found = {}
    for descriptor in _DESCRIPTORS.iterdir() if _DESCRIPTORS.exists() else ():
        try:
            inode = str(descriptor.readlink())
        except OSError:  # it was the descriptor with which the folder was read, or it has just been closed
            continue
        if inode.startswith("socket:"):
            found[inode] = _describe_socket(int(descriptor.name))
    return found


def _describe_socket(descriptor: int) -> str:
    try:
        with socket.socket(fileno=os.dup(descriptor)) as copy:
            ends = [copy.getsockname()]
            with contextlib.suppress(OSError):  # it listens, or the other end is gone
                ends.append(copy.getpeername())
    except OSError:
        return "a socket"
    return f"the socket {' to '.join(_describe_address(end) for end in ends)}"


def _describe_address(address: Any) -> str:
    return ":".join(map(str, address[:2])) if isinstance(address, tuple) else str(address or "without a name")


@dataclass(frozen=True, eq=False)
class _Opened:
    """A connection that SQLite has open."""

    database: str
    where: str
    thread: threading.Thread


# One that is dropped without `close` stays here: it depends on the garbage collector when it ends. Connections to other
# databases are sockets.
_connections: set[_Opened] = set()
_real_connect = sqlite3.connect

_LIVES_WITH_ITS_OWNER = "Autumn.emulator"
"""The emulator inside of an application ends with it, and FastAPI's caches may keep an application for ever."""


class _Connection(sqlite3.Connection):
    opened: _Opened | None = None

    def close(self) -> None:
        super().close()
        _connections.discard(self.opened)


def _connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
    connection = _real_connect(*arguments, **{"factory": _Connection} | options)
    callers = list(_callers())
    if isinstance(connection, _Connection) and all(code.co_qualname != _LIVES_WITH_ITS_OWNER for code, _ in callers):
        # The innermost line of the tests, or else the innermost one of all.
        ours = [(code, line) for code, line in callers if code.co_filename.startswith(_root + "/tests")]
        code, line = (ours or callers)[0]
        database = str(next(iter(arguments), options.get("database")))
        where = f"{_short(code.co_filename)}:{line}, in {threading.current_thread().name}"
        connection.opened = _Opened(database, where, threading.current_thread())
        _connections.add(connection.opened)
    return connection


def _callers() -> Iterator[tuple[CodeType, int]]:
    """The lines on the stack, innermost first, from the one that called `sqlite3.connect`."""
    frame = sys._getframe(2)
    while frame is not None:
        yield frame.f_code, frame.f_lineno
        frame = frame.f_back


def _short(file: str) -> str:
    return file.removeprefix(_root + os.sep)


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have a test blamed for what it drops without closing, and not the test during which it is collected."""
    if "anyio_backend" in request.fixturenames:
        request.getfixturevalue("_no_task_left")
    yield
    # pytest would hold what the fixtures gave until the test is reported.
    request.node.funcargs.clear()
    gc.collect()


@pytest.fixture
async def _no_task_left() -> AsyncIterator[None]:
    """Fail a test that leaves a task behind: at its end, the event loop would cancel it without a word."""
    # At each step of a test, its runner makes tasks of the same functions as now.
    expected = _ENDS_WITH_THE_LOOP.union(map(_function_of, asyncio.all_tasks()))
    yield
    for _ in range(_TURNS):
        left = [task for task in asyncio.all_tasks() if _function_of(task) not in expected]
        if not left:
            return
        await asyncio.sleep(0)
    pytest.fail(f"left behind: {'; '.join(sorted(map(_describe_task, left)))}", pytrace=False)


def _describe_task(task: "asyncio.Task[Any]") -> str:
    stack = task.get_stack(limit=1)
    where = f", at {_short(stack[0].f_code.co_filename)}:{stack[0].f_lineno}" if stack else ""
    return f"the task {task.get_name()!r} ({_function_of(task)}{where})"


def _function_of(task: "asyncio.Task[Any]") -> str:
    return getattr(task.get_coro(), "__qualname__", "?")
