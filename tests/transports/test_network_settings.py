"""Proxies and certificates, from the environment."""

import asyncio
import contextlib
import ssl

import pytest
import trustme

from fastapi_autumn.errors import ConnectFailed
from transports.scripted_server import Connection, post, serve


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def trusted(authority, tmp_path, monkeypatch):
    """Trust the authority through SSL_CERT_FILE."""
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))


async def test_private_authority_is_trusted_through_ssl_cert_file(connect, tls, trusted, reuses_connections):
    """A certificate from an authority of one's own is accepted, and its connection kept."""
    async with serve(tls=tls) as server, connect(server.url) as transport:
        await post(transport)
        await post(transport)

    assert (len(server.requests), server.connections) == (2, 1 if reuses_connections else 2)


async def test_unknown_authority_is_refused_before_anything_is_sent(connect, tls):
    """Without it, the key does not leave."""
    async with serve(tls=tls) as server, connect(server.url) as transport:
        with pytest.raises(ConnectFailed):
            await post(transport)

    assert server.requests == []


async def test_certificate_for_another_host_is_refused(connect, tls, trusted):
    """The name in the certificate has to be the one that was called."""
    async with serve(tls=tls) as server, connect(f"https://localhost:{server.port}") as transport:
        with pytest.raises(ConnectFailed):
            await post(transport)

    assert server.requests == []


async def test_http_proxy_is_used(connect, monkeypatch):
    """A plain call goes to the proxy, with the whole URL."""
    async with serve() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        async with connect("http://autumn.example") as transport:
            answer = await post(transport)

    assert answer.status == 200
    assert proxy.requests[0].line == "POST http://autumn.example/v1/balances.check HTTP/1.1"
    assert proxy.requests[0].headers["host"] == "autumn.example"


async def test_https_goes_through_a_tunnel(connect, tls, trusted, monkeypatch):
    """The proxy sees CONNECT and nothing of the call; its password is sent to it and to nobody else."""
    async with serve(tls=tls) as server, serve(_tunnel_to(server.port)) as proxy:
        monkeypatch.setenv("https_proxy", f"http://user:pass@127.0.0.1:{proxy.port}")
        async with connect(server.url) as transport:
            answer = await post(transport)

    assert answer.status == 200
    (tunnelled,) = proxy.requests
    assert tunnelled.line == f"CONNECT 127.0.0.1:{server.port} HTTP/1.1"
    assert tunnelled.headers["proxy-authorization"] == "Basic dXNlcjpwYXNz"
    assert "authorization" not in tunnelled.headers
    assert "proxy-authorization" not in server.requests[0].headers


async def test_proxy_that_refuses_means_nothing_was_sent(connect, monkeypatch):
    """A 403 to CONNECT is the proxy's answer, not Autumn's."""

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        await connection.answer(status="403 Forbidden")

    async with serve(handler) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        async with connect("https://autumn.example") as transport:
            with pytest.raises(ConnectFailed):
                await post(transport)


@pytest.mark.parametrize("exempt", ["127.0.0.1", "other.example,127.0.0.1", "*"])
async def test_no_proxy_is_honoured(connect, monkeypatch, exempt):
    """A host in NO_PROXY is called directly."""
    async with serve() as server, serve() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", exempt)
        async with connect(server.url) as transport:
            await post(transport)

    assert (len(server.requests), len(proxy.requests)) == (1, 0)


def _tunnel_to(port):
    async def handler(connection: Connection) -> None:
        await connection.read_request()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await connection.write(b"HTTP/1.1 200 OK\r\n\r\n")

        async def pump(source, sink):
            while data := await source.read(65536):
                sink.write(data)
            with contextlib.suppress(OSError):
                sink.write_eof()

        try:
            await asyncio.gather(pump(connection.reader, writer), pump(reader, connection.writer))
        finally:
            writer.close()
            await writer.wait_closed()

    return handler
