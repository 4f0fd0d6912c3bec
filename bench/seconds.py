"""What the command line, the import of the package and the emulator take of a processor's time. Prints milliseconds.

Each is the best of several fresh processes: whatever else the machine does only ever adds to it.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fastapi_autumn.emulator import Emulator

_TIMES = 7
_CHECKS = 3_000
_ANYWAY = "import fastapi, httpx, pydantic_settings"
_FIRST_LINES = "from fastapi_autumn import Autumn, AutumnMiddleware, ModelCharge"
_HELP = "import sys; sys.argv = ['autumn', '--help']; from fastapi_autumn.cli import main; main()"

_BODY = b'{"customer_id":"ann","feature_id":"ai_usage","required_balance":0.001,"send_event":true}'
_CATALOG = {
    "features": [{"feature_id": "ai_usage", "name": "AI usage", "type": "metered", "consumable": True}],
    "plans": [
        {
            "plan_id": "free",
            "name": "Free",
            "auto_enable": True,
            "items": [{"feature_id": "ai_usage", "included": 1_000, "reset": {"interval": "month"}}],
        }
    ],
}


def _ms_of(program: str) -> float:
    """The processor's time that `program` takes in an interpreter of its own, without starting that."""
    timed = (
        "import atexit, time; began = time.process_time()\n"
        "atexit.register(lambda: print('TOOK', time.process_time() - began))\n"
    )
    outputs = [
        subprocess.run([sys.executable, "-c", timed + program], capture_output=True, text=True, check=True).stdout
        for _ in range(_TIMES)
    ]
    return min(float(output.rpartition("TOOK ")[2]) for output in outputs) * 1000


async def _ms_per_check(directory: Path) -> float:
    emulator = Emulator(directory / "emulator.db", catalog=_CATALOG)
    emulator.call("customers.get_or_create", {"customer_id": "ann"})
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/balances.check",
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "server": ("autumn", 80),
        "headers": [(b"authorization", b"Bearer am_sk_test_emulator"), (b"host", b"autumn")],
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": _BODY, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        assert message.get("status", 200) == 200, message

    began = time.process_time()
    for _ in range(_CHECKS):
        await emulator(dict(scope), receive, send)
    spent = time.process_time() - began
    emulator.close()
    return spent / _CHECKS * 1000


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        check = min(asyncio.run(_ms_per_check(Path(directory, str(number)))) for number in range(3))
    anyway = _ms_of(_ANYWAY)
    print(
        json.dumps(
            {
                "import": _ms_of(f"{_ANYWAY}\n{_FIRST_LINES}") - anyway,
                "help": _ms_of(_HELP),
                "check": check,
            }
        )
    )


if __name__ == "__main__":
    main()
