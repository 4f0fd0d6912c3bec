"""The command line as a process, in a directory of its own, beside an Autumn to talk to."""

import contextlib
import os
import pty
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cli.processes import CATALOG, Run, Server, clean_environment


@pytest.fixture(scope="session")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("emulator") / "emulator.db") as server:
        yield server


@pytest.fixture
def server(_server: Server) -> Server:
    """A served emulator with nothing in it."""
    _server.call("/emulator/reset")
    _server.requests.clear()
    return _server


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The directory in which the command runs."""
    directory = tmp_path / "here"
    directory.mkdir()
    return directory


@pytest.fixture
def catalog_file(here: Path) -> Path:
    """A catalog in the directory in which the command runs."""
    path = here / "autumn_config.py"
    path.write_text(CATALOG)
    return path


@pytest.fixture
def autumn(here: Path, tmp_path: Path) -> Run:
    """Run the command with a clean environment; `answers` are typed on a terminal, `env` is added."""

    def run(
        *arguments: str, env: Mapping[str, str] | None = None, answers: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "fastapi_autumn.cli", *arguments]
        with contextlib.ExitStack() as stack:
            stdin: Any = subprocess.DEVNULL
            if answers is not None:
                ours, stdin = pty.openpty()
                stack.callback(os.close, ours)
                stack.callback(os.close, stdin)
                os.write(ours, answers.encode())
            return subprocess.run(
                command,
                cwd=here,
                env=clean_environment(tmp_path) | dict(env or {}),
                stdin=stdin,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )

    return run


@pytest.fixture
def local(autumn: Run) -> Run:
    """Run the command with the emulator in its process."""
    return lambda *arguments, **more: autumn(*arguments, env={"AUTUMN_EMULATOR": "true"}, **more)


@pytest.fixture
def remote(autumn: Run, server: Server) -> Run:
    """Run the command against the served emulator."""
    return lambda *arguments, env=None, **more: autumn(*arguments, env=server.environment | dict(env or {}), **more)
