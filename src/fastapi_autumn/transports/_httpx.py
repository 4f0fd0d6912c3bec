"""The default way: the user's httpx client, or else the connections below httpx without its pool."""

import asyncio
import time
from collections import deque
from collections.abc import Mapping

import httpcore
import httpx
from pydantic import SecretStr

from fastapi_autumn.errors import ConnectFailed, NoAnswer, Overloaded
from fastapi_autumn.transports._base import Answer
from fastapi_autumn.transports._environment import proxy_for

__all__ = ["HttpxTransport"]

_KEEP_ALIVE_SECONDS = 30.0

# Both families: mocks raise httpx's errors where httpcore's would be.
_NOTHING_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpcore.ConnectError,
    httpcore.ConnectTimeout,
    httpcore.ProxyError,
)
# HTTPError and not TransportError: it also covers a body that cannot be decoded, and hooks that raise for a status.
_NO_ANSWER = (httpx.HTTPError, httpcore.NetworkError, httpcore.ProtocolError)


class HttpxTransport:
    """Reach Autumn through httpx.

    A client that is passed in keeps its own transport, proxies, TLS settings and event hooks, and stays the caller's
    to close. Without one, proxies (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY) and certificates (SSL_CERT_FILE,
    SSL_CERT_DIR) come from the environment, as httpx reads them, and mocks for httpx such as respx work all the same.

    `timeout` bounds a call as a whole, in seconds; httpx's own time-outs, being per read, do not.
    """

    def __init__(
        self, base_url: str, *, timeout: float, connect_timeout: float, client: httpx.AsyncClient | None = None
    ) -> None:
        self._base_url = base_url
        self._timeout = timeout
        self._client = client
        self._connections = None if client is not None else _Connections(base_url, connect_timeout=connect_timeout)

    async def request(
        self, method: str, path: str, *, body: bytes, headers: Mapping[str, str], bearer: SecretStr | None = None
    ) -> Answer:
        """See `Transport.request`."""
        if bearer is not None:
            headers = {**headers, "authorization": f"Bearer {bearer.get_secret_value()}"}
        try:
            async with asyncio.timeout(self._timeout):
                if self._connections is not None:
                    return await self._connections.request(method, path, body, headers)
                return await self._through_client(method, path, body, headers)
        except (TimeoutError, httpx.ReadTimeout, httpx.WriteTimeout):
            raise NoAnswer(path, f"no answer within {self._timeout:g} s", timed_out=True) from None
        except httpx.PoolTimeout:
            raise Overloaded(path, "no free connection in the httpx client that was passed in") from None
        except _NOTHING_SENT as error:
            raise ConnectFailed(path, f"cannot connect to {self._base_url} ({type(error).__name__})") from error
        except _NO_ANSWER as error:
            raise NoAnswer(path, f"no whole answer came back ({type(error).__name__})") from error

    async def _through_client(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        assert self._client is not None  # noqa: S101 - for the type checker
        # The client may carry credentials for other services; `auth=None` keeps them from replacing Autumn's key.
        response = await self._client.request(
            method, self._base_url + path, content=body or None, headers=headers, auth=None, follow_redirects=False
        )
        return Answer(response.status_code, response.headers, response.content)

    async def aclose(self) -> None:
        """Close the connections, unless they belong to a client that was passed in."""
        if self._connections is not None:
            await self._connections.aclose()


class _Connections:
    """Keep-alive connections to one origin, the last used first.

    httpcore's pool looks at each of its connections for each request; taking the last one from a stack costs the same
    however many there are. How many there are is bounded by who calls: one per call under way.
    """

    def __init__(self, base_url: str, *, connect_timeout: float) -> None:
        url = httpx.URL(base_url)
        self._url = httpcore.URL(base_url)
        self._host = url.netloc
        self._factory = _factory(url)
        self._extensions = {"timeout": {"connect": connect_timeout}}
        self._idle: deque[tuple[float, httpcore.AsyncConnectionInterface]] = deque()

    async def request(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        url = self._url
        raw_headers = [(b"host", self._host), (b"content-length", b"%d" % len(body))]
        raw_headers += [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
        request = httpcore.Request(
            method,
            httpcore.URL(scheme=url.scheme, host=url.host, port=url.port, target=path.encode("ascii")),
            headers=raw_headers,
            content=body,
            extensions=self._extensions,
        )
        connection = await self._take()
        try:
            response = await connection.handle_async_request(request)
            content = await response.aread()
            await response.aclose()
        except BaseException:
            # Whatever it was, a cancellation too: the rest of an answer may still come on this connection.
            await connection.aclose()
            raise
        await self._give_back(connection)
        return Answer(
            response.status,
            {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers},
            content,
        )

    async def _take(self) -> httpcore.AsyncConnectionInterface:
        while self._idle:
            idle_since, connection = self._idle.pop()
            # Expired also means that the server has hung up meanwhile, as a restarted one has: nothing was sent, so
            # nothing is lost by taking another one.
            if time.monotonic() - idle_since < _KEEP_ALIVE_SECONDS and not connection.has_expired():
                return connection
            await connection.aclose()
        return self._factory.create_connection(self._url.origin)

    async def _give_back(self, connection: httpcore.AsyncConnectionInterface) -> None:
        now = time.monotonic()
        if not connection.is_closed():
            self._idle.append((now, connection))
        while self._idle and self._idle[0][0] < now - _KEEP_ALIVE_SECONDS:
            await self._idle.popleft()[1].aclose()

    async def aclose(self) -> None:
        while self._idle:
            await self._idle.pop()[1].aclose()


def _factory(url: httpx.URL) -> httpcore.AsyncConnectionPool:
    """Return a pool that is only asked to make connections: direct ones, or through the environment's proxy."""
    ssl_context = httpx.create_ssl_context() if url.scheme == "https" else None
    proxy = proxy_for(url)
    if proxy is None:
        return httpcore.AsyncConnectionPool(ssl_context=ssl_context)
    kind = httpcore.AsyncSOCKSProxy if proxy.url.scheme.startswith("socks") else httpcore.AsyncHTTPProxy
    return kind(
        httpcore.URL(str(proxy.url)),
        proxy_auth=proxy.raw_auth,
        ssl_context=ssl_context,
    )
