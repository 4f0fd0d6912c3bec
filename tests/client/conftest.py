"""An Autumn made of canned answers, and clients that talk to it in both ways that go through httpx."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import respx
from pydantic import SecretStr

from client.answers import KEY, ORIGIN
from fastapi_autumn import AutumnClient, AutumnSettings
from fastapi_autumn.client import _calls


@pytest.fixture
def autumn() -> Iterator[respx.MockRouter]:
    """Autumn, as far as HTTP can tell: each test says what it answers."""
    with respx.mock(base_url=f"{ORIGIN}/v1", assert_all_called=False) as router:
        yield router


@pytest.fixture
def settings() -> AutumnSettings:
    return AutumnSettings(_env_file=None, base_url=ORIGIN, secret_key=SecretStr(KEY), transport="httpx")


@pytest.fixture(params=["own connections", "a client passed in"])
async def client(
    request: pytest.FixtureRequest, settings: AutumnSettings, autumn: respx.MockRouter
) -> AsyncIterator[AutumnClient]:
    """An `AutumnClient` by itself, and one on an `httpx.AsyncClient` of the application."""
    passed_in = httpx.AsyncClient() if request.param == "a client passed in" else None
    client = AutumnClient(settings, http_client=passed_in)
    yield client
    await client.aclose()
    if passed_in is not None:
        await passed_in.aclose()


@pytest.fixture
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat at once, so that no test waits."""
    monkeypatch.setattr(_calls, "_FIRST_BACKOFF", 0.0)
