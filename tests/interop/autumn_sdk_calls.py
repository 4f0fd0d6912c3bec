"""Makes the calls of autumn-sdk that a test asks for: a JSON line in, a JSON line out. Not imported by the tests."""

import asyncio
import json
import sys
from typing import Any

from autumn_sdk import Autumn


def plain(value: Any) -> Any:
    """What the library answered, as JSON."""
    return value.model_dump(mode="json", by_alias=True) if hasattr(value, "model_dump") else value


def answer(call: str, arguments: Any, options: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Make one call, synchronously, or with asyncio if its name ends with `_async`."""
    *path, method = call.split(".")
    try:
        target: Any = Autumn(**options)
        for name in path:
            target = getattr(target, name)
        result = getattr(target, method)(**(arguments or {}), **more)
        return {"result": plain(asyncio.run(result) if asyncio.iscoroutine(result) else result)}
    except Exception as error:  # noqa: BLE001 - whatever the library raises is what the test is about
        status, body = getattr(error, "status_code", None), getattr(error, "body", str(error))
        return {"error": {"name": type(error).__name__, "status": status, "body": body}}


for line in sys.stdin:
    sys.stdout.write(f"{json.dumps(answer(**json.loads(line)))}\n")
    sys.stdout.flush()
