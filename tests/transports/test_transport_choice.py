"""Which transport the settings give, and what is particular to one of them."""

import traceback

import httpx
import pytest
import respx

from fastapi_autumn.errors import ConfigurationError, ConnectFailed, NoAnswer, Overloaded
from fastapi_autumn.settings import AutumnSettings
from fastapi_autumn.transports import HttptoolsTransport, HttpxTransport, _httptools, transport_for
from transports.scripted_server import KEY, post, serve

URL = "https://api.useautumn.com"


@pytest.mark.parametrize(("name", "kind"), [(None, HttptoolsTransport), ("httpx", HttpxTransport)])
async def test_settings_name_the_transport(monkeypatch, name, kind):
    """Httptools unless AUTUMN_TRANSPORT says otherwise."""
    if name is not None:
        monkeypatch.setenv("AUTUMN_TRANSPORT", name)
    transport = transport_for(AutumnSettings())

    assert type(transport) is kind
    await transport.aclose()


async def test_httpx_client_that_is_passed_in_is_used():
    """Whatever the settings say: its proxies, certificates and hooks are why it was passed in."""
    async with httpx.AsyncClient() as client:
        assert type(transport_for(AutumnSettings(), http_client=client)) is HttpxTransport


def test_transport_that_is_gone_says_what_to_do(monkeypatch):
    """AUTUMN_TRANSPORT=reqwest of the first version is refused with the two ways on."""
    monkeypatch.setenv("AUTUMN_TRANSPORT", "reqwest")

    with pytest.raises(ConfigurationError, match=r"reqwest is gone; remove the variable .* or set it to httpx"):
        AutumnSettings.load()


KINDS = pytest.mark.parametrize("kind", [HttptoolsTransport, HttpxTransport])


@KINDS
def test_certificates_that_cannot_be_read_are_named(monkeypatch, tmp_path, kind):
    """A wrong SSL_CERT_FILE is told at the start, not at the first call."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))

    with pytest.raises(ConfigurationError, match="SSL_CERT_FILE"):
        kind(URL, timeout=1, connect_timeout=1)


@KINDS
@pytest.mark.parametrize("proxy", ["http://user:hunter2@[::1", "ftp://user:hunter2@proxy"])
def test_proxy_that_cannot_be_one_is_told_without_its_password(monkeypatch, kind, proxy):
    """The error names the variable and shows nothing of what is in it."""
    monkeypatch.setenv("HTTPS_PROXY", proxy)

    with pytest.raises(ConfigurationError, match="HTTPS_PROXY") as caught:
        kind(URL, timeout=1, connect_timeout=1)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@KINDS
@pytest.mark.parametrize(
    "url", ["http://", "ftp://autumn.example", "http://[::1", "http://autumn.example:port", "http://xn--.example"]
)
def test_what_is_no_origin_is_refused(kind, url):
    """At the start, and as an error of the configuration."""
    with pytest.raises(ConfigurationError, match="AUTUMN_BASE_URL"):
        kind(url, timeout=1, connect_timeout=1)


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
    assert sent.headers["authorization"] == f"Bearer {KEY.get_secret_value()}"
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


async def test_connection_that_was_idle_for_long_is_closed(monkeypatch):
    """Connections that a burst needed do not stay open for ever, and none is used that a firewall may have dropped."""
    async with serve() as server:
        transport = HttptoolsTransport(server.url, timeout=5, connect_timeout=5)
        monkeypatch.setattr(_httptools, "_KEEP_ALIVE_SECONDS", -1.0)
        for _ in range(3):
            await post(transport)
        await transport.aclose()

    assert server.connections == 3
