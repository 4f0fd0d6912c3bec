"""The official clients, and an emulator behind a socket for them to talk to."""

import contextlib
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.processes import Server
from interop import clients
from interop.clients import Atmn, Library

DATA = Path(__file__).parent / "data"
CATALOG_DATA = Path(__file__).parents[1] / "catalog" / "data"


@pytest.fixture(scope="session")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("interop") / "emulator.db") as server:
        yield server


@pytest.fixture
def server(_server: Server) -> Server:
    """A served emulator with nothing in it, which keeps what it is asked."""
    _server.call("/emulator/reset")
    _server.requests.clear()
    return _server


@pytest.fixture(scope="session")
def packages() -> Path:
    """The folder in which npm installed atmn and autumn-js."""
    return clients.install_npm()


@pytest.fixture
def atmn(tmp_path: Path, packages: Path, server: Server) -> Atmn:
    """The official command line, in an empty folder."""
    return Atmn(tmp_path / "project", packages, server)


@pytest.fixture(scope="session")
def autumn_js(packages: Path) -> Iterator[Library]:
    with clients.javascript(packages) as library:
        yield library


@pytest.fixture(scope="session")
def autumn_sdk() -> Iterator[Library]:
    with clients.python(clients.install_sdk()) as library:
        yield library


@pytest.fixture(scope="session")
def pushed_body() -> dict[str, Any]:
    """What atmn was recorded to send to catalog.update for `data/autumn.config.ts`."""
    body: dict[str, Any] = json.loads((CATALOG_DATA / "pushed_body.json").read_text())
    return body


@pytest.fixture
def seeded(server: Server, pushed_body: dict[str, Any]) -> Server:
    """The emulator with the recorded catalog, and nothing kept yet."""
    server.call("/v1/catalog.update", pushed_body)
    server.requests.clear()
    return server


@pytest.fixture
def config(atmn: Atmn) -> Path:
    """The recorded catalog, as a file in atmn's folder."""
    shutil.copy(DATA / "autumn.config.ts", atmn.config)
    return atmn.config


@pytest.fixture
def ready(seeded: Server) -> Server:
    """The emulator with the recorded catalog and a customer, who is on its free plan."""
    seeded.call("/v1/features.update", {"feature_id": "messages", "event_names": ["chat", "e"]})
    seeded.call("/v1/customers.get_or_create", {"customer_id": "cus_123"})
    return seeded


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def hanging_up() -> Iterator[str]:
    """An address at which somebody takes a request and closes the connection."""

    def hang_up() -> None:
        with contextlib.suppress(OSError):  # the listener was closed: the test is over
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65_536)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=hang_up, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
