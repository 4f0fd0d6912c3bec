"""What a browser may send to the billing routes, and where they may send it.

No `from __future__ import annotations` here: FastAPI reads these signatures.
"""

import ipaddress
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import urljoin, urlsplit

from fastapi import APIRouter, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from ._refusals import refusal

__all__ = ["EmulatorPages", "is_emulators_page", "not_from_a_form", "safe_url"]

_PAGES = ("checkout", "portal")


async def not_from_a_form(request: Request) -> None:
    """Refuse what a page of somebody else could send with this customer's cookies: anything but JSON."""
    if request.method == "GET":
        return
    declared = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    is_json = declared == "application/json" or (declared.startswith("application/") and declared.endswith("+json"))
    if has_body and not is_json:
        raise refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "json_expected",
            "Send JSON, with the header Content-Type: application/json.",
        )


def safe_url(request: Request, url: str | None, name: str) -> str | None:
    """Return an address that a browser may be sent to: https, this application's own, or this machine's.

    A path of this application is written out.
    """
    if url is None:
        return None
    own = urlsplit(str(request.base_url))
    try:
        parts = urlsplit(urljoin(str(request.base_url), url) if url.startswith("/") else url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    plain = url.isprintable() and not set(url) & set(" \\") and not url.startswith("//")
    if not plain or not host or "@" in parts.netloc:
        allowed = False
    elif (parts.scheme, host, port) == (own.scheme, own.hostname, own.port):
        allowed = True
    else:
        allowed = parts.scheme == "https" or (parts.scheme == "http" and _is_this_machine(host))
    if not allowed:
        raise refusal(
            HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_url", f"{name} has to be an https address, or one of this site."
        )
    return parts.geturl()


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _EmulatorPage:
    """One of the emulator's pages, such as its check-out, beside the billing routes; the rest of it stays inside."""

    def __init__(self, emulator: Callable[[], ASGIApp], page: str) -> None:
        self._emulator = emulator
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = f"/{self._page}/{scope['path_params']['rest']}"
        await self._emulator()({**scope, "root_path": "", "path": path}, receive, send)


def is_emulators_page(path: str) -> bool:
    """Tell whether a path is one of those that `EmulatorPages` serves, below whatever prefix."""
    _, found, rest = path.partition("-emulator/")
    return bool(found) and rest.partition("/")[0] in _PAGES


class EmulatorPages:
    """Where the emulator's pages are: beside the billing routes, because a browser comes to them without a header."""

    def __init__(self, prefix: str, *, here: bool) -> None:
        self._prefix = f"{prefix}-emulator" if prefix else "/autumn-emulator"
        self._billing = prefix
        self._here = here

    def add_to(self, router: APIRouter, emulator: Callable[[], ASGIApp]) -> None:
        """Serve them."""
        for page in _PAGES:
            # Starlette takes anything that is not a function for an ASGI app; its annotation knows functions only.
            pages: Any = _EmulatorPage(emulator, page)
            router.add_route(
                f"{self._prefix}/{page}/{{rest:path}}", pages, methods=["GET", "POST"], include_in_schema=False
            )

    def address(self, request: Request, url: str | None) -> str | None:
        """Where the browser finds a page: an emulator inside the process has no host of its own."""
        if url is None or not self._here:
            return url
        above = request.url.path.rpartition("/")[0].removesuffix(self._billing)
        return str(request.url.replace(path=f"{above}{self._prefix}{urlsplit(url).path}", query=""))
