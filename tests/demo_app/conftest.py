"""The demo under a real uvicorn, as a customer reaches it."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from demo_app.app import create_app
from demo_app.providers import ModelSettings
from fastapi_autumn import AutumnSettings


@contextmanager
def serving(app) -> Iterator[str]:
    """Run `app` in a thread and give its address."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        assert server.started
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Serve an app, by default a demo with an emulator of its own and a model as told, and give its address."""
    with ExitStack() as running:

        def start(app=None, **model) -> str:
            return running.enter_context(serving(app or demo_app(tmp_path, **model)))

        yield start


@pytest.fixture
def demo(serve) -> str:
    """The address of a demo with a stand-in model in a hurry."""
    return serve(word_delay=0.001)


def demo_app(directory: Path, **model) -> FastAPI:
    settings = AutumnSettings(
        _env_file=None,
        emulator=True,
        emulator_path=directory / "emulator.db",
        outbox_url=f"sqlite+aiosqlite:///{directory}/outbox.db",
    )
    return create_app(settings, ModelSettings(_env_file=None, **{"base_url": None, **model}))


@pytest.fixture
def balance_of() -> Callable[..., float]:
    """What a customer has left; with `until`, after waiting for it."""

    def ask(url: str, token: str, *, until: float | None = None) -> float:
        deadline = time.monotonic() + 60
        while True:
            answer = httpx.get(f"{url}/billing/customer", headers={"Authorization": f"Bearer {token}"})
            remaining = float(answer.raise_for_status().json()["balances"]["ai_credits"]["remaining"])
            if until is None or remaining == until or time.monotonic() > deadline:
                return remaining
            time.sleep(0.02)

    return ask


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port on which nobody listens, and which nobody else gets meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
