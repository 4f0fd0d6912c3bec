"""What every transport does alike, over real sockets."""

import asyncio
import contextlib
import gc
import socket
import struct
import threading
import traceback
from contextlib import AsyncExitStack

import pytest
from pydantic import SecretStr

from fastapi_autumn.errors import ConnectFailed, NoAnswer, Unavailable, UnsendableRequest
from transports.scripted_server import HEADERS, KEY, Connection, post, read_request, serve, serve_in_a_thread


async def test_request_and_answer_arrive_whole(connect):
    """The server reads exactly what was sent, and the caller gets status, lower-case headers and body."""

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        await connection.answer(b'{"ok": true}', status="429 Too Many Requests", extra="Retry-After: 3\r\n")

    async with serve(handler) as server, connect(server.url) as transport:
        answer = await post(transport, b'{"customer_id":"c"}')

    assert (answer.status, answer.body, answer.headers.get("retry-after")) == (429, b'{"ok": true}', "3")
    (request,) = server.requests
    assert request.line == "POST /v1/balances.check HTTP/1.1"
    assert request.body == b'{"customer_id":"c"}'
    assert HEADERS.items() <= request.headers.items()
    assert request.headers["authorization"] == f"Bearer {KEY.get_secret_value()}"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["host"] == f"127.0.0.1:{server.port}"


async def test_redirect_is_an_answer(connect):
    """The key is not carried to wherever a redirect points."""

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        await connection.answer(status="307 Temporary Redirect", extra="Location: http://127.0.0.1:1/\r\n")

    async with serve(handler) as server, connect(server.url) as transport:
        answer = await post(transport)

    assert answer.status == 307


async def test_connection_is_used_again(connect, reuses_connections):
    """Calls one after the other share one connection, but for the httpx client that cannot see what is left in one."""
    async with serve() as server, connect(server.url) as transport:
        for _ in range(5):
            await post(transport)

    assert (len(server.requests), server.connections) == (5, 1 if reuses_connections else 5)


async def test_calls_at_once_do_not_wait_for_each_other(connect):
    """Ten calls to a server that answers none before it has all come back, each with its own answer."""
    arrived = asyncio.Barrier(10)

    async def handler(connection: Connection) -> None:
        while True:
            request = await connection.read_request()
            await arrived.wait()
            await connection.answer(request.body)

    async with serve(handler) as server, connect(server.url) as transport:
        answers = await asyncio.gather(*(post(transport, b"%d" % n) for n in range(10)))

    assert [answer.body for answer in answers] == [b"%d" % n for n in range(10)]


async def test_restart_of_the_server_is_not_noticed(connect, reuses_connections):
    """Connections that the old server closed while they were idle are not used, so no call fails."""
    async with AsyncExitStack() as stack:
        async with serve() as old:
            transport = await stack.enter_async_context(connect(old.url))
            await asyncio.gather(*(post(transport) for _ in range(3)))
        async with serve(port=old.port) as new:
            for _ in range(5):
                assert (await post(transport)).status == 200

    assert (len(new.requests), new.connections) == (5, 1 if reuses_connections else 5)


async def test_server_that_closes_after_each_answer_is_called_anew(connect):
    """`Connection: close` is honoured."""

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        await connection.answer(extra="Connection: close\r\n")

    async with serve(handler) as server, connect(server.url) as transport:
        for _ in range(3):
            assert (await post(transport)).status == 200

    assert server.connections == 3


async def test_huge_bodies_pass(connect):
    """Eight megabytes there and back are the same bytes."""
    body = bytes(range(256)) * 4096 * 8

    async def handler(connection: Connection) -> None:
        request = await connection.read_request()
        await connection.answer(request.body)

    async with serve(handler) as server, connect(server.url, timeout=30) as transport:
        answer = await post(transport, body)

    assert answer.body == body


async def test_chunked_answer_is_put_together(connect):
    """An answer without a length, in chunks and after a 100 Continue, is one body."""

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in (b'4\r\n{"a"\r\n', b"3\r\n:1}\r\n", b"0\r\n\r\n"):
            await connection.write(part)
            await asyncio.sleep(0.01)

    async with serve(handler) as server, connect(server.url) as transport:
        answer = await post(transport)

    assert answer.body == b'{"a":1}'


async def test_refused_connection_means_nothing_was_sent(connect):
    """Nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with connect(url) as transport:
            with pytest.raises(ConnectFailed):
                await post(transport)


async def test_unknown_host_means_nothing_was_sent(connect):
    """The name does not resolve."""
    async with connect("http://no-such-host.invalid") as transport:
        with pytest.raises(ConnectFailed):
            await post(transport)


async def test_connection_that_is_not_accepted_in_time_means_nothing_was_sent(connect):
    """The backlog of a listener that accepts nobody is full, so the connect time-out runs out first."""
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        transport = await stack.enter_async_context(connect(url, timeout=5, connect_timeout=0.2))

        with pytest.raises(ConnectFailed):
            await post(transport)


async def who_gives_up(handler, connect) -> NoAnswer:
    """The error of a call with a short time, raised while one with a long time still waits for the same server."""
    async with (
        serve(handler) as server,
        connect(server.url, timeout=0.2) as hasty,
        connect(server.url, timeout=120) as patient,
    ):
        waiting = asyncio.create_task(post(patient))
        with pytest.raises(NoAnswer) as caught:
            await post(hasty)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait([waiting])
    return caught.value


async def test_no_answer_within_the_time(connect):
    """The server reads the request and says nothing: a time-out, and the request may have been acted on."""

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        await asyncio.Event().wait()

    assert (await who_gives_up(handler, connect)).timed_out


async def test_slow_bytes_do_not_stretch_the_time(connect):
    """A byte every 50 ms keeps per-read time-outs quiet for ever; the total is what counts."""

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            await connection.write(b" ")
            await asyncio.sleep(0.05)

    assert (await who_gives_up(handler, connect)).timed_out


async def test_call_after_a_time_out_gets_its_own_answer(connect):
    """The late answer to a call that was given up never becomes the answer to the next one."""

    async def handler(connection: Connection) -> None:
        while True:
            request = await connection.read_request()
            await asyncio.sleep(0.5 if request.body == b"slow" else 0)
            await connection.answer(request.body)

    async with serve(handler) as server, connect(server.url, timeout=0.2) as transport:
        with pytest.raises(NoAnswer):
            await post(transport, b"slow")
        await asyncio.sleep(0.5)
        answer = await post(transport, b"quick")

    assert answer.body == b"quick"


async def test_cancelled_call_leaves_no_answer_behind(connect):
    """As after a time-out, when it is the caller who gives up."""

    async def handler(connection: Connection) -> None:
        while True:
            request = await connection.read_request()
            await asyncio.sleep(0.1 if request.body == b"slow" else 0)
            await connection.answer(request.body)

    async with serve(handler) as server, connect(server.url) as transport:
        await post(transport, b"first")
        call = asyncio.create_task(post(transport, b"slow"))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.sleep(0.1)

        assert (await post(transport, b"quick")).body == b"quick"


@pytest.mark.parametrize(
    "bytes_sent",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Le", b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{"a":'],
    ids=["nothing", "half the head", "half the body"],
)
async def test_answer_that_breaks_off_is_no_answer(connect, bytes_sent):
    """The request was read and the connection closed before the answer was whole: it may have been acted on."""

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(bytes_sent)

    async with serve(handler) as server, connect(server.url) as transport:
        with pytest.raises(NoAnswer) as caught:
            await post(transport)

    assert not caught.value.timed_out
    assert len(server.requests) == 1


async def test_connection_dropped_before_the_request_was_read_is_no_answer(connect):
    """What the server's kernel took in may have been read, so a reset is no promise that nothing was."""

    async def handler(connection: Connection) -> None:
        await connection.reader.readexactly(10)
        connection.writer.transport.abort()

    async with serve(handler) as server, connect(server.url) as transport:
        with pytest.raises(NoAnswer):
            await post(transport, b"x" * 1_000_000)


async def test_connection_that_breaks_on_its_second_use_is_no_answer(connect):
    """A kept connection that dies after it has carried the request gives no licence to send it again."""

    async def handler(connection: Connection) -> None:
        while True:
            await connection.read_request()
            if len(connection.server.requests) > 1:
                return
            await connection.answer()

    async with serve(handler) as server, connect(server.url) as transport:
        await post(transport)
        with pytest.raises(NoAnswer):
            await post(transport)

    assert len(server.requests) == 2


async def test_answer_that_is_not_http_is_no_answer(connect):
    """Something else listens on that port."""

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(b"220 mail.example.com ESMTP\r\n")

    async with serve(handler) as server, connect(server.url) as transport:
        with pytest.raises(NoAnswer):
            await post(transport)


async def test_secret_is_in_no_error_and_no_repr(connect):
    """Neither a refused call nor a broken one shows the key, with everything that a traceback prints."""

    async def handler(connection: Connection) -> None:
        await connection.read_request()

    seen = []
    async with serve(handler) as server, connect(server.url) as transport:
        seen.append(repr(transport) + repr(vars(transport)))
        with pytest.raises(Unavailable) as broken:
            await post(transport)
    async with connect(server.url) as transport:
        with pytest.raises(Unavailable) as refused:
            await post(transport)
    for error in (broken.value, refused.value):
        seen += [repr(error), "".join(traceback.format_exception(error))]

    assert "am_sk" not in "".join(seen)


async def test_connections_are_closed_with_the_transport(connect):
    """The server sees the end of every connection, and nothing is left for the garbage collector to complain about."""
    ended = asyncio.Semaphore(0)

    async def handler(connection: Connection) -> None:
        # In a loop, because a connection that is free again may carry the next request.
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                await connection.read_request()
                await connection.answer()
        ended.release()

    async with serve(handler) as server:
        async with connect(server.url) as transport:
            await asyncio.gather(*(post(transport) for _ in range(3)))
        gc.collect()
        async with asyncio.timeout(5):
            for _ in range(server.connections):
                await ended.acquire()


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
    has_read = threading.Event()

    def handler(connection: socket.socket, number: int) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"{")
        has_read.wait(60)
        # Without lingering, closing is a reset and not an end.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with serve_in_a_thread(handler) as url:
        async with connect(url) as transport:
            call = asyncio.create_task(post(transport))
            await asyncio.sleep(0.05)
            has_read.set()
            with pytest.raises(NoAnswer):
                await call


async def test_header_that_comes_twice_is_joined_and_trailers_are_passed_over(connect):
    """What an answer says of itself is in its head; a trailer cannot change it."""

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\nX-A: 2\r\nRetry-After: 3\r\n\r\n"
            b"2\r\n{}\r\n0\r\nRetry-After: 999\r\nX-A: 3\r\n\r\n"
        )

    async with serve(handler) as server, connect(server.url) as transport:
        answer = await post(transport)

    assert (answer.headers["x-a"], answer.headers["retry-after"]) == ("1, 2", "3")


@pytest.mark.parametrize("value", ["a\r\nx-api-version: 1", "a\nb", "caf\xe9", "a\x00b", "a\ud800", " a", "a\t"])
@pytest.mark.parametrize("where", ["idempotency-key", "path"])
async def test_what_http_cannot_carry_is_refused_before_anything_is_sent(connect, where, value):
    """A clear local error, and the key is not in it."""
    async with serve() as server, connect(server.url) as transport:
        path = f"/v1/{value}" if where == "path" else "/v1/x"
        headers = HEADERS if where == "path" else {**HEADERS, where: value}
        if where == "path" and value == " a":
            path = "/v1/ a"
        with pytest.raises(UnsendableRequest, match="Nothing was sent") as caught:
            await transport.request("POST", path, body=b"", headers=headers, bearer=KEY)

    assert server.connections == 0
    assert "am_sk_" not in "".join(traceback.format_exception(caught.value))


async def test_key_that_http_cannot_carry_is_refused_without_being_shown(connect):
    """A key with a line break, as a file that was read carelessly has, is not sent and not shown."""
    key = SecretStr(KEY.get_secret_value() + "\n")
    async with serve() as server, connect(server.url) as transport:
        with pytest.raises(UnsendableRequest, match="the secret key") as caught:
            await transport.request("POST", "/v1/x", body=b"", headers=HEADERS, bearer=key)

    assert server.connections == 0
    assert KEY.get_secret_value() not in "".join(traceback.format_exception(caught.value))


async def test_closed_transport_sends_nothing(connect):
    """A call that comes too late is told so at once."""
    async with serve() as server, connect(server.url) as transport:
        await post(transport)
        await transport.aclose()
        with pytest.raises(ConnectFailed, match="closed"):
            await post(transport)

    assert len(server.requests) == 1


async def test_closing_ends_the_calls_under_way(connect, request):
    """Their connections are closed with the others; an httpx client that was passed in is its owner's to close."""
    if request.node.callspec.params["connect"] == "httpx_client":
        return
    arrived, ended = asyncio.Event(), asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        arrived.set()
        await connection.reader.read()
        ended.set()

    async with serve(handler) as server, connect(server.url, timeout=60) as transport:
        call = asyncio.create_task(post(transport))
        await arrived.wait()
        await transport.aclose()
        with pytest.raises(NoAnswer) as caught:
            await call
        async with asyncio.timeout(30):
            await ended.wait()

    assert not caught.value.timed_out


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..b"])
async def test_name_that_can_be_no_host_means_nothing_was_sent(connect, host):
    """However the library under it complains."""
    async with connect(f"http://{host}") as transport:
        with pytest.raises(ConnectFailed):
            await post(transport)


async def test_answer_that_echoes_the_key_has_stars_in_its_place(connect):
    """What stands at the address may repeat what it was sent; nobody above the transport sees the key in it."""

    async def handler(connection: Connection) -> None:
        request = await connection.read_request()
        sent = request.headers["authorization"]
        await connection.answer(sent.encode(), extra=f"X-Sent: {sent}\r\n")

    async with serve(handler) as server, connect(server.url) as transport:
        answer = await post(transport)

    assert (answer.body, answer.headers["x-sent"]) == (b"Bearer ***", "Bearer ***")
