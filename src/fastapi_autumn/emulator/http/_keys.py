"""Who may call: secret keys, publishable keys, and what a key may reach."""

from __future__ import annotations

from typing import NamedTuple

from fastapi_autumn.emulator._errors import ApiError, invalid_request
from fastapi_autumn.emulator.http._store import Store

EMULATOR_WEBHOOK_SECRET = "whsec_ZW11bGF0b3Itc2lnbnMtaXRzLXdlYmhvb2tz"  # noqa: S105 - known to everybody, like the key
"""The signing secret of what it tells webhooks."""

EMULATOR_KEY = "am_sk_test_emulator"
PUBLISHABLE_KEY = "am_pk_test_emulator"
_SECRET = ("am_sk_test", "am_sk_live")
_PUBLISHABLE = ("am_pk_test", "am_pk_live")
_PREFIXES = (*_SECRET, *_PUBLISHABLE, "am_oauth_", "am_jwt_")
_SHOWN = 15
# What a publishable key, which anybody can read in a browser, may reach.
_PUBLIC = {("GET", "/v1/products"), ("POST", "/v1/entitled"), ("POST", "/v1/check"), ("GET", "/v1/customers/{id}")}


class Caller(NamedTuple):
    """Who calls: the environment of the key, and whether it is one that anybody can read in a browser."""

    env: str
    publishable: bool


def authenticate(store: Store, header: str | None, method: str, path: str, pattern: str | None) -> Caller:
    """Return who the key in `Authorization` belongs to, or raise the 401. `pattern` is the route, if there is one."""
    scheme, _, key = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise ApiError(401, "no_secret_key", "Secret key not found in Authorization header")
    if not key.startswith(_PREFIXES):
        raise invalid_request("Invalid authorization token prefix", status=401)
    row = store.row("SELECT env FROM keys WHERE key = ?", key)
    if key.startswith(_PUBLISHABLE):
        if (method, pattern) not in _PUBLIC:
            raise ApiError(
                401,
                "endpoint_not_public",
                f"Endpoint {path} not accessible via publishable key. Please try with a secret key instead.",
            )
        if row is None:
            raise ApiError(401, "invalid_publishable_key", "Invalid publishable key")
    if row is None:
        raise ApiError(401, "invalid_secret_key", f"Invalid secret key: {key[:_SHOWN]}********")
    return Caller(row[0], key.startswith(_PUBLISHABLE))


def add(store: Store, key: str) -> None:
    """Accept a key. Keys with `_live` answer with `env: live`, all the others with `env: sandbox`."""
    if not key.startswith((*_SECRET, *_PUBLISHABLE, "am_oauth_")):
        raise ValueError("a key starts with am_sk_test, am_sk_live, am_pk_test or am_pk_live")
    store.run("INSERT OR IGNORE INTO keys VALUES (?, ?)", key, "live" if "_live" in key else "sandbox")


def revoke(store: Store, key: str) -> None:
    """Refuse a key from now on."""
    store.run("DELETE FROM keys WHERE key = ?", key)
