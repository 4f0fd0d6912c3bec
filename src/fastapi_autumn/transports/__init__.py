"""How bytes reach Autumn: the only package that names HTTP libraries.

A transport sends one request and returns the whole answer, whatever its status. It never retries and never reads a
body's meaning. What it does tell apart is whether the request can have left: `ConnectFailed` when it cannot have,
`NoAnswer` when it may have.
"""

import httpx

from fastapi_autumn.errors import ConfigurationError
from fastapi_autumn.settings import AutumnSettings
from fastapi_autumn.transports._asgi import AsgiTransport
from fastapi_autumn.transports._base import Answer, Transport
from fastapi_autumn.transports._httptools import HttptoolsTransport
from fastapi_autumn.transports._httpx import HttpxTransport
from fastapi_autumn.transports._reqwest import ReqwestTransport

__all__ = [
    "Answer",
    "AsgiTransport",
    "HttptoolsTransport",
    "HttpxTransport",
    "ReqwestTransport",
    "Transport",
    "transport_for",
]


def transport_for(settings: AutumnSettings, *, http_client: httpx.AsyncClient | None = None) -> Transport:
    """Make the transport that `settings.transport` names.

    Raises:
        ConfigurationError: `http_client` was given for a transport other than httpx, or pyreqwest is not installed.
    """
    base_url, timeout, connect_timeout = settings.base_url, settings.timeout, settings.connect_timeout
    if settings.transport == "httpx":
        return HttpxTransport(base_url, timeout=timeout, connect_timeout=connect_timeout, client=http_client)
    if http_client is not None:
        raise ConfigurationError(
            f"AUTUMN_TRANSPORT={settings.transport} does not take an httpx client; pass one or set the other."
        )
    if settings.transport == "httptools":
        return HttptoolsTransport(base_url, timeout=timeout, connect_timeout=connect_timeout)
    return ReqwestTransport(base_url, timeout=timeout, connect_timeout=connect_timeout)
