"""`python -m demo_app`, and what it tells people to paste."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@contextmanager
def running(directory: Path, **environment: str) -> Iterator[str]:
    """Start the demo as a process and give what it prints before it serves."""
    process = subprocess.Popen(
        [sys.executable, "-m", "demo_app"],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = []
        while "Ctrl-C" not in "".join(lines[-1:]):
            assert process.poll() is None, process.communicate()
            lines.append(process.stdout.readline())
        yield "".join(lines)
    finally:
        # Not SIGINT: a shell's background jobs ignore it until uvicorn no longer does.
        process.terminate()
        process.communicate(timeout=60)


def test_what_is_printed_does_what_it_says(tmp_path):
    """Pasted into a shell: a call succeeds, a stream fails and is given back, and credits run out with a 402."""
    with running(tmp_path, AUTUMN_EMULATOR="true", MODEL_WORD_DELAY="0.001", PORT="0") as printed:
        shell = re.search(r"^# 1\..*?(?=^# 4\.)", printed, re.DOTALL | re.MULTILINE).group()
        done = subprocess.run(["bash", "-e", "-c", shell], capture_output=True, text=True, check=True, timeout=60)

    statuses = re.findall(r"^HTTP/1.1 (\d+)", done.stdout, re.MULTILINE)
    balances = re.findall(r'^"remaining":"?(\d+)', done.stdout, re.MULTILINE)
    assert statuses == ["200", "200", "402"]
    assert balances == ["45", "45"]
    assert '"code": "stream_failed"' in done.stdout
    assert '"insufficient_credits"' in done.stdout


def test_ctrl_c_ends_it_quietly(tmp_path):
    """Ctrl-C stops the service, with 0 and without a traceback, so that make has nothing to say either."""
    process = subprocess.Popen(
        [sys.executable, "-m", "demo_app"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "AUTUMN_EMULATOR": "true", "PORT": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    said = []
    while "Application startup complete" not in "".join(said[-1:]):
        assert process.poll() is None, said
        said.append(process.stderr.readline())
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)

    assert process.returncode == 0
    assert "Traceback" not in rest


def test_busy_port(tmp_path):
    """Without PORT, the demo does not stop at a port that somebody else has."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind(("127.0.0.1", 8000))
            other.listen()
        except OSError:
            pass  # somebody else has it, which is just as well
        with running(tmp_path, AUTUMN_EMULATOR="true") as printed:
            port = re.search(r"http://127.0.0.1:(\d+)", printed).group(1)

    assert port != "8000"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "error: AUTUMN_SECRET_KEY is not set."),
        ({"AUTUMN_SECRET_KEY": "am_pk_test_123456"}, "error: AUTUMN_SECRET_KEY: is a publishable key"),
    ],
    ids=["no backend", "publishable key"],
)
def test_wrong_set_up(tmp_path, environment, message):
    """With nothing to bill through, it says what to set, in a line instead of a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "demo_app"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
