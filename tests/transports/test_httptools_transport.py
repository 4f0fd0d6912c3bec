"""What only the transport in the event loop has to get right by itself: the framing of answers, and what it writes."""

import asyncio
import socket
import struct
import traceback

import pytest

from fastapi_autumn.errors import NoAnswer
from transports.scripted_server import HEADERS, Connection, post, serve

pytestmark = pytest.mark.parametrize("connect", ["httptools"], indirect=True)


async def test_answer_without_a_length_ends_with_its_connection(connect):
    """An old proxy that frames a body by hanging up is understood, and its connection not used again."""

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"{}")

    async with serve(handler) as server, connect(server.url) as transport:
        bodies = [(await post(transport)).body, (await post(transport)).body]

    assert (bodies, server.connections) == ([b"{}", b"{}"], 2)


async def test_answer_without_a_length_that_is_reset_is_no_answer(connect):
    """Only a proper end makes such a body whole."""

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"{")
        await asyncio.sleep(0.05)
        # Without lingering, closing is a reset and not an end.
        sock = connection.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.writer.transport.abort()

    async with serve(handler) as server, connect(server.url) as transport:
        with pytest.raises(NoAnswer):
            await post(transport)


async def test_another_protocol_is_no_answer(connect):
    """A server that switches protocols leaves HTTP, which nobody asked for."""

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
        await connection.reader.read()

    async with serve(handler) as server, connect(server.url) as transport:
        with pytest.raises(NoAnswer):
            await post(transport)


async def test_bytes_that_nobody_asked_for_are_never_an_answer(connect):
    """A second answer to one request, sent along with the first or later, is not taken for that of the next."""

    async def handler(connection: Connection) -> None:
        for number in range(2):
            request = await connection.read_request()
            await connection.answer(request.body)
            if connection.server.connections == 1 and number == 0:
                await connection.answer(b"nobody's")

    async with serve(handler) as server, connect(server.url) as transport:
        first = await post(transport, b"first")
        await asyncio.sleep(0.05)
        second = await post(transport, b"second")

    assert (first.body, second.body, server.connections) == (b"first", b"second", 2)


@pytest.mark.parametrize("value", ["a\r\nx-api-version: 1", "a\nb", "caf\xe9", "a\x00b"])
async def test_header_cannot_smuggle_another_one(connect, value):
    """A line break or a character outside of ASCII is refused before anything is sent, without showing the key."""
    async with serve() as server, connect(server.url) as transport:
        with pytest.raises(ValueError, match="does not allow") as caught:
            await transport.request("POST", "/v1/x", body=b"", headers={**HEADERS, "idempotency-key": value})

    assert server.connections == 0
    assert "am_sk_" not in "".join(traceback.format_exception(caught.value))
