"""A metered service under real uvicorn workers, to which bad things are done by order.

    python -m chaos.service_process FOLDER PORT WORKERS AUTUMN_URL OUTBOX_URL CHARGING HANDLER_MS FAULTY

One process listens, forks the workers, and forks another for each that ends. Orders come by stdin, one a line:
`WHAT SECONDS THEN`. A worker is chosen at random. WHAT is `nothing`, `pause` (SIGSTOP) or `cut` (off from the
database). After SECONDS that is over, THEN the worker shall `live`, be killed (`kill`), or stop as in a deployment
(`stop`); `stopping` is told to stop at the beginning of it. SIGTERM stops all.
"""

import asyncio
import contextlib
import logging
import os
import random
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from chaos.seams import Noting, WatchedAutumn
from chaos.settings import (
    AWAY,
    COUNTS,
    ENDED,
    EVENT_DELAY,
    HOLD_TTL,
    LEASE,
    LOG,
    PRICES,
    SHUTDOWN_TIMEOUT,
    TIMEOUT,
    report,
)
from fastapi_autumn import AutumnMiddleware, AutumnSettings, Charge, CreditGate
from fastapi_autumn.errors import ConnectFailed
from fastapi_autumn.transports import Answer, HttpxTransport

FAILURES = {
    "The outbox cannot be written": "outbox away",
    "Other workers took this one": "taken for dead",
    "A process died": "died, and was settled",
    "The outbox could not be written": "stopped unwritten",
}


class Ask(BaseModel):
    model: str
    how: str = "ok"


def number_of_the_call(x_call: Annotated[str, Header()]) -> dict[str, str]:
    return {"call": x_call}


class CountingTransport(HttpxTransport):
    """Tells how often Autumn refused a connection."""

    def __init__(self, folder: Path, base_url: str) -> None:
        super().__init__(base_url, timeout=TIMEOUT, connect_timeout=TIMEOUT)
        self._folder = folder

    async def request(
        self, method: str, path: str, *, body: bytes, headers: Mapping[str, str], bearer: Any = None
    ) -> Answer:
        try:
            return await super().request(method, path, body=body, headers=headers, bearer=bearer)
        except ConnectFailed:
            report(self._folder, COUNTS, "refused")
            raise


class CountingHandler(logging.Handler):
    """Tells what the outbox complained of."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        report(self._folder, LOG, os.getpid(), message)
        for beginning, name in FAILURES.items():
            if message.startswith(beginning):
                report(self._folder, COUNTS, name.replace(" ", "_"))


def settings_of(autumn_url: str, outbox_url: str, charging: Any) -> AutumnSettings:
    return AutumnSettings(
        _env_file=None,
        secret_key="am_sk_test_emulator",
        base_url=autumn_url,
        outbox_url=outbox_url,
        outbox_lease=LEASE,
        event_delay=EVENT_DELAY,
        timeout=TIMEOUT,
        charging=charging,
        hold_ttl=HOLD_TTL,
        ensure_ttl=30,
        shutdown_timeout=SHUTDOWN_TIMEOUT,
    )


def application(folder: Path, autumn_url: str, outbox_url: str, charging: Any, handler_ms: str, faulty: str) -> FastAPI:
    settings = settings_of(autumn_url, outbox_url, charging)
    ended: list[str] = []
    autumn = WatchedAutumn(settings, prices=PRICES, transport=CountingTransport(folder, autumn_url))
    autumn.watch(folder, ended, faulty=faulty == "1")
    app = FastAPI(lifespan=autumn.lifespan)
    app.add_middleware(AutumnMiddleware, autumn=autumn, identify=lambda connection: connection.headers["x-user"])
    app.add_middleware(Noting, ended=ended)
    paid = Annotated[Charge, Depends(CreditGate(properties=number_of_the_call))]
    longest = float(handler_ms) / 1000

    @app.post("/ai/plain")
    async def plain(ask: Ask, charge: paid, response: Response) -> Any:
        await asyncio.sleep(random.uniform(0, longest))
        if ask.how == "raises":
            raise ValueError(ask.how)
        if ask.how == "answers 502":
            raise HTTPException(502)
        response.headers["x-worker"] = str(os.getpid())
        return {"charge": charge.id}

    async def words(how: str) -> AsyncIterator[bytes]:
        for number in range(4):
            yield b"word\n"
            await asyncio.sleep(random.uniform(0, longest))
            if how == "breaks" and number == 1:
                raise ValueError(how)

    @app.post("/ai/stream")
    async def stream(ask: Ask, charge: paid) -> StreamingResponse:
        return StreamingResponse(words(ask.how), headers={"x-worker": str(os.getpid()), "x-charge": charge.id})

    return app


def work(listener: socket.socket, folder: Path, *arguments: str) -> None:
    """Be one worker, until the end."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    random.seed()
    log = logging.getLogger("fastapi_autumn.outbox")
    log.addHandler(CountingHandler(folder))
    log.propagate = False
    logging.getLogger("fastapi_autumn").addHandler(logging.NullHandler())
    config = uvicorn.Config(
        application(folder, *arguments), log_level="critical", access_log=False, timeout_graceful_shutdown=5
    )
    uvicorn.Server(config).run(sockets=[listener])


class Supervisor:
    """Keeps as many workers as there should be, and does to them what it is told."""

    def __init__(self, folder: Path, listener: socket.socket, workers: int, arguments: tuple[str, ...]) -> None:
        self._folder = folder
        self._listener = listener
        self._workers = workers
        self._arguments = arguments
        self._chance = random.Random(listener.getsockname()[1])
        self._serving: set[int] = set()
        self._leaving: dict[int, float] = {}
        self._killed: dict[int, float] = {}
        self._troubled: set[int] = set()
        self._later: list[tuple[float, Callable[[], None]]] = []

    def fill_up(self) -> None:
        while len(self._serving) < self._workers:
            child = os.fork()
            if not child:
                try:
                    work(self._listener, self._folder, *self._arguments)
                except BaseException as error:
                    report(self._folder, LOG, os.getpid(), "The worker ends:", repr(error).replace("\n", " "))
                os._exit(0)
            self._serving.add(child)

    def reap(self) -> None:
        while self._serving or self._leaving:
            gone, _ = os.waitpid(-1, os.WNOHANG)
            if not gone:
                return
            how = "killed" if gone in self._killed else "stopped" if gone in self._leaving else "failed"
            since = self._killed.get(gone) or self._leaving.get(gone) or time.time()
            report(self._folder, ENDED, gone, how, f"{since:.3f}")
            self._serving.discard(gone)
            self._leaving.pop(gone, None)

    def run_timers(self) -> None:
        due = [act for at, act in self._later if at <= time.monotonic()]
        self._later = [(at, act) for at, act in self._later if at > time.monotonic()]
        for act in due:
            act()

    def obey(self, what: str, seconds: float, then: str) -> None:
        """Choose a worker to which nothing is being done; if there is none, nobody is harmed."""
        free = sorted(self._serving - self._troubled)
        if not free:
            return
        victim = self._chance.choice(free)
        self._troubled.add(victim)
        began = time.time()
        if what == "pause":
            os.kill(victim, signal.SIGSTOP)
        elif what == "cut":
            self._switch(victim).touch()
        if then == "stopping":
            self._send(victim, signal.SIGTERM)

        def end() -> None:
            self._troubled.discard(victim)
            if what != "nothing":
                report(self._folder, AWAY, victim, what, f"{began:.3f}")
            if then == "kill":
                self._send(victim, signal.SIGKILL)
            if what == "pause":
                self._send(victim, signal.SIGCONT)
            self._switch(victim).unlink(missing_ok=True)
            if then == "stop":
                self._send(victim, signal.SIGTERM)

        self._later.append((time.monotonic() + seconds, end))

    def _switch(self, worker: int) -> Path:
        return self._folder / f"cut-off-{worker}"

    def _send(self, worker: int, number: signal.Signals) -> None:
        if worker not in self._serving and worker not in self._leaving:
            return
        if number is signal.SIGKILL:
            self._killed[worker] = time.time()
        if number is signal.SIGTERM:
            self._serving.discard(worker)
            self._leaving[worker] = time.time()
        os.kill(worker, number)

    def stop(self) -> None:
        """Undo what is being done, and stop all."""
        for _, act in self._later:
            act()
        self._later = []
        for worker in sorted(self._serving):
            self._send(worker, signal.SIGTERM)
        while self._leaving:
            self.reap()
            time.sleep(0.02)


def supervise(folder: Path, port: int, workers: int, *arguments: str) -> None:
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    told_to_stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told_to_stop.append(number))
    os.set_blocking(sys.stdin.fileno(), False)
    supervisor = Supervisor(folder, listener, workers, arguments)
    try:
        obey_all(supervisor, told_to_stop)
    finally:
        supervisor.stop()


def obey_all(supervisor: Supervisor, told_to_stop: list[int]) -> None:
    orders = b""
    while not told_to_stop:
        supervisor.fill_up()
        with contextlib.suppress(BlockingIOError):
            orders += os.read(sys.stdin.fileno(), 65536)
        *lines, orders = orders.split(b"\n")
        for line in lines:
            what, seconds, then = line.decode().split()
            supervisor.obey(what, float(seconds), then)
        supervisor.run_timers()
        supervisor.reap()
        time.sleep(0.02)


if __name__ == "__main__":
    supervise(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
