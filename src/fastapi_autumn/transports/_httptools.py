"""The fastest way: connections that live in the event loop itself, with httptools to read the answers."""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import httpx
from pydantic import SecretStr

from fastapi_autumn.errors import ConfigurationError, ConnectFailed, NoAnswer
from fastapi_autumn.transports._base import Answer
from fastapi_autumn.transports._environment import proxy_for
from fastapi_autumn.transports._httpx import HttpxTransport

__all__ = ["HttptoolsTransport"]

_KEEP_ALIVE_SECONDS = 30.0
_LAST_INFORMATIONAL = 199


class HttptoolsTransport:
    """Reach Autumn over plain asyncio protocols and httptools, the parser of uvicorn; in the extra `fast`.

    A call costs one write and one read in the thread of the event loop, and nothing else. Certificates come from
    SSL_CERT_FILE and SSL_CERT_DIR. Where the environment names a proxy, `HttpxTransport` carries the calls.

    `timeout` bounds a call as a whole and `connect_timeout` the making of a connection, both in seconds.

    Raises:
        ConfigurationError: httptools is not installed, or SSL_CERT_FILE cannot be used.
    """

    def __init__(self, base_url: str, *, timeout: float, connect_timeout: float) -> None:
        try:
            from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ConfigurationError(
                "AUTUMN_TRANSPORT=httptools needs httptools: pip install 'fastapi-autumn[fast]'"
            ) from error
        url = httpx.URL(base_url)
        self._parser, self._parser_errors = HttpResponseParser, (HttpParserError, HttpParserUpgrade)
        self._base_url = base_url
        self._host, self._port = url.host, url.port or (443 if url.scheme == "https" else 80)
        self._netloc = url.netloc.decode("ascii")
        self._tls = _tls() if url.scheme == "https" else None
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._idle: deque[_Connection] = deque()
        self._through_proxy = (
            None
            if proxy_for(url) is None
            else HttpxTransport(base_url, timeout=timeout, connect_timeout=connect_timeout)
        )

    async def request(
        self, method: str, path: str, *, body: bytes, headers: Mapping[str, str], bearer: SecretStr | None = None
    ) -> Answer:
        """See `Transport.request`."""
        if self._through_proxy is not None:
            return await self._through_proxy.request(method, path, body=body, headers=headers, bearer=bearer)
        if bearer is not None:
            headers = {**headers, "authorization": f"Bearer {bearer.get_secret_value()}"}
        request = _request(method, path, self._netloc, headers, body)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        connection = self._take()
        if connection is None:
            connection = await self._connect(path)
        answer = connection.send(request)
        # Cheaper than asyncio.timeout, which would cost as much as reading the answer.
        timer = loop.call_at(deadline, connection.time_out)
        try:
            return await answer
        except TimeoutError:
            raise NoAnswer(path, f"no answer within {self._timeout:g} s", timed_out=True) from None
        except _BrokenError as error:
            raise NoAnswer(path, f"no whole answer came back ({error})") from error
        finally:
            timer.cancel()
            self._give_back(connection)

    async def aclose(self) -> None:
        """Close the connections."""
        while self._idle:
            self._idle.pop().close()
        if self._through_proxy is not None:
            await self._through_proxy.aclose()
        # A connection is closed by the loop's next round.
        await asyncio.sleep(0)

    async def _connect(self, path: str) -> "_Connection":
        try:
            async with asyncio.timeout(min(self._connect_timeout, self._timeout)):
                _, connection = await asyncio.get_running_loop().create_connection(
                    self._new_connection, self._host, self._port, ssl=self._tls
                )
        except OSError as error:
            # Also TimeoutError and what TLS refuses.
            raise ConnectFailed(path, f"cannot connect to {self._base_url} ({type(error).__name__})") from error
        return connection

    def _new_connection(self) -> "_Connection":
        return _Connection(self._parser, self._parser_errors)

    def _take(self) -> "_Connection | None":
        while self._idle:
            connection = self._idle.pop()
            # What has been idle for long may have been forgotten on the way, without a word to either end.
            if connection.is_ready() and time.monotonic() - connection.idle_since < _KEEP_ALIVE_SECONDS:
                return connection
            connection.close()
        return None

    def _give_back(self, connection: "_Connection") -> None:
        if not connection.is_ready():
            # Whatever it was, a cancellation too: the rest of an answer may still come on this connection.
            connection.close()
            return
        now = connection.idle_since = time.monotonic()
        self._idle.append(connection)
        while self._idle and self._idle[0].idle_since < now - _KEEP_ALIVE_SECONDS:
            self._idle.popleft().close()


class _BrokenError(Exception):
    """The connection ended, or what came is no HTTP."""


class _Connection(asyncio.Protocol):
    """One connection, with at most one request under way."""

    idle_since = 0.0

    def __init__(self, parser: Any, parser_errors: tuple[type[Exception], ...]) -> None:
        self._make_parser = parser
        self._parser_errors = parser_errors
        self._answer: asyncio.Future[Answer] | None = None
        self._is_lost = False

    def send(self, request: bytes) -> "asyncio.Future[Answer]":
        """Write a request; the future is its answer, or fails with `_BrokenError` or `TimeoutError`."""
        self._answer = answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return answer

    def is_ready(self) -> bool:
        """Whether another request can be sent."""
        return not self._is_lost and self._answer is None and self._keeps_alive

    def close(self) -> None:
        """Close at once; an answer that is still under way is not waited for."""
        self._is_lost = True
        self._transport.abort()

    def time_out(self) -> None:
        """Let the caller know that time is up."""
        self._fail(TimeoutError())

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    def _break(self, reason: str) -> None:
        self._is_lost = True
        self._fail(_BrokenError(reason))

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._parser = self._make_parser(self)
        self._keeps_alive = True
        self._begin()

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            # Nobody asked.
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except self._parser_errors as error:
            self._break(type(error).__name__)
            self._transport.abort()

    def eof_received(self) -> None:
        if self._answer is not None and not self._answer.done() and self._ends_with_connection:
            self._complete()
        # asyncio closes the connection, but only in its next round.
        self._is_lost = True

    def connection_lost(self, exc: Exception | None) -> None:
        self._break("the connection was closed" if exc is None else type(exc).__name__)

    # What the parser calls.

    def _begin(self) -> None:
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._ends_with_connection = False

    def on_message_begin(self) -> None:
        if self._answer is None:
            # A second answer came along with the first.
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._ends_with_connection = not self._headers.keys() & {"content-length", "transfer-encoding"}

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() <= _LAST_INFORMATIONAL:
            self._begin()
            return
        self._keeps_alive = self._parser.should_keep_alive()
        self._complete()

    def _complete(self) -> None:
        answer, self._answer = self._answer, None
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        headers = self._headers
        self._begin()
        if answer is not None and not answer.done():
            answer.set_result(Answer(self._parser.get_status_code(), headers, body))


def _tls() -> ssl.SSLContext:
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        raise ConfigurationError(f"the certificates cannot be read: {error}; check SSL_CERT_FILE") from error


def _request(method: str, path: str, host: str, headers: Mapping[str, str], body: bytes) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"host: {host}", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    together = "".join(lines)
    if not (together.isascii() and together.isprintable()):
        # Line breaks in a value would be headers of somebody else's. What it was is not said: the key is among them.
        raise ValueError("a path or header has a character that HTTP does not allow")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body
