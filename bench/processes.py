"""The processes of a benchmark: the service under test on one core, Autumn and the load on the other."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SERVICE_CORE, OTHER_CORE = 0, 1
# Their clients give up after five seconds of queueing in their own pool; that is counted, not hidden.
_FAIL_UNDER_LOAD = {"plain-port", "hono"}
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Server:
    """A process that listens."""

    name: str
    port: int
    pid: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cpu_seconds(self) -> float:
        """CPU time of all its threads so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    def memory(self) -> int:
        """Resident bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE


def python(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", module, *map(str, arguments)]


def pinned(core: int, command: Sequence[str]) -> list[str]:
    """Run on one core, where there are two and the system can."""
    if shutil.which("taskset") is None or (os.cpu_count() or 1) < 2:
        return list(command)
    return ["taskset", "-c", str(core), *command]


@contextlib.contextmanager
def upstream(*, delay_ms: float = 0) -> Iterator[Server]:
    """Run the constant Autumn."""
    port = _free_port()
    with _running(
        "upstream", port, pinned(OTHER_CORE, python("bench.upstream", "--port", port, "--delay", delay_ms))
    ) as it:
        yield it


@contextlib.contextmanager
def service(name: str, autumn: Server, directory: Path) -> Iterator[Server]:
    """Run one of the services that are compared."""
    port = _free_port()
    if name == "hono":
        command = ["node", str(HERE / "node" / "server.mjs"), str(port), autumn.url]
    else:
        command = python("bench.services", name, "--port", port, "--upstream", autumn.url, "--directory", directory)
    with _running(name, port, pinned(SERVICE_CORE, command)) as it:
        yield it


@contextlib.contextmanager
def services(names: Sequence[str], autumn: Server, directory: Path) -> Iterator[list[Server]]:
    """Run several, so that rounds can go from one to the next."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(service(name, autumn, directory)) for name in names]


def load(server: Server, *, connections: int, seconds: float | None = None, customers: int = 1) -> dict[str, float]:
    """Load a service and return what came of it, with `cpu_us` spent by the service for one request."""
    options: list[object] = ["--port", server.port, "--connections", connections, "--customers", customers]
    if seconds is not None:
        options += ["--seconds", seconds]
    before = server.cpu_seconds()
    result = run_json(python("bench.load", *options), core=OTHER_CORE)
    result["cpu_us"] = (server.cpu_seconds() - before) / result["requests"] * 1e6
    if result["failed"] and server.name not in _FAIL_UNDER_LOAD:
        raise RuntimeError(f"{server.name}: {result['failed']:.0f} of {result['requests']:.0f} requests failed")
    return result


def counts(autumn: Server) -> tuple[dict[str, int], float]:
    """Wait until nobody calls Autumn any more; return how often it was called since last time, and when it ended."""
    told: Counter[str] = Counter()
    last = 0.0
    while True:
        with urllib.request.urlopen(f"{autumn.url}/counts") as answer:
            new = json.load(answer)
        told.update(new["counts"])
        last = max(last, new["last"])
        if not new["counts"]:
            return dict(told), last
        time.sleep(0.5)


def run_json(command: Sequence[str], *, core: int) -> dict[str, Any]:
    """Run a command that prints one line of JSON."""
    done = subprocess.run(pinned(core, command), cwd=HERE.parent, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@contextlib.contextmanager
def _running(name: str, port: int, command: Sequence[str]) -> Iterator[Server]:
    quiet = subprocess.DEVNULL if name in _FAIL_UNDER_LOAD else None
    process = subprocess.Popen(command, cwd=HERE.parent, stdout=quiet, stderr=quiet)
    try:
        _wait_for(port, process)
        yield Server(name, port, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(f"ended at once: {process.args}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise RuntimeError(f"does not listen: {process.args}")


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
