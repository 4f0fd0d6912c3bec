"""The outbox's file."""

import sqlite3
import subprocess
import sys

from fastapi_autumn.settlement._engine import touch

LOCK = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None).execute('BEGIN IMMEDIATE')"


def test_looking_for_the_file_keeps_the_locks_on_it(tmp_path):
    """A connection's locks outlive `touch`: POSIX drops those of a whole process when it closes the file once."""
    path = tmp_path / "outbox.db"
    touch(path)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")

    touch(path)
    other = subprocess.run([sys.executable, "-c", LOCK, path], check=False, capture_output=True, text=True)

    assert "database is locked" in other.stderr
    connection.close()


def test_the_file_is_for_its_owner_only(tmp_path):
    """Whoever may read the file reads customers' ids."""
    path = tmp_path / "folder" / "outbox.db"
    touch(path)

    assert path.stat().st_mode & 0o777 == 0o600
