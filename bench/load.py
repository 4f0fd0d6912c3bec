"""The load: connections that send one request after the other, and every latency.

`python -m bench.load --port 8001 --connections 32 --seconds 2` prints one line of JSON.
"""

import argparse
import asyncio
import json
import random
import time
from typing import Any

import uvloop

_BODY = b'{"model":"gpt-4o","prompt":"Why is the sky blue?"}'


class _Client(asyncio.Protocol):
    """One connection. It sends the next request as soon as an answer is complete."""

    def __init__(self, run: "_Run") -> None:
        self._run = run
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self._send()

    def _send(self) -> None:
        request = self._run.next_request()
        if request is None:
            self.transport.close()
            return
        self._sent = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not _is_complete(self._buffer):
            return
        self._run.note(time.perf_counter() - self._sent, ok=self._buffer.startswith(b"HTTP/1.1 200 "))
        self._buffer = b""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._run.leave()


def _is_complete(answer: bytes) -> bool:
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return False
    head = answer[:end].lower()
    at = head.find(b"content-length:")
    if at < 0:
        return answer.endswith(b"0\r\n\r\n")
    return len(answer) >= end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0])


class _Run:
    """What the connections of one run share."""

    def __init__(self, *, connections: int, seconds: float | None, customers: int) -> None:
        self._customers = customers
        # Without a time, each customer comes once: how all of them get known before something is measured.
        self._in_order = iter(range(customers)) if seconds is None else None
        self._ends = time.perf_counter() + seconds if seconds is not None else float("inf")
        self._connected = connections
        self.over = asyncio.Event()
        self.latencies: list[float] = []
        self.failed = 0

    def next_request(self) -> bytes | None:
        if self._in_order is not None:
            customer = next(self._in_order, None)
        else:
            customer = random.randrange(self._customers) if time.perf_counter() < self._ends else None
        if customer is None:
            return None
        return (
            b"POST /ai/chat HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
            b"x-customer: customer-%d\r\ncontent-length: %d\r\n\r\n%b" % (customer, len(_BODY), _BODY)
        )

    def note(self, latency: float, *, ok: bool) -> None:
        self.latencies.append(latency)
        self.failed += not ok

    def leave(self) -> None:
        self._connected -= 1
        if not self._connected:
            self.over.set()


async def _load(port: int, *, connections: int, seconds: float | None, customers: int) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    run = _Run(connections=connections, seconds=seconds, customers=customers)
    started = time.perf_counter()
    await asyncio.gather(*(loop.create_connection(lambda: _Client(run), "127.0.0.1", port) for _ in range(connections)))
    await run.over.wait()
    elapsed = time.perf_counter() - started
    ended = time.time()
    latencies = sorted(run.latencies)
    return {
        "requests": len(latencies),
        "failed": run.failed,
        "started": ended - elapsed,
        "ended": ended,
        "rps": len(latencies) / elapsed,
        "p50_ms": latencies[len(latencies) // 2] * 1000,
        "p99_ms": latencies[int(len(latencies) * 0.99)] * 1000,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, help="without it, one request for each customer")
    parser.add_argument("--customers", type=int, default=1)
    options = parser.parse_args()
    load = _load(options.port, connections=options.connections, seconds=options.seconds, customers=options.customers)
    print(json.dumps(uvloop.run(load)))


if __name__ == "__main__":
    main()
