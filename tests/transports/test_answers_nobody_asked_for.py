"""What arrives before a request, or between two: it is never an answer, and the connection never used again."""

import asyncio
import select
import socket
import struct
import threading

import pytest
from pydantic_core import from_json, to_json

from fastapi_autumn import AutumnClient, AutumnSettings
from fastapi_autumn.errors import ConnectFailed, NoAnswer, UnexpectedAnswer
from fastapi_autumn.transports import _httptools
from transports.scripted_server import Connection, plain, post, read_request, serve, serve_in_a_thread

DONE = b'{"success": true}'
OTHER = plain(b'"of somebody else"')
LATE = {
    "an answer": OTHER,
    "half an answer": OTHER[:20],
    "a 408": plain(b"", "408 Request Timeout"),
    "an empty line": b"\r\n",
    "one byte": b"x",
    "the end": b"",
    "a reset": None,
}


def say(connection: socket.socket, what: bytes | None) -> None:
    """Write it; nothing is the end of the connection, and None a reset."""
    if what is None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    elif what:
        connection.sendall(what)
    else:
        connection.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("what", LATE)
async def test_what_arrives_while_the_loop_is_busy_is_no_answer(connect, what):
    """The loop has had no chance to see it when the next call begins, and the next call gets its own answer."""
    may_speak, spoken, done = threading.Event(), threading.Event(), threading.Event()

    def handler(connection: socket.socket, number: int) -> None:
        connection.sendall(plain(read_request(connection)))
        if number == 0:
            may_speak.wait(60)
            say(connection, LATE[what])
            spoken.set()
        done.wait(60) if number else None

    with serve_in_a_thread(handler) as url:
        async with connect(url, timeout=30) as transport:
            first = await post(transport, b"first")
            may_speak.set()
            assert spoken.wait(60)  # blocks the loop on purpose
            second = await post(transport, b"second")
        done.set()

    assert (first.body, second.body) == (b"first", b"second")


@pytest.mark.parametrize("what", LATE)
async def test_what_arrives_while_the_loop_is_idle_is_no_answer(connect, what):
    """As above, when the loop has seen it."""

    async def handler(connection: Connection) -> None:
        request = await connection.read_request()
        await connection.answer(request.body)
        if connection.server.connections > 1:
            return
        await may_speak.wait()
        if LATE[what] is None:
            sock = connection.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.writer.transport.abort()
        else:
            await connection.write(LATE[what])
            if not LATE[what]:
                connection.writer.write_eof()
        spoken.set()
        await connection.reader.read()

    may_speak, spoken = asyncio.Event(), asyncio.Event()
    async with serve(handler) as server, connect(server.url, timeout=30) as transport:
        first = await post(transport, b"first")
        may_speak.set()
        await spoken.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        second = await post(transport, b"second")

    assert (first.body, second.body, server.connections) == (b"first", b"second", 2)


@pytest.mark.parametrize("connect", ["httptools"], indirect=True)
@pytest.mark.parametrize("what", LATE)
async def test_server_that_speaks_first_is_not_asked(connect, monkeypatch, what):
    """A connection on which something came before the request is closed, and nothing was sent."""

    async def opened(*args: object, **options: object) -> socket.socket:
        sock = await open_socket(*args, **options)
        select.select([sock], [], [], 60)  # until the server has spoken
        return sock

    open_socket = _httptools.open_socket
    monkeypatch.setattr(_httptools, "open_socket", opened)
    requests = []

    def handler(connection: socket.socket, number: int) -> None:
        say(connection, LATE[what])
        if LATE[what] is not None:
            try:
                requests.append(connection.recv(1000))
            except ConnectionError:
                requests.append(b"")

    with serve_in_a_thread(handler) as url:
        async with connect(url) as transport:
            with pytest.raises(ConnectFailed):
                await post(transport)

    assert not any(requests)


async def test_answer_before_the_request_was_sent_is_no_answer(connect):
    """A server that answers and reads no further cannot have acted on the whole request."""

    async def handler(connection: Connection) -> None:
        await connection.reader.readuntil(b"\r\n\r\n")
        await connection.answer(b'"early"')
        await hung_up.wait()

    hung_up = asyncio.Event()
    async with serve(handler) as server, connect(server.url, timeout=1) as transport:
        with pytest.raises(NoAnswer):
            await post(transport, b" " * 50_000_000)
        hung_up.set()


@pytest.mark.parametrize("connect", ["httptools", "httpx"], indirect=True)
async def test_second_answer_to_one_request_is_not_that_of_the_next(connect):
    """Whether it comes along with the first one or later, the next call has another connection."""

    async def handler(connection: Connection) -> None:
        request = await connection.read_request()
        await connection.answer(request.body)
        if connection.server.connections == 1:
            await connection.write(OTHER)
            await connection.reader.read()

    async with serve(handler) as server, connect(server.url) as transport:
        try:
            assert (await post(transport, b"first")).body == b"first"
        except NoAnswer:
            # Both were read at once: which one belongs to the request, nobody can tell.
            assert "httptools" in type(transport).__name__.lower()
        second = await post(transport, b"second")

    assert (second.body, server.connections) == (b"second", 2)


async def test_answer_that_comes_after_the_caller_has_left_is_not_that_of_the_next(connect):
    """A call that is cancelled takes its connection along."""

    async def handler(connection: Connection) -> None:
        while True:
            request = await connection.read_request()
            if request.body == b"slow":
                arrived.set()
                await cancelled.wait()
            await connection.answer(request.body)

    arrived, cancelled = asyncio.Event(), asyncio.Event()
    async with serve(handler) as server, connect(server.url) as transport:
        call = asyncio.create_task(post(transport, b"slow"))
        await arrived.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        cancelled.set()
        second = await post(transport, b"second")

    assert (second.body, server.connections) == (b"second", 2)


async def test_a_connection_that_is_an_answer_behind_is_left():
    """Once it has brought another customer's answer, the next one would be that of this customer's last question."""

    async def handler(connection: Connection) -> None:
        last = b""
        while True:
            asked = from_json((await connection.read_request()).body)
            now = {"customer_id": asked["customer_id"], "allowed": True, "balance": None}
            now["required_balance"] = asked["required_balance"]
            await connection.answer(last or to_json(now))
            last = to_json(now)

    async with serve(handler) as server:
        settings = AutumnSettings(_env_file=None, base_url=server.url)
        async with AutumnClient(settings, secret_key="am_sk_test_abcdef") as client:
            await client.balances.check("ada", "ai_usage", required_balance=1)
            with pytest.raises(UnexpectedAnswer):
                await client.balances.check("bob", "ai_usage", required_balance=2)
            answer = await client.balances.check("bob", "ai_usage", required_balance=3)

    assert (answer.required_balance, server.connections) == (3, 2)


async def test_an_answer_that_names_nobody_is_never_that_of_another_call():
    """A finalize that is answered twice does not answer the next one; over a connection that carried a check it may."""

    async def handler(connection: Connection) -> None:
        is_behind = False
        while True:
            asked = from_json((await connection.read_request()).body)
            if is_behind or asked.get("lock_id") == "twice":
                await connection.answer(DONE)
                is_behind = True
            elif "lock_id" in asked:
                finalized.append(asked["lock_id"])
                await connection.answer(DONE)
            else:
                checked = {"customer_id": asked["customer_id"], "allowed": True, "balance": None}
                await connection.answer(to_json(checked))

    finalized: list[str] = []
    async with serve(handler) as server:
        settings = AutumnSettings(_env_file=None, base_url=server.url)
        async with AutumnClient(settings, secret_key="am_sk_test_abcdef") as client:
            await client.balances.finalize("twice", "confirm")
            await client.balances.finalize("one", "confirm")
            assert (finalized, server.connections) == (["one"], 2)
            for number in range(4):
                await client.balances.check("ada", "ai_usage")
                await client.balances.finalize(f"more-{number}", "confirm")

    assert (len(finalized), server.connections) == (5, 2)


@pytest.mark.parametrize("connect", ["httpx"], indirect=True)
@pytest.mark.parametrize("location", ["mailto:ada@example.com", "http://[::1"])
async def test_a_redirect_to_nowhere_is_an_unknown_outcome(connect, location):
    """The library reads where an answer points to even if nobody follows, and says in its own way that it cannot."""

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        await connection.answer(status="302 Found", extra=f"Location: {location}\r\n")

    async with serve(handler) as server, connect(server.url) as transport:
        with pytest.raises(NoAnswer):
            await post(transport)
