"""Signing in from the command line: OAuth 2 with PKCE, and the endpoint that hands out keys afterwards.

Anybody who sees the consent page may allow it: there are no users here.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import html
from typing import Any
from urllib.parse import urlencode, urlsplit

from fastapi_autumn.emulator._errors import ApiError
from fastapi_autumn.emulator.books._clock import HOUR
from fastapi_autumn.emulator.http import _keys
from fastapi_autumn.emulator.http._call import Answer, Call, Operation
from fastapi_autumn.emulator.routes.pages import page

_MINUTES = 10 * 60_000
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "::1")


def authorize(call: Call) -> Any:
    """Show the page on which the CLI's request for keys is allowed or denied."""
    asked = call.query
    problem = _problem(asked)
    if problem:
        return page("Cannot sign in", f"<p>{html.escape(problem)}</p>", status=400)
    hidden = "".join(
        f'<input type="hidden" name="{name}" value="{html.escape(asked.get(name, ""))}">'
        for name in ("redirect_uri", "state", "code_challenge", "client_id")
    )
    return page(
        "Sign in to the Autumn emulator",
        "<p>A program on this computer asks for API keys of the emulator.</p>"
        f'<form method="post" action="consent">{hidden}'
        '<button name="decision" value="allow">Allow</button> '
        '<button name="decision" value="deny">Deny</button></form>',
    )


def consent(call: Call) -> Any:
    """Send the browser back to the program, with a code or with `access_denied`."""
    form = call.form()
    target = form.get("redirect_uri", "")
    if not _is_loopback(target):
        return page("Cannot sign in", "<p>The address to return to is not on this computer.</p>", status=400)
    if form.get("decision") != "allow":
        answer = {"error": "access_denied", "error_description": "User denied", "state": form.get("state", "")}
    else:
        code = call.store.new_secret()
        kept = {"challenge": form.get("code_challenge"), "redirect_uri": target, "until": call.now + _MINUTES}
        call.store.put_ticket("code", code, kept | {"client_id": form.get("client_id")})
        answer = {"code": code, "state": form.get("state", "")}
    return Answer(302, "", {"location": f"{target}?{urlencode(answer)}"}, "text/plain")


def token(call: Call) -> Any:
    """Exchange a code and the verifier that belongs to it for an access token. A code works once."""
    form = call.form()
    if form.get("grant_type") != "authorization_code":
        return Answer(400, {"error": "unsupported_grant_type"})
    code = call.store.take_ticket("code", form.get("code", ""))
    digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
    challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
    if (
        code is None
        or code["until"] < call.now
        or code["redirect_uri"] != form.get("redirect_uri")
        or code["client_id"] != form.get("client_id")
        or not hmac.compare_digest(challenge, code["challenge"] or "")
    ):
        return Answer(400, {"error": "invalid_grant", "error_description": "The code is not valid"})
    access = f"am_oauth_{call.store.new_secret()}"
    call.store.put_ticket("access", access, {"until": call.now + HOUR})
    return {"access_token": access, "token_type": "Bearer", "expires_in": HOUR // 1_000, "scope": "openid"}


def create_keys(call: Call) -> Any:
    """Make a pair of keys for whoever signed in. The ones made before keep working."""
    access = call.authorization.removeprefix("Bearer ")
    known = call.store.ticket("access", access)
    if known is None or known["until"] < call.now:
        raise ApiError(401, "invalid_token", "Invalid or expired access token")
    pair = {
        name: f"am_sk_{kind}_{call.store.new_secret()}"
        for name, kind in (("sandbox_key", "test"), ("prod_key", "live"))
    }
    for key in pair.values():
        _keys.add(call.store, key)
    return pair | {"org_id": "org_emulator"}


def _problem(asked: dict[str, str]) -> str | None:
    if asked.get("response_type") != "code":
        return "response_type has to be code"
    if not asked.get("code_challenge") or asked.get("code_challenge_method") != "S256":
        return "a code_challenge with the method S256 is required"
    if not _is_loopback(asked.get("redirect_uri", "")):
        return "redirect_uri has to be on this computer"
    return None


def _is_loopback(address: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme == "http" and parts.hostname in _LOOPBACK


ROUTES = {
    ("GET", "/api/auth/oauth2/authorize"): Operation("signin.authorize", authorize, writes=False, public=True),
    ("POST", "/api/auth/oauth2/consent"): Operation("signin.consent", consent, public=True),
    ("POST", "/api/auth/oauth2/token"): Operation("signin.token", token, public=True),
    ("POST", "/cli/api-keys"): Operation("signin.keys", create_keys, public=True),
}
