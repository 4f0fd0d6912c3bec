"""A server whose every byte a test decides, on a real socket."""

import asyncio
import itertools
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from pydantic import SecretStr

from fastapi_autumn.transports import Answer, Transport

Handler = Callable[["Connection"], Awaitable[None]]


@dataclass
class Request:
    """What a server has read."""

    line: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Connection:
    """The server's side of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    server: "ScriptedServer"

    async def read_request(self) -> Request:
        """Read one request; IncompleteReadError when the client has left."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *lines = head.rstrip("\r\n").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        request = Request(line, headers, body)
        self.server.requests.append(request)
        return request

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: bytes = b"{}", *, status: str = "200 OK", extra: str = "") -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
        await self.write(head.encode() + body)


@dataclass
class ScriptedServer:
    """A server that runs; `connections` counts those that were opened."""

    port: int = 0
    scheme: str = "http"
    connections: int = 0
    requests: list[Request] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"


async def always(connection: Connection) -> None:
    """Answer every request of a connection."""
    while True:
        await connection.read_request()
        await connection.answer()


@asynccontextmanager
async def serve(
    handler: Handler = always, *, port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[ScriptedServer]:
    """Run a server that has `handler` for each connection; leaving closes its connections, as a restart does."""
    server = ScriptedServer(scheme="https" if tls else "http")
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        server.connections += 1
        try:
            await handler(Connection(reader, writer, server))
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()
            tasks.discard(task)

    listener = await asyncio.start_server(connected, "127.0.0.1", port, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def serve_in_a_thread(handler: Callable[[socket.socket, int], None]) -> Iterator[str]:
    """Run `handler(connection, number)` for one connection after the other, where a busy event loop is in nobody's way.

    Yields the URL. An error of the handler ends the server and comes out at the end.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as thread:

        def run() -> None:
            for number in itertools.count():
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(60)
                    handler(connection, number)

        running = thread.submit(run)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            error = running.exception()
    # The listener that is shut down is what ends the loop.
    assert isinstance(error, OSError), error


def read_request(connection: socket.socket) -> bytes:
    """Read one request from a blocking socket and return its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
    while len(body) < length:
        body += _some(connection)
    return body


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("the client has left")
    return data


def plain(body: bytes, status: str = "200 OK") -> bytes:
    """The bytes of an answer."""
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


HEADERS = {"content-type": "application/json"}
KEY = SecretStr("am_sk_live_of_a_transport")


async def post(transport: Transport, body: bytes = b"{}", path: str = "/v1/balances.check") -> Answer:
    """Send what the client would send."""
    return await transport.request("POST", path, body=body, headers=HEADERS, bearer=KEY)
