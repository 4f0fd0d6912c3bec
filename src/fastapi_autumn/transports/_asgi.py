"""An Autumn inside this process."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from pydantic import SecretStr

from fastapi_autumn.errors import ConnectFailed, NoAnswer
from fastapi_autumn.transports._base import Answer, refuse_unsendable

__all__ = ["AsgiTransport"]

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

    async def request(
        self, method: str, path: str, *, body: bytes, headers: Mapping[str, str], bearer: SecretStr | None = None
    ) -> Answer:
        """See `Transport.request`."""
        refuse_unsendable(path, headers, bearer)
        messages: list[_Message] = []

        async def receive() -> _Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: _Message) -> None:
            messages.append(message)

        try:
            async with asyncio.timeout(self._timeout):
                await self._app(_scope(method, path, headers, bearer), receive, send)
        except TimeoutError:
            raise NoAnswer(path, f"no answer within {self._timeout:g} s", timed_out=True) from None
        except ConnectionRefusedError as error:
            raise ConnectFailed(path, "connection refused") from error
        except ConnectionError as error:
            raise NoAnswer(path, f"the connection broke ({type(error).__name__})") from error
        if not messages or messages[-1]["type"] != "http.response.body" or messages[-1].get("more_body", False):
            raise NoAnswer(path, "the answer is not complete")
        return Answer(
            status=messages[0]["status"],
            headers={name.decode(): value.decode() for name, value in messages[0]["headers"]},
            body=b"".join(message.get("body", b"") for message in messages[1:]),
        )

    async def aclose(self) -> None:
        """Leave the app alone: whoever made it closes it."""


def _scope(method: str, path: str, headers: Mapping[str, str], bearer: SecretStr | None) -> dict[str, Any]:
    raw_path, _, query = path.partition("?")
    raw_headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    if bearer is not None:
        raw_headers.append((b"authorization", f"Bearer {bearer.get_secret_value()}".encode()))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": raw_path,
        "raw_path": raw_path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": raw_headers,
        "client": ("127.0.0.1", 0),
        "server": ("emulator", 80),
        "state": {},
    }
