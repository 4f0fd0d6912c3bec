"""A server whose every byte a test decides, on a real socket."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

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


HEADERS = {"authorization": "Bearer am_sk_test_of_a_transport", "content-type": "application/json"}


async def post(transport: Transport, body: bytes = b"{}", path: str = "/v1/balances.check") -> Answer:
    """Send what the client would send."""
    return await transport.request("POST", path, body=body, headers=HEADERS)
