"""The check for what tests leave behind, in a test run of its own."""

from collections.abc import Callable
from pathlib import Path

import pytest

TESTS = """
    import asyncio
    import contextlib
    import socket
    import sqlite3
    import threading

    import aiosqlite
    import pytest

    kept = []

    async def test_task():
        kept.append(asyncio.create_task(asyncio.sleep(60), name="forgotten"))

    def test_thread():
        ends = threading.Event()
        threading.Thread(target=ends.wait, name="forgotten", daemon=True).start()
        kept.append(ends)

    def test_socket():
        kept.append(socket.create_server(("127.0.0.1", 0)))

    def test_connection():
        kept.append(sqlite3.connect(":memory:"))

    def test_dropped_connection():
        sqlite3.connect(":memory:")

    async def test_connection_of_a_loop(tmp_path):
        kept.append(await aiosqlite.connect(tmp_path / "file.db"))

    @pytest.fixture(scope="session", autouse=True)
    def ending():
        yield
        (connection,) = [thing for thing in kept if isinstance(thing, aiosqlite.Connection)]
        connection.stop()  # Python waits for its thread

    @pytest.fixture
    def opened():
        return socket.create_server(("127.0.0.1", 0))

    def test_socket_of_a_fixture(opened):
        kept.append(opened)

    @pytest.fixture(scope="session")
    def lasting(request):
        with contextlib.closing(sqlite3.connect(":memory:")) as connection, socket.create_server(("127.0.0.1", 0)):
            yield connection

    def test_something_that_lasts(request):
        request.getfixturevalue("lasting").execute("SELECT 1")

    @pytest.fixture(scope="module")
    def pool(tmp_path_factory):
        with contextlib.ExitStack() as stack:
            file = tmp_path_factory.mktemp("pool") / "file.db"
            open_one = lambda: stack.enter_context(contextlib.closing(sqlite3.connect(file)))
            open_one()
            yield open_one

    def test_one_more_of_a_pool_that_lasts(pool):
        pool()
"""

TIDY = """
    import asyncio
    import threading

    import aiosqlite

    async def test_tidy(tmp_path):
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        thread = threading.Thread(target=asyncio.run, args=(asyncio.sleep(0.01),))
        thread.start()
        async with aiosqlite.connect(tmp_path / "file.db") as connection:
            await connection.execute("CREATE TABLE t (x)")
"""

LEFT_BEHIND = {
    "test_task": "left behind: *the task 'forgotten' (sleep, at *",
    "test_thread": "left behind: *the thread 'forgotten'*",
    "test_socket": "left behind: *the socket 127.0.0.1:*",
    "test_connection": "left behind: *the connection to :memory: (test_what.py:24, *",
    "test_dropped_connection": "*",  # Pythons that warn of it themselves say it in their own words
    "test_connection_of_a_loop": "left behind: *the thread '*",
    "test_socket_of_a_fixture": "left behind: *the socket 127.0.0.1:*",
}


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., pytest.RunResult]:
    """Runs tests with the check, which gives what they started so long to end."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    pytester.makeconftest(
        """
        import pytest

        pytest_plugins = ["leaks"]

        @pytest.fixture(scope="session")
        def anyio_backend():
            return "asyncio"
        """
    )

    def running(tests: str, *, grace_seconds: float) -> pytest.RunResult:
        pytester.makeini(f"[pytest]\nanyio_mode = auto\nleak_grace_seconds = {grace_seconds}")
        pytester.makepyfile(test_what=tests)
        return pytester.runpytest_subprocess("-q", "-W", "error", "-p", "no:cacheprovider", "-p", "no:randomly")

    return running


def test_each_kind_is_found_and_its_test_named(run: Callable[..., pytest.RunResult]) -> None:
    """A task, a thread, a socket and a connection fail the test that left them, and only that test."""
    result = run(TESTS, grace_seconds=0.2)

    result.assert_outcomes(passed=9, errors=len(LEFT_BEHIND))
    for name, left in LEFT_BEHIND.items():
        result.stdout.fnmatch_lines([f"*ERROR at teardown of {name} *", left])


def test_what_is_about_to_end_is_waited_for(run: Callable[..., pytest.RunResult]) -> None:
    """A task that was cancelled, a thread that is on its last step and a closed connection fail no test."""
    run(TIDY, grace_seconds=60).assert_outcomes(passed=1)
