"""How bytes reach Autumn: the only package that names HTTP libraries.

A transport sends one request and returns the whole answer, whatever its status. It never retries and never reads a
body's meaning. What it does tell apart is whether the request can have left: `ConnectFailed` when it cannot have,
`NoAnswer` when it may have.
"""

import httpx

from fastapi_autumn.settings import AutumnSettings
from fastapi_autumn.transports._asgi import AsgiTransport
from fastapi_autumn.transports._base import Answer, ReusingTransport, Transport
from fastapi_autumn.transports._httptools import HttptoolsTransport
from fastapi_autumn.transports._httpx import HttpxTransport

__all__ = [
    "Answer",
    "AsgiTransport",
    "HttptoolsTransport",
    "HttpxTransport",
    "ReusingTransport",
    "Transport",
    "transport_for",
]


def transport_for(settings: AutumnSettings, *, http_client: httpx.AsyncClient | None = None) -> Transport:
    """Make the transport that `settings.transport` names; an httpx client that is passed in is always used.

    Raises:
        ConfigurationError: The network's settings in the environment cannot be used.
    """
    base_url, timeout, connect_timeout = settings.base_url, settings.timeout, settings.connect_timeout
    if http_client is not None or settings.transport == "httpx":
        return HttpxTransport(base_url, timeout=timeout, connect_timeout=connect_timeout, client=http_client)
    return HttptoolsTransport(base_url, timeout=timeout, connect_timeout=connect_timeout)
