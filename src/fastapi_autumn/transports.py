"""How bytes reach Autumn: the only module that names HTTP libraries.

A transport sends one request and returns the whole answer, whatever its status. It never retries and never reads a
body's meaning. What it does tell apart is whether the request can have left: `ConnectFailed` when it cannot have,
`NoAnswer` when it may have.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, NamedTuple, Protocol

import httpx

from .errors import ConfigurationError, ConnectFailed, NoAnswer, Overloaded
from .settings import AutumnSettings

__all__ = ["Answer", "AsgiTransport", "HttpxTransport", "Transport"]


class Answer(NamedTuple):
    """What came back: the status, the headers with lower-case names, the whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport(Protocol):
    """One way to reach Autumn."""

    async def request(self, method: str, path: str, *, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send one request to `path` (such as `/v1/balances.check`) and return the whole answer.

        Raises:
            ConnectFailed: Nothing was sent.
            NoAnswer: The request may have left; no whole answer came back in time.
        """
        ...

    async def aclose(self) -> None:
        """Close what this transport opened, and nothing that it was given."""
        ...


_NOTHING_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)


class HttpxTransport:
    """Reach Autumn through httpx.

    A client that is passed in keeps its own transport, proxies, TLS settings and event hooks, and stays the caller's
    to close. `timeout` bounds a call as a whole, which httpx's own time-outs, being per read, do not.
    """

    def __init__(
        self, base_url: str, *, timeout: float, connect_timeout: float, client: httpx.AsyncClient | None = None
    ) -> None:
        self._owns_client = client is None
        self._base_url = base_url
        self._timeout = timeout
        self._client = client or httpx.AsyncClient(
            timeout=httpx.Timeout(timeout, connect=connect_timeout),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=256, keepalive_expiry=30),
        )

    async def request(self, method: str, path: str, *, body: bytes, headers: Mapping[str, str]) -> Answer:
        """See `Transport.request`."""
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._client.request(
                    method, self._base_url + path, content=body or None, headers=headers, follow_redirects=False
                )
        except TimeoutError:
            raise NoAnswer(path, f"no answer within {self._timeout:g} s", timed_out=True) from None
        except httpx.PoolTimeout:
            raise Overloaded(path, "no free connection in the httpx client that was passed in") from None
        except _NOTHING_SENT as error:
            raise ConnectFailed(path, f"cannot connect to {self._base_url} ({type(error).__name__})") from error
        except httpx.TimeoutException as error:
            raise NoAnswer(path, f"no answer in time ({type(error).__name__})", timed_out=True) from error
        except httpx.TransportError as error:
            raise NoAnswer(path, f"the connection broke ({type(error).__name__})") from error
        return Answer(response.status_code, response.headers, response.content)

    async def aclose(self) -> None:
        """Close the client, unless it was passed in."""
        if self._owns_client:
            await self._client.aclose()


_Message = MutableMapping[str, Any]
_AsgiApp = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[_Message]], Callable[[_Message], Awaitable[None]]],
    Awaitable[None],
]


class AsgiTransport:
    """Reach an Autumn that runs inside this process, such as the emulator: no socket, no port.

    A `ConnectionError` that the app raises stands for what a network would do: `ConnectionRefusedError` for nothing
    sent, any other for an answer that was lost. Other exceptions are bugs of the app and come out as they are.
    """

    def __init__(self, app: _AsgiApp, *, timeout: float) -> None:
        self._app = app
        self._timeout = timeout

    async def request(self, method: str, path: str, *, body: bytes, headers: Mapping[str, str]) -> Answer:
        """See `Transport.request`."""
        raw_path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": raw_path,
            "raw_path": raw_path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 0),
            "server": ("emulator", 80),
            "state": {},
        }
        messages: list[_Message] = []

        async def receive() -> _Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: _Message) -> None:
            messages.append(message)

        try:
            async with asyncio.timeout(self._timeout):
                await self._app(scope, receive, send)
        except TimeoutError:
            raise NoAnswer(path, f"no answer within {self._timeout:g} s", timed_out=True) from None
        except ConnectionRefusedError as error:
            raise ConnectFailed(path, "connection refused") from error
        except ConnectionError as error:
            raise NoAnswer(path, f"the connection broke ({type(error).__name__})") from error
        if not messages or messages[-1].get("more_body", False):
            raise NoAnswer(path, "the answer is not complete")
        return Answer(
            status=messages[0]["status"],
            headers={name.decode(): value.decode() for name, value in messages[0]["headers"]},
            body=b"".join(message.get("body", b"") for message in messages[1:]),
        )

    async def aclose(self) -> None:
        """Leave the app alone: whoever made it closes it."""


def transport_for(settings: AutumnSettings, *, http_client: httpx.AsyncClient | None = None) -> Transport:
    """Make the transport that `settings.transport` names.

    Raises:
        ConfigurationError: `http_client` was given for a transport other than httpx.
    """
    if settings.transport != "httpx":
        raise ConfigurationError("AUTUMN_TRANSPORT=reqwest does not take an httpx client; pass one or set the other.")
    return HttpxTransport(
        settings.base_url, timeout=settings.timeout, connect_timeout=settings.connect_timeout, client=http_client
    )
