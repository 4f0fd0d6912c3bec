"""Which transport the settings give, and what is particular to one of them."""

import subprocess
import sys

import httpx
import pytest
import respx

from fastapi_autumn.errors import ConfigurationError, ConnectFailed, NoAnswer, Overloaded
from fastapi_autumn.settings import AutumnSettings
from fastapi_autumn.transports import HttptoolsTransport, HttpxTransport, ReqwestTransport, transport_for
from fastapi_autumn.transports import _httptools as httptools_transport
from fastapi_autumn.transports import _httpx as httpx_transport
from transports.scripted_server import HEADERS, post, serve

URL = "https://api.useautumn.com"


@pytest.mark.parametrize(
    ("name", "kind"), [(None, HttpxTransport), ("httptools", HttptoolsTransport), ("reqwest", ReqwestTransport)]
)
async def test_settings_name_the_transport(monkeypatch, name, kind):
    """Httpx unless AUTUMN_TRANSPORT says otherwise."""
    if name is not None:
        monkeypatch.setenv("AUTUMN_TRANSPORT", name)
    transport = transport_for(AutumnSettings())

    assert type(transport) is kind
    await transport.aclose()


@pytest.mark.parametrize("name", ["httptools", "reqwest"])
async def test_httpx_client_cannot_be_given_to_another_transport(monkeypatch, name):
    """A client whose proxies and hooks would be ignored is refused."""
    monkeypatch.setenv("AUTUMN_TRANSPORT", name)
    async with httpx.AsyncClient() as client:
        with pytest.raises(ConfigurationError, match="AUTUMN_TRANSPORT"):
            transport_for(AutumnSettings(), http_client=client)


@pytest.mark.parametrize(("kind", "module"), [(HttptoolsTransport, "httptools"), (ReqwestTransport, "pyreqwest")])
def test_missing_extra_is_named(monkeypatch, kind, module):
    """Without the library, the error is the line that installs it."""
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(ConfigurationError, match=r"pip install 'fastapi-autumn\[fast\]'"):
        kind(URL, timeout=1, connect_timeout=1)


@pytest.mark.parametrize("kind", [HttptoolsTransport, ReqwestTransport])
def test_certificates_that_cannot_be_read_are_named(monkeypatch, tmp_path, kind):
    """A wrong SSL_CERT_FILE is told at the start, not at the first call."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))

    with pytest.raises(ConfigurationError, match="SSL_CERT_FILE"):
        kind(URL, timeout=1, connect_timeout=1)


@pytest.mark.parametrize("own_client", [False, True])
async def test_respx_stands_in_for_the_network(own_client):
    """Mocks for httpx see the request that would have left, with and without a client of one's own."""
    client = httpx.AsyncClient() if own_client else None
    transport = HttpxTransport(URL, timeout=1, connect_timeout=1, client=client)
    with respx.mock:
        route = respx.post(f"{URL}/v1/balances.check").respond(
            202, json={"allowed": True}, headers={"Retry-After": "1"}
        )
        answers = [await post(transport, b'{"customer_id":"c"}') for _ in range(2)]

    assert [(answer.status, answer.body, answer.headers["retry-after"]) for answer in answers] == [
        (202, b'{"allowed":true}', "1")
    ] * 2
    sent = route.calls.last.request
    assert sent.content == b'{"customer_id":"c"}'
    assert sent.headers["authorization"] == HEADERS["authorization"]
    await transport.aclose()
    if client is not None:
        await client.aclose()


@pytest.mark.parametrize(
    ("mocked", "expected"),
    [
        (httpx.ConnectError, ConnectFailed),
        (httpx.ConnectTimeout, ConnectFailed),
        (httpx.PoolTimeout, Overloaded),
        (httpx.ReadTimeout, NoAnswer),
        (httpx.ReadError, NoAnswer),
        (httpx.RemoteProtocolError, NoAnswer),
    ],
)
async def test_mocked_failures_are_told_apart_as_real_ones(mocked, expected):
    """What respx raises in place of the network is read like the network's own."""
    transport = HttpxTransport(URL, timeout=1, connect_timeout=1)
    with respx.mock:
        respx.post(f"{URL}/v1/balances.check").mock(side_effect=mocked)
        with pytest.raises(expected):
            await post(transport)
    await transport.aclose()


@pytest.mark.parametrize(
    ("kind", "module"), [(HttptoolsTransport, httptools_transport), (HttpxTransport, httpx_transport)]
)
async def test_connection_that_was_idle_for_long_is_closed(monkeypatch, kind, module):
    """Connections that a burst needed do not stay open for ever, and none is used that a firewall may have dropped."""
    async with serve() as server:
        transport = kind(server.url, timeout=5, connect_timeout=5)
        monkeypatch.setattr(module, "_KEEP_ALIVE_SECONDS", -1.0)
        for _ in range(3):
            await post(transport)
        await transport.aclose()

    assert server.connections == 3


@pytest.mark.slow
def test_interpreter_exits_cleanly_after_failed_calls():
    """The threads of pyreqwest do not abort an interpreter that exits right after the transport was closed."""
    script = """
import asyncio, socket
from fastapi_autumn.errors import Unavailable
from fastapi_autumn.transports import ReqwestTransport

async def main():
    with socket.socket() as listener:  # accepts nobody, and its backlog is full
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        transport = ReqwestTransport(url, timeout=1, connect_timeout=0.1)
        calls = [transport.request("POST", "/", body=b"{}", headers={}) for _ in range(50)]
        assert all(isinstance(e, Unavailable) for e in await asyncio.gather(*calls, return_exceptions=True))
        await transport.aclose()

asyncio.run(main())
"""
    processes = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(10)]

    assert [process.wait(60) for process in processes] == [0] * 10
