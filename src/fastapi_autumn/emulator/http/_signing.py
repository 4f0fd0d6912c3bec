"""How Autumn's sender signs what it tells webhooks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

from fastapi_autumn.emulator._document import Document


def sign(message: Document, *, secret: str, message_id: str, seconds: int) -> tuple[dict[str, str], bytes]:
    """Return the headers and the body of a message; `secret` begins with `whsec_`, and `seconds` are since 1970."""
    body = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signature = base64.b64encode(hmac.digest(key, f"{message_id}.{seconds}.".encode() + body, hashlib.sha256)).decode()
    headers = {
        "content-type": "application/json",
        "svix-id": message_id,
        "svix-timestamp": str(seconds),
        "svix-signature": f"v1,{signature}",
    }
    return headers, body
