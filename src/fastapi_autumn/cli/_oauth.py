"""Signing in with the browser: OAuth 2 with PKCE, the answer coming back to a port of this machine.

Addresses, client id, scopes and ports are those of the official command line: Autumn knows no others.
"""

import asyncio
import base64
import contextlib
import hashlib
import html
import json
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from pydantic import SecretStr

from fastapi_autumn.errors import AutumnError, UnexpectedAnswer
from fastapi_autumn.transports import Transport

__all__ = ["SignIn", "SignInFailed", "fetch_keys", "waiting"]

_CLIENT_ID = "hAWUopQqLnsSwuRgeRzIBzKslwXmQUSr"
_PORTS = range(31448, 31453)
_SCOPES = " ".join(
    [
        *(
            f"{what}:{do}"
            for what in ("customers", "features", "plans")
            for do in ("create", "read", "list", "update", "delete")
        ),
        *("rewards:read", "rewards:write", "apiKeys:create", "apiKeys:read", "organisation:read"),
    ]
)
_LONGEST_REQUEST = 16_384
_PATIENCE_SECONDS = 10
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<body style="font: 16px system-ui; margin: 4em auto; max-width: 30em"><h1>{title}</h1><p>{text}</p></body></html>
"""


class SignInFailed(AutumnError):
    """The sign-in ended without keys, for this `reason`."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"Sign-in failed: {reason.rstrip('.')}. Run autumn login to try again.")
        self.reason = reason


@dataclass(frozen=True)
class SignIn:
    """One attempt. `url` is for the browser; `code` is what comes back."""

    base_url: str
    port: int
    code: "asyncio.Future[str]"
    state: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    @property
    def redirect_uri(self) -> str:
        return f"http://localhost:{self.port}/"

    @property
    def url(self) -> str:
        """Where the user has to say yes."""
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).decode().rstrip("=")
        query = {
            "response_type": "code",
            "client_id": _CLIENT_ID,
            "redirect_uri": self.redirect_uri,
            "state": self.state,
            "code_challenge_method": "S256",
            "code_challenge": challenge,
            "scope": _SCOPES,
            "prompt": "consent",
        }
        return f"{self.base_url}/api/auth/oauth2/authorize?{urlencode(query)}"

    def is_meant_by(self, query: Mapping[str, str]) -> bool:
        """Whether an answer belongs to this sign-in. Any page can send a browser here, but none knows the state."""
        return secrets.compare_digest(query.get("state", "").encode(), self.state.encode())

    def code_in(self, query: Mapping[str, str]) -> str:
        """The code that the browser brought back.

        Raises:
            SignInFailed: it brought an error, or no code.
        """
        if "error" in query:
            raise SignInFailed(query.get("error_description") or query["error"])
        if not query.get("code"):
            raise SignInFailed("the answer has no authorization code")
        return query["code"]


@asynccontextmanager
async def waiting(base_url: str) -> AsyncIterator[SignIn]:
    """Listen for the browser while inside.

    Raises:
        SignInFailed: every port that Autumn sends browsers back to is in use.
    """
    code: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    for port in _PORTS:
        sign_in = SignIn(base_url, port, code)
        with contextlib.suppress(OSError):
            server = await asyncio.start_server(_Browser(sign_in), "127.0.0.1", port, limit=_LONGEST_REQUEST)
            break
    else:
        raise SignInFailed(f"the ports {_PORTS.start} to {_PORTS.stop - 1} are all in use; free one of them")
    try:
        yield sign_in
    finally:
        # Not waited for: a browser may keep connections open that it never says anything on.
        server.close()


class _Browser:
    """Answers the browser that comes back."""

    def __init__(self, sign_in: SignIn) -> None:
        self._sign_in = sign_in

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gone = (ConnectionError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)
        # Cancelled, the command is over. asyncio would report a connection's task that ends so as a failure.
        with contextlib.suppress(asyncio.CancelledError, *gone):
            async with asyncio.timeout(_PATIENCE_SECONDS):
                request = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(request.partition(b"\r\n")[0].decode("latin-1")))
                await writer.drain()
        writer.close()

    def _answer(self, request_line: str) -> bytes:
        method, _, rest = request_line.partition(" ")
        target = urlsplit(rest.partition(" ")[0])
        if method != "GET" or target.path != "/":
            return _page(HTTPStatus.NOT_FOUND, "Not found", "There is nothing here.")
        code, query = self._sign_in.code, dict(parse_qsl(target.query))
        if not self._sign_in.is_meant_by(query):
            # Somebody else's page must not be able to end a sign-in that waits.
            text = "This answer belongs to another sign-in. The command in the terminal still waits for its own."
            return _page(HTTPStatus.BAD_REQUEST, "Not signed in", text)
        try:
            found = self._sign_in.code_in(query)
        except SignInFailed as error:
            if not code.done():
                code.set_exception(error)
            return _page(HTTPStatus.BAD_REQUEST, "Not signed in", error.reason)
        if not code.done():
            code.set_result(found)
        return _page(HTTPStatus.OK, "Signed in", "You can close this window and go back to the terminal.")


def _page(status: HTTPStatus, title: str, text: str) -> bytes:
    body = _PAGE.format(title=title, text=html.escape(text)).encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: text/html; charset=utf-8\r\n"
        f"content-length: {len(body)}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


async def fetch_keys(transport: Transport, sign_in: SignIn, code: str) -> tuple[str, str]:
    """Turn the code into keys: that of the sandbox, and that of production.

    Raises:
        SignInFailed: Autumn refused.
    """
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": sign_in.redirect_uri,
        "code_verifier": sign_in.verifier,
        "client_id": _CLIENT_ID,
    }
    headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
    granted = await _post(transport, "/api/auth/oauth2/token", urlencode(form).encode(), headers)
    token = SecretStr(str(granted.get("access_token")))
    keys = await _post(transport, "/cli/api-keys", b"", {"accept": "application/json"}, bearer=token)
    sandbox, production = keys.get("sandbox_key", ""), keys.get("prod_key", "")
    # They become lines of a file that shells read, so nothing else may come in with them.
    for key, kind in ((sandbox, "test"), (production, "live")):
        if not isinstance(key, str) or not re.fullmatch(rf"am_sk_{kind}_[\w-]+", key, re.ASCII):
            raise UnexpectedAnswer("/cli/api-keys", f"the answer has no am_sk_{kind}_... key")
    return sandbox, production


async def _post(
    transport: Transport, path: str, body: bytes, headers: Mapping[str, str], *, bearer: SecretStr | None = None
) -> dict[str, Any]:
    answer = await transport.request("POST", path, body=body, headers=headers, bearer=bearer)
    try:
        content = json.loads(answer.body)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise UnexpectedAnswer(path, f"Autumn answered {answer.status} with something that is not JSON")
    if answer.status >= HTTPStatus.BAD_REQUEST:
        # Which of these carries the reason differs between the two endpoints and their versions.
        reasons = (content.get(name) for name in ("error_description", "message", "error"))
        raise SignInFailed(next((str(one) for one in reasons if one), f"Autumn answered {answer.status}"))
    return content
