"""One transport, several event loops: what a script does that calls `asyncio.run` twice."""

import asyncio
import gc
import socket
import threading
from collections.abc import Callable

import httpx
import pytest
import uvloop

from fastapi_autumn.transports import HttptoolsTransport, HttpxTransport, Transport
from transports.scripted_server import plain, post, read_request

Loop = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture
def url():
    """A server in threads of its own, one for each connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk(connection: socket.socket) -> None:
            with connection:
                try:
                    while True:
                        connection.sendall(plain(read_request(connection) or b"{}"))
                except ConnectionError:
                    return

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(60)


@pytest.fixture(params=[HttptoolsTransport, HttpxTransport])
def transport(request: pytest.FixtureRequest, url: str) -> Transport:
    return request.param(url, timeout=30, connect_timeout=30)


def run(loop: Loop, call: object) -> object:
    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(call)


LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


# What a run does not close, its loop or the garbage collector does, and says so.
UNCLOSED = pytest.mark.filterwarnings("ignore::ResourceWarning")


@UNCLOSED
@LOOPS
def test_transport_outlives_the_loop_that_used_it_first(transport, loop):
    """The second `asyncio.run` gets answers too."""

    async def calls() -> list[bytes]:
        return [answer.body for answer in await asyncio.gather(*(post(transport, b"%d" % n) for n in range(3)))]

    for _ in range(3):
        assert run(loop, calls()) == [b"0", b"1", b"2"]
    run(loop, transport.aclose())
    gc.collect()


@LOOPS
def test_two_loops_at_once_have_connections_of_their_own(url, loop):
    """Two threads with a loop each share the transport, and closing it in one of them ends the other's connections."""
    transport = HttptoolsTransport(url, timeout=30, connect_timeout=30)
    used, closed = threading.Event(), threading.Event()
    left: list[int] = []

    async def elsewhere() -> None:
        assert (await post(transport, b"elsewhere")).body == b"elsewhere"
        pool = transport._pools[asyncio.get_running_loop()]
        used.set()
        await asyncio.to_thread(closed.wait, 60)
        for _ in range(5):
            await asyncio.sleep(0)
        left.append(len(pool._open))

    async def here() -> None:
        assert (await post(transport, b"here")).body == b"here"
        await transport.aclose()

    thread = threading.Thread(target=run, args=(loop, elsewhere()))
    thread.start()
    assert used.wait(60)
    run(loop, here())
    closed.set()
    thread.join(60)

    assert left == [0]


@UNCLOSED
def test_client_is_usable_over_two_runs(url):
    """As above through `AutumnClient`, which is what a script has."""
    from fastapi_autumn import AutumnClient, AutumnSettings

    settings = AutumnSettings(_env_file=None, base_url=url)
    client = AutumnClient(settings, secret_key="am_sk_test_abcdef")

    for _ in range(2):
        answer = asyncio.run(client.get("organization/me"))
        assert answer.status == httpx.codes.OK
    asyncio.run(client.aclose())
    gc.collect()
