"""The other way: httpx, as it comes."""

import asyncio
from collections.abc import Generator, Mapping

import httpx
from pydantic import SecretStr

from fastapi_autumn.errors import ConfigurationError, ConnectFailed, NoAnswer, Overloaded, Unavailable
from fastapi_autumn.transports._base import LARGEST_ANSWER, Answer, is_compressed, refuse_unsendable, without_key
from fastapi_autumn.transports._environment import origin, proxy_for, ssl_context

__all__ = ["HttpxTransport"]

_NOTHING_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)


class HttpxTransport:
    """Reach Autumn through httpx.

    A client that is passed in keeps its own transport, proxies, TLS settings and event hooks, and stays the caller's
    to close. Without one, proxies (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY) and certificates (SSL_CERT_FILE,
    SSL_CERT_DIR) come from the environment, and each call has a connection of its own: bytes that follow an answer
    would be read as the answer to the next call, which cannot be seen from outside of httpx. A client that is passed
    in reuses connections as its limits say.

    `timeout` bounds a call as a whole, in seconds; httpx's own time-outs, being per read, do not.

    Raises:
        ConfigurationError: SSL_CERT_FILE, the proxy or `base_url` cannot be used.
    """

    def __init__(
        self, base_url: str, *, timeout: float, connect_timeout: float, client: httpx.AsyncClient | None = None
    ) -> None:
        url = origin(base_url)
        self._base_url = base_url
        self._timeout = timeout
        self._is_closed = False
        self._owns_client = client is None
        self._client = client or _client(url, connect_timeout)

    async def request(
        self, method: str, path: str, *, body: bytes, headers: Mapping[str, str], bearer: SecretStr | None = None
    ) -> Answer:
        """See `Transport.request`."""
        refuse_unsendable(path, headers, bearer)
        if self._is_closed or self._client.is_closed:
            raise ConnectFailed(path, "the httpx client is closed")
        try:
            async with asyncio.timeout(self._timeout):
                return without_key(await self._send(method, path, body, headers, bearer), bearer)
        except asyncio.CancelledError as error:
            error.__context__ = None
            raise error.with_traceback(None) from None
        except (OSError, httpx.HTTPError, httpx.StreamError, httpx.InvalidURL) as error:
            failure = self._failure(path, error)
        # Not where the error was caught: the frames of httpx hold the request with its key, and an error that is
        # chained to this one would carry them into error trackers. A cancellation leaves them behind as well.
        raise failure

    def _failure(self, path: str, error: Exception) -> Unavailable:
        kind = type(error).__name__
        match error:
            case TimeoutError() | httpx.ReadTimeout() | httpx.WriteTimeout():
                return NoAnswer(path, f"no answer within {self._timeout:g} s", timed_out=True)
            case httpx.PoolTimeout():
                return Overloaded(path, "no free connection in the httpx client that was passed in")
            case _ if isinstance(error, _NOTHING_SENT):
                return ConnectFailed(path, f"cannot connect to {self._base_url} ({kind})")
            case _:
                # Also a body that breaks off, hooks of the client that raise for a status, and a redirect to nowhere,
                # at which httpx looks without following it.
                return NoAnswer(path, f"no whole answer came back ({kind})")

    async def _send(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], bearer: SecretStr | None
    ) -> Answer:
        # The client may carry credentials for other services; they must not replace Autumn's key.
        auth = None if bearer is None else _Bearer(bearer)
        async with self._client.stream(
            method,
            self._base_url + path,
            content=body or None,
            headers={"accept-encoding": "identity", **headers},
            auth=auth,
            follow_redirects=False,
        ) as response:
            return Answer(response.status_code, _joined(response.headers), await _read(path, response))

    async def aclose(self) -> None:
        """Close the connections, unless they belong to a client that was passed in."""
        self._is_closed = True
        if self._owns_client:
            await self._client.aclose()


class _Bearer(httpx.Auth):
    """Adds the key where httpx adds credentials, so that no dictionary of headers holds it on the way."""

    def __init__(self, bearer: SecretStr) -> None:
        self._bearer = bearer

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["authorization"] = f"Bearer {self._bearer.get_secret_value()}"
        yield request


def _client(url: httpx.URL, connect_timeout: float) -> httpx.AsyncClient:
    try:
        return httpx.AsyncClient(
            verify=ssl_context(),
            proxy=proxy_for(url),
            trust_env=False,  # read above, so that it means the same to both transports
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            timeout=httpx.Timeout(None, connect=connect_timeout),
        )
    except ImportError as error:
        raise ConfigurationError(f"the proxy cannot be used: {error}") from None


def _joined(headers: httpx.Headers) -> dict[str, str]:
    # httpx joins the values of a name that comes more than once.
    return {name.lower(): value for name, value in headers.items()}


async def _read(path: str, response: httpx.Response) -> bytes:
    if is_compressed(response.headers):
        raise NoAnswer(path, "the answer is compressed")
    parts, size = [], 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > LARGEST_ANSWER:
            raise NoAnswer(path, "the answer is too large")
        parts.append(part)
    return b"".join(parts)
