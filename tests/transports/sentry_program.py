"""A service with Sentry's default options and a live key, whose every way of failing is captured; prints what is sent.

A program of its own, because Sentry patches the libraries of the process it is in. Usage: sentry_program.py TRANSPORT
"""

import asyncio
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import sentry_sdk
from fastapi import FastAPI
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport as SentryTransport

from fastapi_autumn import Autumn, AutumnClient, AutumnMiddleware, AutumnSettings, ModelCharge


class Printed(SentryTransport):
    """Prints each event in one line instead of sending it."""

    def capture_envelope(self, envelope: Envelope) -> None:
        for item in envelope.items:
            sys.stdout.write(item.get_bytes().decode().replace("\n", " ") + "\n")


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.close()


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def read_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.pause_reading()
    await asyncio.sleep(60)


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(10)
    writer.transport.abort()


async def talk_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"220 mail.example.com ESMTP\r\n\r\n")
    await reader.read()
    writer.close()


async def fail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    # What stands there echoes what it was sent.
    body = b'{"code": "internal_error", "message": "%s"}' % head.replace(b"\r\n", b" ")
    writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await reader.read()
    writer.close()


@asynccontextmanager
async def serving(handler: Any) -> AsyncIterator[str]:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (asyncio.CancelledError, asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1")
    yield f"http://localhost:{server.sockets[0].getsockname()[1]}"
    server.close()


def settings(url: str, transport: str, **changes: Any) -> AutumnSettings:
    # Not model_copy or a keyword of a frame: this program must not be what shows the key.
    values = {"base_url": url, "timeout": 0.5, "max_retries": 0} | changes
    return AutumnSettings(_env_file=None, transport="httpx" if transport == "httpx_client" else transport, **values)


@asynccontextmanager
async def client_of(made: AutumnSettings, transport: str) -> AsyncIterator[AutumnClient]:
    http_client = httpx.AsyncClient() if transport == "httpx_client" else None
    client = AutumnClient(made, http_client=http_client)
    try:
        yield client
    finally:
        await client.aclose()
        if http_client is not None:
            await http_client.aclose()


async def capture(name: str, call: Any) -> None:
    try:
        await call
    except Exception as error:  # noqa: BLE001 - whatever it is
        error.add_note(f"case: {name}")
        sentry_sdk.capture_exception(error)
    else:
        sys.exit(f"{name} did not fail")


async def within(seconds: float, call: Any) -> None:
    async with asyncio.timeout(seconds):
        await call


async def failures(transport: str) -> None:
    for handler in (hang_up, say_nothing, reset, talk_nonsense, fail, read_nothing):
        async with serving(handler) as url, client_of(settings(url, transport), transport) as client:
            large = {"customer_id": "ada", "properties": "x" * 10_000_000}
            await capture(f"{handler.__name__}, small", client.call("balances.track", {"customer_id": "ada"}))
            await capture(f"{handler.__name__}, large", client.call("balances.track", large))
            await capture(f"{handler.__name__}, cancelled", within(0.1, client.call("balances.track", large)))
            await capture(f"{handler.__name__}, a bad key", client.call("x", {}, idempotency_key="a\r\nb"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://localhost:{taken.getsockname()[1]}"
        async with client_of(settings(url, transport), transport) as client:
            await capture("refused", client.call("balances.track", {}))
    await capture("closed", client.call("balances.track", {}))


async def service(transport: str, folder: Path) -> None:
    """The gate's 503 and a handler's bug, as Sentry's integration for FastAPI sees them."""
    async with serving(hang_up) as url:
        outbox = f"sqlite+aiosqlite:///{folder}/outbox.db"
        made = settings(url, transport, outbox_url=outbox, shutdown_timeout=0.1, on_unavailable="allow")
        http_client = httpx.AsyncClient() if transport == "httpx_client" else None
        for on_unavailable in ("deny", "allow"):
            chosen = made.model_copy(update={"on_unavailable": on_unavailable})
            autumn = Autumn(chosen, prices={"large": 5}, http_client=http_client)
            app = FastAPI(lifespan=autumn.lifespan)
            app.add_middleware(AutumnMiddleware, autumn=autumn, identify=lambda connection: "ada")

            @app.post("/ai/chat")
            async def chat(charge: ModelCharge) -> None:
                raise ValueError("case: a bug in the handler")

            in_process = httpx.ASGITransport(app=app, raise_app_exceptions=False)
            async with autumn.lifespan(app), httpx.AsyncClient(transport=in_process, base_url="http://x") as caller:
                response = await caller.post("/ai/chat", json={"model": "large"})
                sys.stderr.write(f"{on_unavailable}: {response.status_code}\n")
                await capture("the client of a service", autumn.client.customers.get_or_create("ada"))
        if http_client is not None:
            await http_client.aclose()


def control() -> None:
    """Show that a key in a local variable would be seen."""
    held = "am_sk_live_inALocalVariable"
    try:
        int("case: control")
    except ValueError as error:
        sentry_sdk.capture_exception(error)
    del held


async def main(transport: str) -> None:
    # The options are Sentry's own, but for where it sends.
    sentry_sdk.init(dsn="http://public@localhost/1", transport=Printed)
    control()
    await failures(transport)
    with tempfile.TemporaryDirectory() as folder:
        await service(transport, Path(folder))
    sentry_sdk.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
