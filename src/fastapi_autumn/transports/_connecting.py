"""Opening a TCP connection to whichever of a host's addresses answers first (happy eyeballs, RFC 8305).

asyncio's own `create_connection` can do this, uvloop's cannot.
"""

import asyncio
import socket
from collections.abc import Iterable
from itertools import zip_longest
from typing import Any

__all__ = ["HAPPY_EYEBALLS_DELAY", "open_socket"]

HAPPY_EYEBALLS_DELAY = 0.25
"""Seconds after which the next address is tried besides; what RFC 8305 recommends."""

_Address = tuple[int, int, int, Any]


async def open_socket(host: str, port: int, *, delay: float = HAPPY_EYEBALLS_DELAY) -> socket.socket:
    """Connect to `host`.

    Raises:
        OSError: The name does not resolve, or no address accepts.
        ValueError: This can be no host name.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = _by_turns([(family, kind, proto, address) for family, kind, proto, _, address in found])
    if len(addresses) == 1:
        return await _connect(addresses[0])
    return await _Race(addresses, delay).run()


def _by_turns(addresses: list[_Address]) -> list[_Address]:
    """Order them so that the families alternate, the one that the resolver prefers first."""
    first = [one for one in addresses if one[0] == addresses[0][0]]
    rest = [one for one in addresses if one[0] != addresses[0][0]]
    return [one for pair in zip_longest(first, rest) for one in pair if one is not None]


async def _connect(to: _Address) -> socket.socket:
    family, kind, proto, address = to
    sock = socket.socket(family, kind, proto)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


class _Race:
    """One attempt after the other, the next when the last one has failed or takes long; the first to connect wins."""

    def __init__(self, addresses: Iterable[_Address], delay: float) -> None:
        self._addresses = addresses
        self._delay = delay
        self._moved = asyncio.Event()
        self._winner: socket.socket | None = None
        self._failures: list[OSError] = []

    async def run(self) -> socket.socket:
        attempts: list[asyncio.Task[None]] = []
        try:
            for address in self._addresses:
                attempts.append(asyncio.create_task(self._attempt(address)))
                await self._wait_for_a_move(self._delay)
                if self._winner is not None:
                    return self._winner
            while len(self._failures) < len(attempts):
                await self._wait_for_a_move(None)
                if self._winner is not None:
                    return self._winner
        except BaseException:
            if self._winner is not None:
                self._winner.close()
            raise
        finally:
            for attempt in attempts:
                attempt.cancel()
        raise self._failures[0]

    async def _attempt(self, address: _Address) -> None:
        try:
            sock = await _connect(address)
        except OSError as error:
            self._failures.append(error)
        else:
            if self._winner is None:
                self._winner = sock
            else:
                sock.close()
        self._moved.set()

    async def _wait_for_a_move(self, delay: float | None) -> None:
        try:
            async with asyncio.timeout(delay):
                await self._moved.wait()
        except TimeoutError:
            return
        self._moved.clear()
