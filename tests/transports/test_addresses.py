"""A host with several addresses: the first that connects is used, and none is waited for that another could replace."""

import asyncio
import socket
from contextlib import ExitStack, contextmanager

import pytest

from fastapi_autumn.errors import ConnectFailed
from fastapi_autumn.transports import HttptoolsTransport
from fastapi_autumn.transports._connecting import open_socket
from transports.scripted_server import post, serve


def address(host: str, port: int) -> tuple:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))


@pytest.fixture
def resolve(monkeypatch):
    """Say which addresses a name has."""

    def to(*addresses: tuple[str, int]) -> None:
        loop = asyncio.get_running_loop()
        original = loop.getaddrinfo

        async def getaddrinfo(host, port, **options):
            # uvloop asks for numeric addresses as well.
            if host not in {"autumn.example", b"autumn.example"}:
                return await original(host, port, **options)
            return [address(*one) for one in addresses]

        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)

    return to


@contextmanager
def deaf(port=0):
    """An address that accepts nobody: its backlog is full, so whoever connects waits."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.2", port))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()


@contextmanager
def nobody(port=0):
    """An address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.2", port))
        yield taken.getsockname()


@pytest.mark.parametrize("first", [deaf, nobody])
async def test_address_that_does_not_answer_does_not_fail_the_call(connect, resolve, first):
    """The time-out for connecting is a minute; the other address has answered long before."""
    async with serve() as server:
        with first(server.port) as dead:
            resolve(dead, ("127.0.0.1", server.port))
            async with connect(f"http://autumn.example:{server.port}", timeout=60, connect_timeout=60) as transport:
                assert (await post(transport)).status == 200


async def test_slow_address_is_not_waited_for(resolve):
    """Connecting takes the pause between two attempts and not the time-out, which is ten times the whole of it."""
    async with serve() as server:
        with deaf() as dead:
            resolve(dead, dead, dead, ("127.0.0.1", server.port))
            async with asyncio.timeout(60):
                (await open_socket("autumn.example", 80, delay=0.01)).close()


async def test_no_address_answers(resolve):
    """All refuse: nothing was sent, and it is told at once."""
    with nobody() as one, nobody() as another:
        resolve(one, another)
        transport = HttptoolsTransport("http://autumn.example", timeout=60, connect_timeout=60)
        with pytest.raises(ConnectFailed, match="ConnectionRefusedError"):
            await post(transport)
        await transport.aclose()


async def test_families_take_turns(monkeypatch):
    """As RFC 8305 says: the first family that the resolver gives begins, the other one comes next."""
    tried = []

    async def getaddrinfo(host, port, **_):
        return [address(host, 1) for host in ("::1", "::2", "::3", "127.0.0.1", "127.0.0.2")]

    async def sock_connect(sock, to):
        tried.append(to[0])
        raise ConnectionRefusedError

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(loop, "sock_connect", sock_connect)
    with pytest.raises(ConnectionRefusedError):
        await open_socket("autumn.example", 80)

    assert tried == ["::1", "127.0.0.1", "::2", "127.0.0.2", "::3"]


async def test_attempts_end_with_the_call(resolve, monkeypatch):
    """Whoever gives up leaves no socket open; the garbage collector would complain of one."""
    with deaf() as dead:
        resolve(dead, dead)
        call = asyncio.create_task(open_socket("autumn.example", 80, delay=0.01))
        while len(asyncio.all_tasks()) < 4:
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.sleep(0)


async def test_slower_connection_is_closed(monkeypatch, resolve):
    """Two attempts connect; one is used, and the server sees the end of the other."""
    may_connect = asyncio.Event()
    async with serve() as server:
        resolve(*[("127.0.0.1", server.port)] * 2)
        loop = asyncio.get_running_loop()
        sock_connect = loop.sock_connect
        sockets = []

        async def slowly(sock, to):
            sockets.append(sock)
            await sock_connect(sock, to)
            if len(sockets) == 2:
                may_connect.set()
            await may_connect.wait()

        monkeypatch.setattr(loop, "sock_connect", slowly)
        used = await open_socket("autumn.example", 80, delay=0.01)
        for _ in range(3):
            await asyncio.sleep(0)
        with used:
            assert sorted(sock.fileno() < 0 for sock in sockets) == [False, True]


async def test_last_attempt_is_waited_for(monkeypatch, resolve):
    """All attempts are under way and there is no other address to try: the one that connects late is used."""
    async with serve() as server:
        resolve(*[("127.0.0.1", server.port)] * 2)
        loop = asyncio.get_running_loop()
        sock_connect = loop.sock_connect
        begun = []

        async def slowly(sock, to):
            begun.append(sock)
            while len(begun) < 2:
                await asyncio.sleep(0)
            for _ in range(5):  # until nothing is left to begin
                await asyncio.sleep(0)
            await sock_connect(sock, to)

        monkeypatch.setattr(loop, "sock_connect", slowly)
        (await open_socket("autumn.example", 80, delay=0)).close()


async def test_connection_is_closed_when_the_call_ends_as_it_is_made(monkeypatch, resolve):
    """An attempt connects in the moment in which its call is cancelled; its socket does not stay open."""
    async with serve() as server:
        resolve(*[("127.0.0.1", server.port)] * 2)
        loop = asyncio.get_running_loop()
        sock_connect = loop.sock_connect
        sockets = []

        async def cancelling(sock, to):
            sockets.append(sock)
            await sock_connect(sock, to)
            call.cancel()

        monkeypatch.setattr(loop, "sock_connect", cancelling)
        call = asyncio.create_task(open_socket("autumn.example", 80, delay=60))
        with pytest.raises(asyncio.CancelledError):
            await call

    assert [sock.fileno() for sock in sockets] == [-1]
