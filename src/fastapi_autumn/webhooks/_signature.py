"""Whether a message is Autumn's: the signatures of Svix, which are those of Standard Webhooks.

Written out rather than imported: `standardwebhooks` and `svix` read the machine's own clock and raise errors of their
own for signatures that are none, and what is left of them is one HMAC. Tests hold this against both.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fastapi_autumn.errors import ConfigurationError

__all__ = ["NotVerified", "Signed", "read_secrets", "verify"]

_PREFIX = "whsec_"
_SECONDS = re.compile(r"[0-9]{1,12}")
_MOST_SIGNATURES = 16


class NotVerified(Exception):
    """The message is not Autumn's, as far as its headers tell."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A message whose signature fits."""

    message_id: str
    signed_at: int
    """Seconds since 1970."""


def read_secrets(secrets: Iterable[str]) -> tuple[bytes, ...]:
    """Read secrets as Autumn's dashboard shows them.

    Raises:
        ConfigurationError: There is none, or one of them is no such secret. The message never has its value.
    """
    keys = tuple(_read_secret(secret) for secret in secrets)
    if not keys:
        raise ConfigurationError(
            "AUTUMN_WEBHOOK_SECRET is not set. Put the endpoint's signing secret there (whsec_..., from Autumn's "
            "dashboard), or pass secrets=."
        )
    return keys


def _read_secret(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(_PREFIX) or not key:
        raise ConfigurationError("AUTUMN_WEBHOOK_SECRET is no signing secret; it has to look like whsec_... .")
    return key


def verify(
    keys: Iterable[bytes], headers: Mapping[str, str], body: bytes, *, now_seconds: float, tolerance: float
) -> Signed:
    """Return what the headers say, if one of the keys signed it with this body, at most `tolerance` seconds from now.

    Raises:
        NotVerified: With the reason, for whoever sent it.
    """
    message_id, time, given = (_header(headers, name) for name in ("id", "timestamp", "signature"))
    if not message_id or not given or not _SECONDS.fullmatch(time):
        raise NotVerified("The headers of a signed message are missing.")
    if abs(now_seconds - int(time)) > tolerance:
        raise NotVerified("The message was signed too long ago, or the clocks differ.")
    content = f"{message_id}.{time}.".encode("latin-1") + body
    expected = [b"v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)) for key in keys]
    # Each with each, so that the time it takes tells nothing.
    fits = [
        hmac.compare_digest(one, signature.encode("latin-1"))
        for one in expected
        for signature in given.split(" ")[:_MOST_SIGNATURES]
    ]
    if not any(fits):
        raise NotVerified("The signature does not fit.")
    return Signed(message_id, int(time))


def _header(headers: Mapping[str, str], name: str) -> str:
    return headers.get(f"svix-{name}") or headers.get(f"webhook-{name}") or ""
