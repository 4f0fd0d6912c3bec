"""When a connection of the default transport is kept, when it is closed, and what it may carry."""

import asyncio
import select
import socket

import pytest

from fastapi_autumn.transports import HttptoolsTransport, _httptools
from transports.scripted_server import Connection, post, serve


async def test_connections_that_nobody_uses_are_closed():
    """Two calls at once need two; later ones need one, and the other is closed when it has been idle for long."""
    both = asyncio.Event()

    async def handler(connection: Connection) -> None:
        if connection.server.connections == 2:
            both.set()
        while True:
            request = await connection.read_request()
            await both.wait()
            await connection.answer(request.body)

    async with serve(handler) as server:
        transport = HttptoolsTransport(server.url, timeout=60, connect_timeout=60)
        await asyncio.gather(post(transport), post(transport))
        pool = transport._pools[asyncio.get_running_loop()]
        forgotten = pool._idle[0]
        forgotten.idle_since -= 2 * _httptools._KEEP_ALIVE_SECONDS
        await post(transport)
        await forgotten.lost.wait()

        assert (len(pool._open), server.connections) == (1, 2)
        await transport.aclose()


async def test_call_that_ends_while_its_connection_settles_leaves_none(monkeypatch):
    """The connection is there, nothing was sent, and the caller leaves: it is closed."""

    def cancelling(connection):
        made.append(connection)
        call.cancel()
        return False

    made = []
    monkeypatch.setattr(_httptools._Connection, "is_free", cancelling)
    async with serve() as server:
        transport = HttptoolsTransport(server.url, timeout=60, connect_timeout=60)
        call = asyncio.create_task(post(transport))
        with pytest.raises(asyncio.CancelledError):
            await call
        await made[0].lost.wait()
        assert not transport._pools[asyncio.get_running_loop()]._open
        await transport.aclose()


async def test_starting_afresh_before_the_first_call_changes_nothing():
    """There is no connection yet that could be an answer behind."""
    async with serve() as server:
        transport = HttptoolsTransport(server.url, timeout=60, connect_timeout=60)
        transport.start_afresh()
        assert (await post(transport)).status == 200
        await transport.aclose()


def test_unread_bytes_are_seen_without_poll(monkeypatch):
    """Where the system has no `poll`, `select` tells as well that something came which nobody asked for."""
    monkeypatch.delattr(select, "poll")
    here, there = socket.socketpair()
    with here, there:
        has_unread = _httptools._unread(here.fileno())
        assert not has_unread()
        there.send(b"x")
        assert has_unread()


async def test_call_without_a_key_sends_none(connect):
    """Autumn's sign-in has no key yet, and a header that looks like a separator is sent as it is."""
    heads = []

    async def handler(connection: Connection) -> None:
        heads.append(await connection.reader.readuntil(b"\r\n\r\n"))
        await connection.answer(b"{}")

    async with serve(handler) as server, connect(server.url) as transport:
        await transport.request("GET", "/v1/x", body=b"", headers={"x-said": "one | two"})

    (head,) = heads
    assert b"x-said: one | two" in head
    assert b"authorization" not in head.lower()
