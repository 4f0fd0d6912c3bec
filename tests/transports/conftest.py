"""The transports under test, and the event loops they run on."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
import pytest

from fastapi_autumn.transports import HttptoolsTransport, HttpxTransport, Transport

Connect = Callable[..., AbstractAsyncContextManager[Transport]]


@pytest.fixture(scope="session", params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Both event loops: uvicorn runs services on uvloop where it is installed."""
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture(params=["httptools", "httpx", "httpx_client"])
def connect(request: pytest.FixtureRequest) -> Connect:
    """Open the transport under test: the two of this package, and an httpx client that was passed in."""

    @asynccontextmanager
    async def opened(url: str, *, timeout: float = 5.0, connect_timeout: float = 5.0) -> AsyncIterator[Transport]:  # noqa: ASYNC109 - the transport's, not this function's
        client = None
        if request.param == "httpx_client":
            client = httpx.AsyncClient(timeout=httpx.Timeout(60, connect=connect_timeout))
        transport: Transport
        if request.param == "httptools":
            transport = HttptoolsTransport(url, timeout=timeout, connect_timeout=connect_timeout)
        else:
            transport = HttpxTransport(url, timeout=timeout, connect_timeout=connect_timeout, client=client)
        try:
            yield transport
        finally:
            await transport.aclose()
            if client is not None:
                await client.aclose()

    return opened


@pytest.fixture
def reuses_connections(request: pytest.FixtureRequest) -> bool:
    """Whether the transport under test keeps connections; the httpx client of this package's own does not."""
    return request.node.callspec.params["connect"] != "httpx"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
