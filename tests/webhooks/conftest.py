"""Messages as Autumn's sender signs them, by the sender's own library."""

import json
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from svix.webhooks import Webhook

SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
SAMPLES: list[Any] = json.loads(Path(__file__).with_name("samples.json").read_text())
"""What a running Autumn handed to its sender."""


def sample(kind: str) -> Any:
    return next(message for message in SAMPLES if message["type"] == kind)


def signed(
    payload: Any, *, message_id: str | None = None, secret: str = SECRET, seconds_ago: float = 0, names: str = "svix"
) -> dict[str, Any]:
    """What httpx sends: the body, and the three headers of its signature."""
    body = payload if isinstance(payload, str) else json.dumps(payload)
    message_id = message_id or f"msg_{uuid.uuid4().hex}"
    moment = datetime.fromtimestamp(int(datetime.now(UTC).timestamp() - seconds_ago), UTC)
    headers = {
        f"{names}-id": message_id,
        f"{names}-timestamp": str(int(moment.timestamp())),
        f"{names}-signature": Webhook(secret).sign(message_id, moment, body),
    }
    return {"content": body, "headers": headers}
