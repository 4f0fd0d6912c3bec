"""What is measured, one function for each table; a round visits every column before the next round begins."""

import asyncio
import contextlib
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.processes import SERVICE_CORE, Server, counts, load, python, run_json, service, services, upstream

OURS = ["httptools-deduct", "httptools-hold", "httpx-deduct"]
EVERYTHING = ["unbilled", *OURS, "hono", "plain-port"]
CONNECTIONS = [1, 32, 256]
CUSTOMERS = [1, 100, 100_000]
HEADLINE_CUSTOMERS, HEADLINE_SECONDS = 10_000, 20
OPERATIONS = ["customers.get_or_create", "balances.check"]
STREAMS = 2000

_BODY = b'{"model":"gpt-4o","prompt":""}'
_OPEN_STREAM = (
    b"POST /ai/stream HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\nx-customer: customer-1\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)


@dataclass
class Samples:
    """What the rounds gave; a number is the median of its rounds."""

    values: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add(self, what: str, column: str, value: float) -> None:
        self.values.setdefault((what, column), []).append(value)

    def median(self, what: str, column: str) -> float:
        return statistics.median(self.values[what, column])

    def has(self, what: str, column: str) -> bool:
        return (what, column) in self.values


@dataclass(frozen=True)
class Plan:
    """How much of it is done."""

    rounds: int
    seconds: float
    directory: Path
    say: Callable[[str], None]


def headline(plan: Plan, samples: Samples) -> None:
    """What a service serves whose customers are many, until Autumn has been told all that it has to be told.

    Each round starts every service anew, so that it knows nobody. The clock stops when the last answer of Autumn is
    out: a confirmation that is put off has to be paid for all the same.
    """
    for round_ in range(plan.rounds):
        for name in EVERYTHING:
            plan.say(f"headline, round {round_ + 1} of {plan.rounds}: {name}")
            with upstream() as autumn, service(name, autumn, plan.directory) as server:
                load(server, connections=8, seconds=1)
                counts(autumn)
                result = load(server, connections=32, seconds=HEADLINE_SECONDS, customers=HEADLINE_CUSTOMERS)
                told, last = counts(autumn)
            seconds = max(result["ended"], last) - result["started"]
            samples.add("headline rps", name, result["requests"] / seconds)
            samples.add("headline late s", name, max(0.0, last - result["ended"]))
            for kind in ("requests", "p50_ms", "p99_ms", "cpu_us", "failed"):
                samples.add(f"headline {kind}", name, result[kind])
            for operation in OPERATIONS:
                samples.add(f"headline {operation}", name, told.get(operation, 0) / result["requests"])


def throughput(plan: Plan, samples: Samples) -> None:
    """Requests per second, latency and CPU per request, for one customer who is known."""
    with upstream() as autumn, services(EVERYTHING, autumn, plan.directory) as servers:
        for server in servers:
            load(server, connections=8, seconds=1)
        for round_ in range(plan.rounds):
            plan.say(f"throughput, round {round_ + 1} of {plan.rounds}")
            for connections in CONNECTIONS:
                for server in servers:
                    result = load(server, connections=connections, seconds=plan.seconds)
                    for kind in ("rps", "p50_ms", "p99_ms", "cpu_us", "failed"):
                        samples.add(f"{kind} {connections}", server.name, result[kind])


def latency(plan: Plan, samples: Samples) -> None:
    """The median of a known customer's request when Autumn is 20 ms away; no core is busy."""
    with upstream(delay_ms=20) as autumn, services(EVERYTHING, autumn, plan.directory) as servers:
        for server in servers:
            load(server, connections=1, seconds=1)
        for round_ in range(plan.rounds):
            plan.say(f"latency, round {round_ + 1} of {plan.rounds}")
            for server in servers:
                result = load(server, connections=1, seconds=plan.seconds)
                samples.add("far p50_ms", server.name, result["p50_ms"])
                samples.add("far p99_ms", server.name, result["p99_ms"])


def customers(plan: Plan, samples: Samples) -> None:
    """How the number of customers, all of them known, changes throughput."""
    names = ["httptools-deduct", "httpx-deduct"]
    with upstream() as autumn, services(names, autumn, plan.directory) as servers:
        for server in servers:
            plan.say(f"customers: {server.name} gets to know {max(CUSTOMERS)}")
            load(server, connections=32, customers=max(CUSTOMERS))
        for round_ in range(plan.rounds):
            plan.say(f"customers, round {round_ + 1} of {plan.rounds}")
            for count in CUSTOMERS:
                for server in servers:
                    result = load(server, connections=32, seconds=plan.seconds, customers=count)
                    for kind in ("rps", "p99_ms"):
                        samples.add(f"{kind} of {count}", server.name, result[kind])
                    # Confirmations that still wait their turn are not the next cell's to pay.
                    counts(autumn)


def journal(plan: Plan, samples: Samples) -> None:
    """What the outbox's journal costs: the same route with and without it."""
    names = ["httptools-deduct", "no-journal"]
    with upstream() as autumn, services(names, autumn, plan.directory) as servers:
        for round_ in range(plan.rounds):
            plan.say(f"journal, round {round_ + 1} of {plan.rounds}")
            for server in servers:
                result = load(server, connections=32, seconds=plan.seconds)
                for kind in ("rps", "p50_ms", "cpu_us"):
                    samples.add(f"journal {kind}", server.name, result[kind])


def streams(plan: Plan, samples: Samples) -> None:
    """The memory of an open stream, from 2,000 of them in a fresh process each time."""
    with upstream() as autumn:
        for round_ in range(plan.rounds):
            plan.say(f"streams, round {round_ + 1} of {plan.rounds}")
            for name in ("unbilled", "httptools-deduct", "httpx-deduct"):
                with service(name, autumn, plan.directory) as server:
                    bytes_each = asyncio.run(_memory_of_streams(server))
                samples.add("stream bytes", name, bytes_each)


async def _memory_of_streams(server: Server) -> float:
    # The first ones pay for what is there once: imports, caches, the connections to Autumn.
    async with _open_streams(server, 200):
        before = server.memory()
        async with _open_streams(server, STREAMS):
            return (server.memory() - before) / STREAMS


@contextlib.asynccontextmanager
async def _open_streams(server: Server, count: int):
    slots = asyncio.Semaphore(50)

    async def one() -> asyncio.StreamWriter:
        async with slots:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
            writer.write(_OPEN_STREAM)
            await reader.readuntil(b"data: first\n\n")
            return writer

    writers = await asyncio.gather(*(one() for _ in range(count)))
    await asyncio.sleep(1)
    try:
        yield
    finally:
        for writer in writers:
            writer.close()


def chunks(plan: Plan, samples: Samples) -> None:
    """The cost of a streamed chunk."""
    for round_ in range(plan.rounds):
        plan.say(f"chunks, round {round_ + 1} of {plan.rounds}")
        result = run_json(python("bench.chunks"), core=SERVICE_CORE)
        samples.add("chunk ns", "unbilled", result["without_ns"])
        samples.add("chunk ns", "this package", result["with_ns"])


def drain(plan: Plan, samples: Samples, *, rows: int = 100_000) -> None:
    """The speed at which a full outbox empties; two rounds, because one takes minutes."""
    rounds = min(plan.rounds, 2)
    with upstream() as autumn:
        for round_ in range(rounds):
            plan.say(f"drain, round {round_ + 1} of {rounds}")
            for name in ("httptools-deduct", "httpx-deduct"):
                command = python("bench.drain", name, "--rows", rows, "--upstream", autumn.url)
                samples.add("drain rows/s", name, run_json(command, core=SERVICE_CORE)["rows_per_second"])


def start(plan: Plan, samples: Samples) -> None:
    """What is promised of imports, the command line and the emulator, in milliseconds of one processor."""
    plan.say("start")
    for what, milliseconds in run_json(python("bench.seconds"), core=SERVICE_CORE).items():
        samples.add(f"{what} ms", "this package", milliseconds)


MEASURES: dict[str, Callable[[Plan, Samples], None]] = {
    "headline": headline,
    "throughput": throughput,
    "latency": latency,
    "customers": customers,
    "journal": journal,
    "streams": streams,
    "chunks": chunks,
    "drain": drain,
    "start": start,
}


def run(names: Iterable[str], plan: Plan) -> Samples:
    """Run the measures called `names`."""
    samples = Samples()
    for name in names:
        MEASURES[name](plan, samples)
    return samples


def columns(names: Sequence[str], samples: Samples, what: str) -> list[str]:
    """Return those of `names` for which `what` was measured."""
    return [name for name in names if samples.has(what, name)]
