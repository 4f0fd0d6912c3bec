"""The outcomes under servers other than uvicorn, each in a process of its own."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from outcome_routes import KEPT, ROWS, call
from service import until

pytestmark = pytest.mark.parametrize("server", ["granian", "hypercorn"])


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def start(server: str, folder: Path, port: int) -> subprocess.Popen[bytes]:
    arguments = {
        "granian": ["--interface", "asgi", "--port", str(port), "--log-level", "critical"],
        "hypercorn": ["--bind", f"127.0.0.1:{port}", "--log-level", "critical"],
    }
    environment = {"PYTHONPATH": str(Path(__file__).parent), "PATH": os.environ["PATH"]}
    command = [Path(sys.executable).with_name(server), *arguments[server], "outcome_process:app"]
    with (folder / "server.log").open("w") as log:
        return subprocess.Popen(
            command, env=environment | {"AUTUMN_TEST_FOLDER": str(folder)}, cwd=folder, stdout=log, stderr=log
        )


@contextlib.asynccontextmanager
async def serving(server: str, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the application of the outcomes, and call it."""
    port = free_port()
    process = start(server, folder, port)
    try:
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, headers={"x-user": "ada"}, timeout=60) as client:
            await until(lambda: answers(client), seconds=60)
            yield client
    finally:
        process.terminate()
        process.wait(60)


async def answers(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/closed")).is_success
    except httpx.TransportError:
        return False


async def used(client: httpx.AsyncClient, customer: str) -> Decimal:
    return Decimal((await client.get(f"/used/{customer}")).json())


async def test_outcomes(tmp_path, server):
    """Every row gives the customer what the table says, and costs what it says."""
    async with serving(server, tmp_path) as client:
        for number, (path, how, status, whole, paid) in enumerate(ROWS):
            client.headers["x-user"] = customer = f"customer-{number}"
            seen = await call(client, path, how)
            assert (path, how, *seen) == (path, how, status, whole)
            assert (path, how, await used(client, customer)) == (path, how, paid)


async def test_hang_ups(tmp_path, server):
    """A client that leaves in mid-stream pays, and the model's stream is closed."""
    async with serving(server, tmp_path) as client:
        for number, path in enumerate(["stream", "sse", "jsonl", "other-sse"], start=1):
            client.headers["x-user"] = path
            async with client.stream("POST", f"/ai/{path}", json={"model": "large", "how": "endless"}) as response:
                async for _ in response.aiter_raw():
                    break
            await until(lambda number=number: closed(client, number), seconds=60)
            assert await used(client, path) == KEPT


async def closed(client: httpx.AsyncClient, number: int) -> Any:
    return len((await client.get("/closed")).json()) >= number
