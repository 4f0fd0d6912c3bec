"""The results as a page to read and a picture."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.measures import (
    CONNECTIONS,
    CUSTOMERS,
    EVERYTHING,
    HEADLINE_CUSTOMERS,
    HEADLINE_SECONDS,
    OPERATIONS,
    STREAMS,
    Samples,
    columns,
)

_TITLES = {
    "unbilled": "FastAPI, no billing",
    "httptools-deduct": "this, as installed",
    "httptools-hold": "this, hold",
    "httpx-deduct": "this, httpx",
    "hono": "Hono + autumn-js",
    "plain-port": "plain port",
    "no-journal": "this, no journal",
    "this package": "this",
}
_PACKAGES = ["fastapi", "starlette", "uvicorn", "uvloop", "httptools", "httpx", "httpcore", "autumn-sdk"]


@dataclass(frozen=True)
class Target:
    """Something that has to hold, in numbers of one run."""

    sentence: str
    measured: Callable[[Samples], float]
    holds: Callable[[float], bool]
    unit: str = ""


def _ratio(what: str, over: str, under: str) -> Callable[[Samples], float]:
    return lambda samples: samples.median(what, over) / samples.median(what, under)


_DEFAULT = "httptools-deduct"
TARGETS = [
    Target(
        "as installed, 10,000 customers: at least 0.45 of FastAPI",
        _ratio("headline rps", _DEFAULT, "unbilled"),
        lambda r: r >= 0.45,
    ),
    Target("at least 6 times Hono + autumn-js", _ratio("headline rps", _DEFAULT, "hono"), lambda r: r >= 6),
    Target("at least 40 times the plain port", _ratio("headline rps", _DEFAULT, "plain-port"), lambda r: r >= 40),
    Target(
        "Autumn 20 ms away: at most 21.5 ms over the unbilled route",
        lambda s: s.median("far p50_ms", _DEFAULT) - s.median("far p50_ms", "unbilled"),
        lambda ms: ms <= 21.5,
        " ms",
    ),
    Target(
        "a streamed chunk: less than 2 µs more",
        lambda s: (s.median("chunk ns", "this package") - s.median("chunk ns", "unbilled")) / 1000,
        lambda us: us < 2,
        " µs",
    ),
    Target(
        "an open stream: less than 4 KB more",
        lambda s: (s.median("stream bytes", _DEFAULT) - s.median("stream bytes", "unbilled")) / 1024,
        lambda kb: kb < 4,
        " KB",
    ),
    Target(
        "p99 at 256 connections: within 3 times p50",
        lambda s: s.median("p99_ms 256", _DEFAULT) / s.median("p50_ms 256", _DEFAULT),
        lambda r: r <= 3,
    ),
    Target(
        "100,000 customers: within 10 % of one",
        lambda s: s.median("rps of 100000", _DEFAULT) / s.median("rps of 1", _DEFAULT),
        lambda r: r >= 0.9,
    ),
    Target(
        "the journal: less than 10 % of the throughput",
        _ratio("journal rps", _DEFAULT, "no-journal"),
        lambda r: r > 0.9,
    ),
    Target(
        "the journal: less than 5 % of the median",
        _ratio("journal p50_ms", _DEFAULT, "no-journal"),
        lambda r: r < 1.05,
    ),
    Target(
        "the first lines of an application: less than 100 ms more to import",
        lambda s: s.median("import ms", "this package"),
        lambda ms: ms < 100,
        " ms",
    ),
    Target(
        "`autumn --help`: less than 200 ms more than a bare Python",
        lambda s: s.median("help ms", "this package"),
        lambda ms: ms < 200,
        " ms",
    ),
    Target(
        "the emulator: at least 1,500 checks a second",
        lambda s: 1000 / s.median("check ms", "this package"),
        lambda rate: rate >= 1500,
        " /s",
    ),
]


def targets(samples: Samples) -> str:
    """What has to hold, and whether it does."""
    lines = ["| | measured | |", "|---|---:|---|"]
    for target in TARGETS:
        try:
            value = target.measured(samples)
        except KeyError:  # not part of this run
            continue
        verdict = "yes" if target.holds(value) else "**no**"
        lines.append(f"| {target.sentence} | {value:.2f}{target.unit} | {verdict} |")
    return "\n".join(lines)


def tables(samples: Samples) -> str:
    """Return every table that was measured."""
    parts: list[str] = []
    if samples.has("headline rps", "unbilled"):
        names = columns(EVERYTHING, samples, "headline rps")
        rows = [("requests/s", [f"{samples.median('headline rps', n):.0f}" for n in names])]
        latencies = [(samples.median("headline p50_ms", n), samples.median("headline p99_ms", n)) for n in names]
        rows.append(("p50 / p99 in ms", [f"{p50:.1f} / {p99:.1f}" for p50, p99 in latencies]))
        rows.append(("CPU per request in µs", [f"{samples.median('headline cpu_us', n):.0f}" for n in names]))
        rows += [
            (f"{operation} per request", [f"{samples.median(f'headline {operation}', n):.3f}" for n in names])
            for operation in OPERATIONS
        ]
        rows.append(("seconds until Autumn had it all", [f"{samples.median('headline late s', n):.1f}" for n in names]))
        rows.append(("failed requests", [f"{samples.median('headline failed', n):.0f}" for n in names]))
        title = f"{HEADLINE_CUSTOMERS:,} customers, unknown at first, {HEADLINE_SECONDS} s at 32 connections"
        parts.append(_table(title, names, rows))
    if samples.has("rps 32", "unbilled"):
        names = columns(EVERYTHING, samples, "rps 32")
        rows = []
        for count in CONNECTIONS:
            label = f"{count} connection" + "s" * (count > 1)
            rows.append((f"requests/s, {label}", [f"{samples.median(f'rps {count}', n):.0f}" for n in names]))
            latencies = [(samples.median(f"p50_ms {count}", n), samples.median(f"p99_ms {count}", n)) for n in names]
            rows.append((f"p50 / p99 in ms, {label}", [f"{p50:.1f} / {p99:.1f}" for p50, p99 in latencies]))
        rows.append(("CPU per request in µs, 32 connections", [f"{samples.median('cpu_us 32', n):.0f}" for n in names]))
        rows.append(("failed requests, 256 connections", [f"{samples.median('failed 256', n):.0f}" for n in names]))
        parts.append(_table("One customer, who is known", names, rows))
    if samples.has("far p50_ms", "unbilled"):
        names = columns(EVERYTHING, samples, "far p50_ms")
        cells = [f"{samples.median('far p50_ms', n):.1f} / {samples.median('far p99_ms', n):.1f}" for n in names]
        parts.append(_table("Autumn 20 ms away, 1 connection", names, [("p50 / p99 in ms", cells)]))
    if samples.has("rps of 1", _DEFAULT):
        names = columns(EVERYTHING, samples, "rps of 1")
        rows = [
            (
                f"{count:,} customer" + "s" * (count > 1),
                [
                    f"{samples.median(f'rps of {count}', n):.0f} / {samples.median(f'p99_ms of {count}', n):.1f}"
                    for n in names
                ],
            )
            for count in CUSTOMERS
        ]
        parts.append(_table("Customers: requests/s and p99 in ms, 32 connections", names, rows))
    if samples.has("journal rps", _DEFAULT):
        names = columns([_DEFAULT, "no-journal"], samples, "journal rps")
        kinds = [("requests/s", "rps", 0), ("p50 in ms", "p50_ms", 1), ("CPU per request in µs", "cpu_us", 0)]
        rows = [
            (label, [f"{samples.median(f'journal {kind}', n):.{digits}f}" for n in names])
            for label, kind, digits in kinds
        ]
        parts.append(_table("Journal, 32 connections", names, rows))
    for title, what, names, scale, digits in [
        (f"Memory of an open stream in KB, {STREAMS:,} open", "stream bytes", EVERYTHING, 1024, 1),
        ("A streamed chunk in µs", "chunk ns", ["unbilled", "this package"], 1000, 2),
        ("Outbox with 100,000 rows waiting: rows delivered per second", "drain rows/s", EVERYTHING, 1, 0),
    ]:
        measured = columns(names, samples, what)
        if measured:
            cells = [f"{samples.median(what, name) / scale:.{digits}f}" for name in measured]
            parts.append(_table(title, measured, [("", cells)]))
    return "\n\n".join(parts)


def _table(title: str, names: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    lines = [f"### {title}", "", "| | " + " | ".join(_TITLES[name] for name in names) + " |"]
    lines.append("|---|" + "---:|" * len(names))
    lines += [f"| {label} | " + " | ".join(cells) + " |" for label, cells in rows]
    return "\n".join(lines)


def machine() -> str:
    """What it ran on."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES]
    node = shutil.which("node")
    if node is not None:
        versions.append(
            f"Node {subprocess.run([node, '--version'], capture_output=True, text=True, check=True).stdout.strip()}"
        )
    return (
        f"{cpu}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}; "
        + ", ".join(versions)
    )


def page(samples: Samples, *, rounds: int, seconds: float, command: str) -> str:
    """Return the whole page."""
    loads = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    return f"""# Results

Medians of {rounds} interleaved rounds (of {seconds:g} s each, where it does not say otherwise), written by
`{command}`.
The machine's load average was {loads} at the end; the benchmark itself is a load of 2.
The service under test has one core to itself; Autumn (a constant answer, `bench/upstream.py`) and the load
(`bench/load.py`) share another. Absolute numbers are the machine's, ratios are what carries over.

Machine: {machine()}.

Columns: the same route, `POST /ai/chat`, as FastAPI with no billing; with this package as it is installed, with
`AUTUMN_CHARGING=hold`, and with `AUTUMN_TRANSPORT=httpx`; as Hono with autumn-js on Node, the system this one is
modelled on; and as the port one writes first, BaseHTTPMiddleware around the official autumn-sdk.

The first table is what counts: many customers, and the clock stops when Autumn has answered the last call, so nothing
is put off. It also counts what Autumn was asked. No column calls `gc.freeze()`.

![Requests per second](throughput.svg)

## What has to hold

{targets(samples)}

## Tables

{tables(samples)}

## One at a time

```
python -m bench.services httptools-deduct --port 8001 --upstream http://127.0.0.1:9100 --directory /tmp/bench
python -m bench.upstream --port 9100 --delay 20
python -m bench.load --port 8001 --connections 32 --seconds 5 --customers 100
python -m bench.run --only throughput --rounds 2
```
"""


def picture(samples: Samples) -> str:
    """Draw the requests per second of the headline as bars."""
    names = columns(EVERYTHING, samples, "headline rps")
    most = max(samples.median("headline rps", name) for name in names)
    bars = []
    for row, name in enumerate(names):
        rate = samples.median("headline rps", name)
        y, width = 44 + row * 34, max(2, rate / most * 420)
        colour = "#2563eb" if name.startswith(("httptools", "httpx")) else "#9ca3af"
        bars.append(
            f'<text x="190" y="{y + 16}" text-anchor="end">{_TITLES[name]}</text>'
            f'<rect x="200" y="{y}" width="{width:.0f}" height="22" rx="3" fill="{colour}"/>'
            f'<text x="{208 + width:.0f}" y="{y + 16}">{rate:,.0f}</text>'
        )
    height = 56 + len(names) * 34
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 {height}" font-family="system-ui, sans-serif" '
        f'font-size="13" fill="#111827"><rect width="700" height="{height}" fill="#ffffff"/>'
        '<text x="200" y="26" font-size="15" font-weight="600">Requests per second of one core, 10,000 customers</text>'
        + "".join(bars)
        + "</svg>\n"
    )
