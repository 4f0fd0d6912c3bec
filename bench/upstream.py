"""An Autumn that answers every call with a constant, and as fast as Python can: the far side of every benchmark.

The bodies have the size and the shape of the real ones, and are about the customer and the value of the request.
`GET /counts` tells how often each operation was called since the last time, and when the last answer went out.
`--delay` adds the network between a service and Autumn.
"""

import argparse
import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from typing import Any

import uvloop

_BALANCE = {
    "feature_id": "ai_credits",
    "granted": 50,
    "remaining": 45,
    "usage": 5,
    "unlimited": False,
    "overage_allowed": False,
    "max_purchase": None,
    "next_reset_at": 1798024643040,
    "breakdown": [
        {
            "id": "cus_ent_3MVPDixnYP0mzZqoiJhRsMOVg3z",
            "plan_id": "free",
            "included_grant": 50,
            "prepaid_grant": 0,
            "remaining": 45,
            "usage": 5,
            "unlimited": False,
            "reset": {"interval": "month", "resets_at": 1798024643040},
            "price": None,
            "expires_at": None,
        }
    ],
}
_SUBSCRIPTION = {
    "id": "cus_prod_3MVP8XWwTGIgu2LQtzLqTfYpGXI",
    "plan_id": "free",
    "auto_enable": True,
    "add_on": False,
    "status": "active",
    "past_due": False,
    "canceled_at": None,
    "expires_at": None,
    "trial_ends_at": None,
    "started_at": 1795432602910,
    "current_period_start": None,
    "current_period_end": None,
    "quantity": 1,
    "scope": "customer",
}
_ANSWERS: dict[str, Any] = {
    "balances.check": {
        "allowed": True,
        "customer_id": "customer",
        "required_balance": 5,
        "balance": _BALANCE,
        "balances": {"ai_usage": None, "ai_credits": _BALANCE},
        "flag": None,
    },
    "customers.get_or_create": {
        "id": "customer",
        "name": None,
        "email": None,
        "created_at": 1795432602905,
        "fingerprint": None,
        "stripe_id": None,
        "env": "sandbox",
        "metadata": {},
        "send_email_receipts": False,
        "billing_controls": {},
        "subscriptions": [_SUBSCRIPTION],
        "purchases": [],
        "licenses": [],
        "balances": {"ai_credits": _BALANCE},
        "flags": {},
        "config": {},
    },
    "balances.track": {
        "customer_id": "customer",
        "value": -1,
        "balance": _BALANCE,
        "balances": {"ai_usage": None, "ai_credits": _BALANCE},
        "deductions": [
            {
                "balance_id": "cus_ent_3MVPDixnYP0mzZqoiJhRsMOVg3z",
                "feature_id": "ai_credits",
                "plan_id": "free",
                "reset": {"interval": "month", "resets_at": 1798024643040},
                "value": -1,
            }
        ],
    },
    "balances.finalize": {"success": True},
    "events.list": {"list": [], "total": 0, "next_cursor": None},
}


_CUSTOMER, _VALUE = b'"customer"', b'"value":-1'
_TEMPLATES = {
    f"/v1/{operation}".encode(): json.dumps(body, separators=(",", ":")).encode()
    for operation, body in _ANSWERS.items()
}
_HEAD = (
    b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\ndate: %s\r\n"
    b"ratelimit-limit: 10000\r\nratelimit-remaining: 9999\r\nratelimit-reset: 1\r\nx-region: us-east-1\r\n\r\n"
)
_NOT_FOUND = b'{"message":"not in this benchmark","code":"no_auth_header","env":"sandbox"}'


def _message(status: bytes, body: bytes) -> bytes:
    # Without the time of day, a service cannot hold: it would confirm the customer once more to learn it.
    return _HEAD % (status, len(body), _date(int(time.time()))) + body


@lru_cache(maxsize=1)
def _date(seconds: int) -> bytes:
    return formatdate(seconds, usegmt=True).encode("ascii")


def answer_body(path: bytes, request: bytes) -> bytes | None:
    """Return the body of the answer: the constant one, about the customer and the value that were asked for."""
    body = _TEMPLATES.get(path)
    if body is None:
        return None
    if customer := _given(b'"customer_id":', request):
        body = body.replace(_CUSTOMER, customer)
    if value := _given(b'"value":', request):
        body = body.replace(_VALUE, b'"value":' + value)
    return body


def _given(name: bytes, request: bytes) -> bytes | None:
    """The JSON of a member that is a string or a number, as it was sent."""
    _, found, after = request.partition(name)
    if not found:
        return None
    return after[: min(end for end in (after.find(b","), after.find(b"}")) if end >= 0)]


@dataclass
class _Told:
    """How often Autumn was asked what since somebody wanted to know, and when the last answer went out."""

    counts: Counter[str] = field(default_factory=Counter)
    last: float = 0.0

    def reset(self) -> bytes:
        body = json.dumps({"counts": self.counts, "last": self.last}).encode()
        self.counts = Counter()
        return _message(b"200 OK", body)


_told = _Told()


def _answer(path: bytes, request: bytes) -> bytes:
    if path == b"/counts":
        return _told.reset()
    _told.counts[path.decode().removeprefix("/v1/")] += 1
    _told.last = time.time()
    body = answer_body(path, request)
    if body is None:
        return _message(b"401 Unauthorized", _NOT_FOUND)
    return _message(b"200 OK", body)


class _Connection(asyncio.Protocol):
    """One keep-alive connection; requests are framed by content-length."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            at = head.lower().find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._buffer) < end + 4 + length:
                return
            request = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            answer = _answer(head.split(b" ", 2)[1], request)
            if self._delay:
                asyncio.get_running_loop().call_later(self._delay, self._transport.write, answer)
            else:
                self._transport.write(answer)


async def _serve(port: int, delay: float) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(delay), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=9100)
    parser.add_argument("--delay", type=float, default=0.0, metavar="MS")
    options = parser.parse_args()
    uvloop.run(_serve(options.port, options.delay / 1000))


if __name__ == "__main__":
    main()
