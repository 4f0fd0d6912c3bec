"""The official clients as they are published: installing them, and talking to them from a test.

Each is installed once into `.interop/`, into a folder named for exactly what was asked for; later runs find it there.
"""

import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from cli.processes import Server, clean_environment
from fastapi_autumn.emulator import EMULATOR_KEY

HERE = Path(__file__).parent
PACKAGES = HERE / "npm"
CACHE = HERE.parents[1] / ".interop"
SDK = "autumn-sdk==1.2.0"
CONSTRAINTS = HERE.parents[1] / "constraints.txt"


def install_npm() -> Path:
    """The folder whose `node_modules` have atmn and autumn-js, in the versions of `npm/package-lock.json`."""
    asked = [PACKAGES / name for name in ("package.json", "package-lock.json", ".npmrc")]

    def fill(folder: Path) -> None:
        for path in asked:
            shutil.copy(path, folder)
        _run([_program("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder)

    return _installed("npm", b"".join(path.read_bytes() for path in asked), fill)


def install_sdk() -> Path:
    """The folder that has autumn-sdk and what it needs, apart from the packages of this project."""

    def fill(folder: Path) -> None:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        _run([*pip, "--constraint", str(CONSTRAINTS), "--target", str(folder), SDK], cwd=folder)

    return _installed("pypi", f"{SDK} {sys.version}".encode() + CONSTRAINTS.read_bytes(), fill)


class Atmn:
    """The official command line, in a folder of its own."""

    def __init__(self, folder: Path, packages: Path, server: Server) -> None:
        self.folder = folder
        self._server = server
        self._home = folder.parent / f"{folder.name}-home"
        self._home.mkdir()
        folder.mkdir()
        # autumn.config.ts imports from "atmn".
        (folder / "node_modules").symlink_to(packages / "node_modules")
        self.command = [_program("node"), str(packages / "node_modules/atmn/dist/cli.js")]

    @property
    def config(self) -> Path:
        return self.folder / "autumn.config.ts"

    def environment(self, key: str | None = EMULATOR_KEY, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """What atmn gets to see: the emulator, and a key."""
        keys = {} if key is None else {"AUTUMN_SECRET_KEY": key}
        return clean_environment(self._home) | {"ATMN_BACKEND_URL": self._server.url} | keys | dict(env or {})

    def __call__(
        self, *arguments: str, key: str | None = EMULATOR_KEY, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run it with nobody to answer its questions."""
        return subprocess.run(
            [*self.command, *arguments],
            cwd=self.folder,
            env=self.environment(key, env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


class Library:
    """A program beside this one that makes the calls of a client library, one JSON line each."""

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=60)

    def __call__(self, call: str, arguments: Any = None, *, options: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """Make one call; `{"result": ...}`, or `{"error": {"name", "status", "body"}}`.

        `options` are those of the client's constructor, `more` is for this call.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = json.dumps({"call": call, "arguments": arguments, "options": dict(options), "more": more})
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


def javascript(packages: Path) -> Library:
    """autumn-js."""
    return Library([_program("node"), str(PACKAGES / "autumn_js.mjs"), str(packages)], clean_environment(packages))


def python(folder: Path) -> Library:
    """autumn-sdk. Without `site`, so that it finds its own dependencies only."""
    environment = clean_environment(folder) | {"PYTHONPATH": str(folder)}
    return Library([sys.executable, "-S", str(HERE / "autumn_sdk_calls.py")], environment)


def _installed(name: str, asked: bytes, fill: Callable[[Path], None]) -> Path:
    folder = CACHE / f"{name}-{hashlib.sha256(asked).hexdigest()[:12]}"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        # The workers of pytest-xdist come here at the same time.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = CACHE / f"{name}-unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            fill(unfinished)
            unfinished.rename(folder)
    return folder


def _program(name: str) -> str:
    found = shutil.which(name)
    assert found, f"There is no {name}, and the official clients need it: install Node.js 20 or newer, with npm."
    return found


def _run(command: list[str], *, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}"
