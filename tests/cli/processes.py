"""An Autumn to talk to, and what a process may see of this machine."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self
from urllib.request import Request, urlopen

import uvicorn

from fastapi_autumn.emulator import EMULATOR_KEY, Emulator

Run = Callable[..., subprocess.CompletedProcess[str]]

LIVE_KEY = "am_sk_live_of_the_tests"

CATALOG = """\
from fastapi_autumn.catalog import feature, item, plan, price

ai_usage = feature(id="ai_usage", name="AI usage", type="metered", consumable=True)
ai_credits = feature(id="ai_credits", name="AI credits", type="credit_system", credit_schema={ai_usage: 1})

free = plan(
    id="free",
    name="Free",
    group="main",
    auto_enable=True,
    items=[item(ai_credits, included=50, reset="month")],
)
# The one that pays.
pro = plan(
    id="pro",
    name="Pro",
    group="main",
    price=price(20, interval="month"),
    items=[item(ai_credits, included=2000, reset="month")],
)
"""


class Server:
    """An emulator behind a socket that keeps what it was asked. It lives as long as the test session."""

    def __init__(self, path: Path) -> None:
        self.requests: list[tuple[str, str, Any]] = []
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen()
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._emulator = Emulator(path)
        self._emulator.add_key(LIVE_KEY)
        self._server = uvicorn.Server(
            uvicorn.Config(self._answer, interface="asgi3", log_level="critical", lifespan="off", ws="none")
        )
        self._thread = threading.Thread(target=lambda: asyncio.run(self._server.serve([self._socket])))

    @property
    def environment(self) -> dict[str, str]:
        return {"AUTUMN_BASE_URL": self.url, "AUTUMN_SECRET_KEY": EMULATOR_KEY}

    def __enter__(self) -> Self:
        self._thread.start()
        # What the thread opens belongs to the session, and not to the first test that asks.
        while not self._server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._emulator.close()

    def call(self, path: str, body: Any = None) -> Any:
        """Ask for `path` as a customer's own code would."""
        headers = {"authorization": f"Bearer {EMULATOR_KEY}", "content-type": "application/json"}
        request = Request(self.url + path, json.dumps(body or {}).encode(), headers)  # noqa: S310 - the fixture's own
        with urlopen(request) as answer:  # noqa: S310 - as above
            return json.load(answer)

    def fault(self, operation: str, **fault: Any) -> None:
        self.call("/emulator/faults", {"operation": operation, **fault})

    def sent(self, path: str) -> list[Any]:
        """The bodies that were sent to `path` since the test began."""
        return [body for _, asked, body in self.requests if asked == path]

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""

        async def kept_receive() -> Any:
            nonlocal body
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body", False):
                self._keep(scope, body)
            return message

        # A fault breaks the connection by an error that uvicorn would print.
        with contextlib.suppress(ConnectionError):
            await self._emulator(scope, kept_receive, send)

    def _keep(self, scope: Any, body: bytes) -> None:
        if scope["path"].startswith("/emulator/"):
            return
        try:
            content = json.loads(body) if body else None
        except ValueError:
            content = body.decode()
        self.requests.append((scope["method"], scope["path"], content))


def clean_environment(home: Path) -> dict[str, str]:
    """What a process needs, and nothing of the machine that runs the tests, but for its measure of coverage."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("COVERAGE", "COV_"))}
    return kept | {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}
