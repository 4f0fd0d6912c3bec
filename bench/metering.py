"""What metering costs on the way of a call, in microseconds: a report, and a chunk that passes."""

import asyncio
import json
import time
from collections.abc import Callable
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from fastapi_autumn import Customer
from fastapi_autumn.charge import Charge
from fastapi_autumn.pricing import CallRequest, Counts, tokens
from fastapi_autumn.settlement import Entry

_ROUNDS, _TIMES = 5, 20_000
_USAGE = {
    "prompt_tokens": 2006,
    "completion_tokens": 300,
    "total_tokens": 2306,
    "prompt_tokens_details": {"cached_tokens": 1920},
    "completion_tokens_details": {"reasoning_tokens": 192},
}
_BODY = json.dumps({"model": "gpt-4o", "max_tokens": 500, "messages": [{"role": "user", "content": "words " * 200}]})


def _charge() -> Charge:
    held = Decimal(11)
    entry = Entry("w-1", "ada", "ai_usage", held, held, "", 0, charging="hold", held=True)
    settings: Any = SimpleNamespace(refund_on_disconnect=False)
    rate = tokens(input=25, output=100, cached=12.5)
    return Charge(
        entry,
        customer=Customer("ada"),
        model="gpt-4o",
        settings=settings,
        end=lambda _: None,
        rate=rate,
        bounds=Counts(),
    )


def _microseconds(step: Callable[[], object]) -> float:
    """The least of a few rounds: what else runs on the machine only adds."""
    rounds = []
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        for _ in range(_TIMES):
            step()
        rounds.append((time.perf_counter() - begun) / _TIMES * 1e6)
    return min(rounds)


async def measure() -> dict[str, float]:
    """Return microseconds by what was done."""
    charge, rate, request = _charge(), tokens(input=25, output=100, max_output=500), CallRequest.of(_BODY)
    return {
        "report": _microseconds(lambda: charge.used(_USAGE, response_id="r")),
        "chunk": _microseconds(lambda: charge.passed("word", response_id="r")),
        "read a request": _microseconds(lambda: CallRequest.of(_BODY)),
        "the most of a request": _microseconds(lambda: rate.most(request)),
        "the cost of a response": _microseconds(lambda: rate.cost(Counts(input=2000, output=300))),
    }


def main() -> None:
    print(json.dumps(asyncio.run(measure())))


if __name__ == "__main__":
    main()
