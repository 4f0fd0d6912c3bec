"""The default way: connections that live in the event loop itself, with httptools to read the answers."""

import asyncio
import select
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import SecretStr

from fastapi_autumn.errors import ConnectFailed, NoAnswer
from fastapi_autumn.transports._base import Answer, refuse_unsendable, without_key
from fastapi_autumn.transports._connecting import open_socket
from fastapi_autumn.transports._environment import origin, port_of, proxy_for, ssl_context
from fastapi_autumn.transports._httpx import HttpxTransport
from fastapi_autumn.transports._reader import AnswerReader, MalformedAnswer

__all__ = ["HttptoolsTransport"]

_KEEP_ALIVE_SECONDS = 30.0
_MOST_IDLE = 256
_ROUNDS_TO_SETTLE = 3


class HttptoolsTransport:
    """Reach Autumn over plain asyncio protocols and httptools, the parser of uvicorn.

    A call costs one write and one read in the thread of the event loop, and nothing else. Certificates come from
    SSL_CERT_FILE and SSL_CERT_DIR. Where the environment names a proxy, `HttpxTransport` carries the calls.

    Connections belong to the event loop that opened them; each loop that comes along has its own.

    `timeout` bounds a call as a whole and `connect_timeout` the making of a connection, both in seconds.

    Raises:
        ConfigurationError: SSL_CERT_FILE, the proxy or `base_url` cannot be used.
    """

    def __init__(self, base_url: str, *, timeout: float, connect_timeout: float) -> None:
        url = origin(base_url)
        self._base_url = base_url
        self._host, self._port = url.raw_host.decode("ascii"), port_of(url)
        self._netloc = url.netloc.decode("ascii")
        self._tls = ssl_context() if url.scheme == "https" else None
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._pools: dict[asyncio.AbstractEventLoop, _Pool] = {}
        self._is_closed = False
        self._through_proxy = (
            None
            if proxy_for(url) is None
            else HttpxTransport(base_url, timeout=timeout, connect_timeout=connect_timeout)
        )

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes,
        headers: Mapping[str, str],
        bearer: SecretStr | None = None,
        in_step: bool = False,
    ) -> Answer:
        """See `ReusingTransport.request`."""
        if self._through_proxy is not None:
            return await self._through_proxy.request(method, path, body=body, headers=headers, bearer=bearer)
        refuse_unsendable(path, headers, bearer)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        pool = self._pool_of(loop)
        connection = pool.take(loop.time(), in_step=in_step)
        if connection is None:
            connection = await self._connect(path, pool)
        connection.is_in_step = not in_step
        answer = loop.create_future()
        connection.send(_head(f"{method} {path}", self._netloc, len(body), headers, bearer) + body, answer, deadline)
        try:
            return without_key(await answer, bearer)
        except TimeoutError:
            raise NoAnswer(path, f"no answer within {self._timeout:g} s", timed_out=True) from None
        except MalformedAnswer as error:
            raise NoAnswer(path, f"no whole answer came back ({error})") from None
        finally:
            pool.give_back(connection, loop.time())

    def start_afresh(self) -> None:
        """Use no idle connection of this event loop again: what came on one was not the answer to what was asked."""
        pool = self._pools.get(asyncio.get_running_loop())
        if pool is not None:
            pool.close_idle()

    async def aclose(self) -> None:
        """Close the connections; a call that is under way gets no answer."""
        self._is_closed = True
        pools, self._pools = self._pools, {}
        here = asyncio.get_running_loop()
        for loop, pool in pools.items():
            if loop is here:
                await pool.aclose()
            elif not loop.is_closed():
                loop.call_soon_threadsafe(pool.abort)
        if self._through_proxy is not None:
            await self._through_proxy.aclose()

    def _pool_of(self, loop: asyncio.AbstractEventLoop) -> "_Pool":
        pool = self._pools.get(loop)
        if pool is None:
            # Each asyncio.run makes a loop; the connections of one that has ended cannot even be closed any more.
            self._pools = {other: known for other, known in self._pools.items() if not other.is_closed()}
            pool = self._pools[loop] = _Pool()
        return pool

    async def _connect(self, path: str, pool: "_Pool") -> "_Connection":
        if self._is_closed:
            raise ConnectFailed(path, "the transport is closed")
        loop = asyncio.get_running_loop()
        server_hostname = None if self._tls is None else self._host
        try:
            async with asyncio.timeout(min(self._connect_timeout, self._timeout)):
                sock = await open_socket(self._host, self._port)
                _, connection = await loop.create_connection(
                    lambda: _Connection(pool), sock=sock, ssl=self._tls, server_hostname=server_hostname
                )
        except (OSError, ValueError) as error:
            # Also TimeoutError, what TLS refuses, and names that can be no host.
            raise ConnectFailed(path, f"cannot connect to {self._base_url} ({type(error).__name__})") from error
        # TLS may have sent its session tickets, which the loop has to read first.
        try:
            for _ in range(_ROUNDS_TO_SETTLE):
                if self._is_closed or connection.is_free():
                    break
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            connection.close()
            raise
        if self._is_closed or not connection.is_free():
            connection.close()
            raise ConnectFailed(path, "the server spoke or hung up before it was asked")
        return connection


class _Pool:
    """The connections of one event loop; of the idle ones, the last used is the first to be used again."""

    def __init__(self) -> None:
        self._open: dict[_Connection, None] = {}
        self._idle: deque[_Connection] = deque()

    def remember(self, connection: "_Connection") -> None:
        self._open[connection] = None

    def forget(self, connection: "_Connection") -> None:
        self._open.pop(connection, None)

    def take(self, now: float, *, in_step: bool) -> "_Connection | None":
        passed_over = []
        taken = None
        while self._idle and taken is None:
            connection = self._idle.pop()
            if in_step and not connection.is_in_step:
                passed_over.append(connection)
            # What has been idle for long may have been forgotten on the way, without a word to either end.
            elif now - connection.idle_since < _KEEP_ALIVE_SECONDS and connection.is_free():
                taken = connection
            else:
                connection.close()
        self._idle.extend(reversed(passed_over))
        return taken

    def give_back(self, connection: "_Connection", now: float) -> None:
        if not connection.may_be_kept():
            # Whatever it was, a cancellation too: the rest of an answer may still come on this connection.
            connection.close()
            return
        while self._idle and self._idle[0].idle_since < now - _KEEP_ALIVE_SECONDS:
            self._idle.popleft().close()
        if len(self._idle) >= _MOST_IDLE:
            self._idle.popleft().close()
        connection.idle_since = now
        self._idle.append(connection)

    def close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def abort(self) -> None:
        self._idle.clear()
        for connection in list(self._open):
            connection.close()

    async def aclose(self) -> None:
        connections = list(self._open)
        self.abort()
        for connection in connections:
            await connection.lost.wait()


class _Connection(asyncio.Protocol):
    """One connection, with at most one request under way."""

    idle_since = 0.0
    is_in_step = True
    """Whether the last request was one whose answer names whom it is for."""

    def __init__(self, pool: _Pool) -> None:
        self.lost = asyncio.Event()
        self._pool = pool
        self._transport: Any = None
        self._has_unread = _no
        self._reader: AnswerReader | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._is_over = False
        self._loop = asyncio.get_running_loop()
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def send(self, request: bytes, answer: "asyncio.Future[Answer]", deadline: float) -> None:
        """Write a request; `answer` is set to what comes, or fails with `MalformedAnswer` or `TimeoutError`."""
        self._reader = AnswerReader()
        self._answer = answer
        self._deadline = deadline
        # A timer for each request would cost as much as reading its answer. This one looks again as long as requests
        # follow each other, whose deadlines do so too.
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._look_at_the_time)
        self._transport.write(request)

    def is_free(self) -> bool:
        """Whether a request can be sent: nothing has come that was not asked for, not even unread in the socket.

        A loop that was busy has not seen yet what came meanwhile: the end of the connection, or somebody's answer.
        """
        return self.may_be_kept() and not self._has_unread()

    def may_be_kept(self) -> bool:
        """Whether the last answer, if there was one, left the connection in order."""
        if self._is_over:
            return False
        return self._reader is None or (self._reader.answer is not None and self._reader.is_reusable)

    def close(self) -> None:
        """Close at once; an answer that is still under way is not waited for."""
        self._break("the connection was closed")
        self._transport.abort()

    def _look_at_the_time(self) -> None:
        self._timer = None
        if self._answer is None or self._answer.done():
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._look_at_the_time)
        else:
            self._fail(TimeoutError())

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    def _break(self, reason: str) -> None:
        self._is_over = True
        self._fail(MalformedAnswer(reason))

    def _finish(self, reader: AnswerReader) -> None:
        if self._answer is None or self._answer.done() or reader.answer is None:
            return
        if self._transport.get_write_buffer_size():
            raise MalformedAnswer("it came before the request was sent")
        self._answer.set_result(reader.answer)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._pool.remember(self)
        self._has_unread = _unread(transport.get_extra_info("socket").fileno())

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        if self._reader is None:
            self.close()  # nobody asked
            return
        try:
            self._reader.feed(data)
            self._finish(self._reader)
        except MalformedAnswer as error:
            self._break(str(error))
            self._transport.abort()

    def eof_received(self) -> None:
        if self._reader is not None and self._reader.answer is None and not self._is_over:
            try:
                self._reader.end()
                self._finish(self._reader)
            except MalformedAnswer as error:
                self._break(str(error))
        # asyncio closes the connection, but only in its next round.
        self._is_over = True

    def connection_lost(self, exc: Exception | None) -> None:
        self._break("the connection was closed" if exc is None else type(exc).__name__)
        if self._timer is not None:
            self._timer.cancel()
        self._pool.forget(self)
        self.lost.set()


def _no() -> bool:
    return False


def _unread(socket: int) -> Callable[[], bool]:
    """Return a function that tells whether something has come that nobody has read: bytes, or the end."""
    if not hasattr(select, "poll"):
        return lambda: bool(select.select([socket], [], [], 0)[0])
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return lambda: bool(poll.poll(0))


def _head(target: str, host: str, length: int, headers: Mapping[str, str], bearer: SecretStr | None) -> bytes:
    lines = [f"{target} HTTP/1.1", f"host: {host}", f"content-length: {length}", "accept-encoding: identity"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if bearer is not None:
        lines.append(f"authorization: Bearer {bearer.get_secret_value()}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")
