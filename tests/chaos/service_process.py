"""A metered service under real uvicorn workers, of which one is killed every few seconds.

    python -m chaos.service_process FOLDER PORT WORKERS AUTUMN_URL OUTBOX_URL SETTLEMENT

One process listens, forks the workers, kills one at random and forks another. SIGUSR1 ends the killing; SIGTERM stops
the workers the way a deployment does.
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
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from chaos.settings import COUNTS, EVENT_DELAY, HOLD_TTL, KILLS, LEASE, PRICES, TIMEOUT, report
from fastapi_autumn import Autumn, AutumnMiddleware, AutumnSettings, Charge, CreditGate
from fastapi_autumn.errors import ConnectFailed
from fastapi_autumn.transports import Answer, HttpxTransport

KILL_SECONDS = (1.0, 4.0)

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
        report(self._folder, "log", os.getpid(), message)
        for beginning, name in FAILURES.items():
            if message.startswith(beginning):
                report(self._folder, COUNTS, name.replace(" ", "_"))


def application(folder: Path, autumn_url: str, outbox_url: str, charging: Any) -> FastAPI:
    settings = AutumnSettings(
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
        shutdown_timeout=5,
    )
    autumn = Autumn(settings, prices=PRICES, transport=CountingTransport(folder, autumn_url))
    app = FastAPI(lifespan=autumn.lifespan)
    app.add_middleware(AutumnMiddleware, autumn=autumn, identify=lambda connection: connection.headers["x-user"])
    paid = Annotated[Charge, Depends(CreditGate(properties=number_of_the_call))]

    @app.post("/ai/plain")
    async def plain(ask: Ask, charge: paid, response: Response) -> Any:
        await asyncio.sleep(random.uniform(0, 0.02))
        if ask.how == "raises":
            raise ValueError(ask.how)
        if ask.how == "answers 502":
            raise HTTPException(502)
        response.headers["x-worker"] = str(os.getpid())
        return {"charge": charge.id}

    async def words(how: str) -> AsyncIterator[bytes]:
        for number in range(4):
            yield b"word\n"
            await asyncio.sleep(random.uniform(0, 0.02))
            if how == "breaks" and number == 1:
                raise ValueError(how)

    @app.post("/ai/stream")
    async def stream(ask: Ask, charge: paid) -> StreamingResponse:
        return StreamingResponse(words(ask.how), headers={"x-worker": str(os.getpid()), "x-charge": charge.id})

    return app


def work(listener: socket.socket, folder: Path, *arguments: str) -> None:
    """Be one worker, until the end."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
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


def supervise(folder: Path, port: int, workers: int, *arguments: str) -> None:
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    stop = {signal.SIGTERM: False, signal.SIGUSR1: False}
    for number in stop:
        signal.signal(number, lambda number, _: stop.__setitem__(number, True))
    chance = random.Random(port)
    children: set[int] = set()
    kill_at = time.monotonic() + chance.uniform(*KILL_SECONDS)
    while not stop[signal.SIGTERM]:
        while len(children) < workers:
            child = os.fork()
            if not child:
                with contextlib.suppress(BaseException):
                    work(listener, folder, *arguments)
                os._exit(0)
            children.add(child)
        if not stop[signal.SIGUSR1] and time.monotonic() >= kill_at:
            kill_at = time.monotonic() + chance.uniform(*KILL_SECONDS)
            victim = chance.choice(sorted(children))
            os.kill(victim, signal.SIGKILL)
            report(folder, KILLS, victim)
        time.sleep(0.02)
        while children:
            gone, _ = os.waitpid(-1, os.WNOHANG)
            if not gone:
                break
            children.discard(gone)
            report(folder, "exits", gone)
    for child in children:
        os.kill(child, signal.SIGTERM)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    supervise(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
