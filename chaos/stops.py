"""How long a service takes to stop that knows a thousand customers, while Autumn is up, down, or hangs.

    PYTHONPATH=tests python -m chaos.stops

To be run with each version of Python. Some calls fail just after Autumn has gone, so that the outbox has work to do.
"""

import asyncio
import contextlib
import platform
import signal
import sys
import tempfile
import time
from pathlib import Path

from chaos.books import LONGEST_STOP_SECONDS
from chaos.client import Call
from chaos.run import PLENTY, answers, free_port, listens, process, talk_to, until
from chaos.settings import SHUTDOWN_TIMEOUT

CUSTOMERS = 1000
AT_ONCE = 20
AUTUMN = {"up": None, "down": signal.SIGKILL, "hangs": signal.SIGSTOP}


async def call_all(port: int, calls: list[Call]) -> None:
    waiting = iter(calls)

    async def customer() -> None:
        for call in waiting:
            await call.make(port)

    await asyncio.gather(*(customer() for _ in range(AT_ONCE)))


async def stop_seconds(autumn_signal: signal.Signals | None) -> tuple[float, int]:
    """Serve a thousand customers, do to Autumn what the signal does, and stop; also returns how many were served."""
    folder = Path(tempfile.mkdtemp(prefix="autumn-stops-"))
    autumn_port, port = free_port(), free_port()
    outbox_url = f"sqlite+aiosqlite:///{folder / 'outbox.db'}"
    with process("chaos.autumn_process", folder, autumn_port, 1) as autumn_process:
        async with talk_to(autumn_port) as autumn:
            await until(lambda: answers(autumn), seconds=30, what="Autumn does not start")
        arguments = (folder, port, 1, f"http://127.0.0.1:{autumn_port}", outbox_url, "deduct", 400, 0)
        with process("chaos.service_process", *arguments) as service_process:
            await until(lambda: listens(port), seconds=30, what="the service does not start")
            calls = [Call(number, f"customer-{number}", "small", "ok", streams=False) for number in range(CUSTOMERS)]
            await call_all(port, calls)
            failing = [
                Call(PLENTY + number, f"customer-{number}", "small", "raises", streams=False)
                for number in range(AT_ONCE)
            ]
            going = asyncio.create_task(call_all(port, failing))
            await asyncio.sleep(0.2)
            if autumn_signal is not None:
                autumn_process.send_signal(autumn_signal)
            began = time.monotonic()
            service_process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(service_process.wait)
            took = time.monotonic() - began
            await going
        if autumn_signal is signal.SIGSTOP:
            autumn_process.send_signal(signal.SIGCONT)
    return took, sum(call.has_succeeded for call in calls)


async def main() -> None:
    too_long = []
    for name, autumn_signal in AUTUMN.items():
        took, served = await stop_seconds(autumn_signal)
        print(
            f"Python {platform.python_version()}, {served} customers, Autumn {name}: stopped in {took:.1f} s",
            flush=True,
        )
        if took > LONGEST_STOP_SECONDS or served < 0.9 * CUSTOMERS:
            too_long.append(name)
    if too_long:
        sys.exit(f"with a shutdown time-out of {SHUTDOWN_TIMEOUT} s, {LONGEST_STOP_SECONDS} s are enough: {too_long}")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
