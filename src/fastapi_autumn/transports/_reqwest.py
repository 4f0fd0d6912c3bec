"""The fast way: pyreqwest, whose connections live in Rust."""

import asyncio
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from pydantic import SecretStr

from fastapi_autumn.errors import ConfigurationError, ConnectFailed, NoAnswer
from fastapi_autumn.transports._base import Answer
from fastapi_autumn.transports._environment import proxy_for

if TYPE_CHECKING:
    from pyreqwest.client import Client
    from pyreqwest.exceptions import RequestError

__all__ = ["ReqwestTransport"]

_KEEP_ALIVE = timedelta(seconds=30)
_LETTING_GO_SECONDS = 0.05


class ReqwestTransport:
    """Reach Autumn through pyreqwest, several times faster than `HttpxTransport`; in the extra `fast`.

    Proxies come from HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY. SSL_CERT_FILE is trusted besides the
    certificates of the system.

    Raises:
        ConfigurationError: pyreqwest is not installed, or SSL_CERT_FILE cannot be used.
    """

    def __init__(self, base_url: str, *, timeout: float, connect_timeout: float) -> None:
        try:
            from pyreqwest import exceptions  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ConfigurationError(
                "AUTUMN_TRANSPORT=reqwest needs pyreqwest: pip install 'fastapi-autumn[fast]'"
            ) from error
        self._errors = exceptions
        self._base_url = base_url
        self._timeout = timeout
        self._client = _client(base_url, timeout=timeout, connect_timeout=connect_timeout)

    async def request(
        self, method: str, path: str, *, body: bytes, headers: Mapping[str, str], bearer: SecretStr | None = None
    ) -> Answer:
        """See `Transport.request`."""
        errors = self._errors
        if bearer is not None:
            headers = {**headers, "authorization": f"Bearer {bearer.get_secret_value()}"}
        try:
            request = self._client.request(method, self._base_url + path).headers(headers).body_bytes(body).build()
            response = await request.send()
            content = bytes(await response.bytes())
        except errors.RequestError as error:
            kind = type(error).__name__
            if _is_about_connecting(error):
                raise ConnectFailed(path, f"cannot connect to {self._base_url} ({kind})") from error
            if isinstance(error, errors.RequestTimeoutError):
                raise NoAnswer(path, f"no answer within {self._timeout:g} s", timed_out=True) from error
            raise NoAnswer(path, f"the connection broke ({kind})") from error
        return Answer(response.status, response.headers, content)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()
        del self._client
        # The threads below let go of their last Python objects a little later; an interpreter that exits meanwhile
        # aborts.
        await asyncio.sleep(_LETTING_GO_SECONDS)


def _is_about_connecting(error: "RequestError") -> bool:
    """Tell whether nothing was sent. The type does not: `ConnectError` also stands for a reset after sending."""
    causes = error.details["causes"] or ()
    return any("(Connect)" in cause["message"] for cause in causes)


def _client(base_url: str, *, timeout: float, connect_timeout: float) -> "Client":
    from pyreqwest.client import ClientBuilder  # noqa: PLC0415 - an extra
    from pyreqwest.exceptions import BuilderError  # noqa: PLC0415 - as above
    from pyreqwest.proxy import ProxyBuilder  # noqa: PLC0415 - as above

    builder = (
        ClientBuilder()
        .timeout(timedelta(seconds=timeout))
        .connect_timeout(timedelta(seconds=connect_timeout))
        .pool_idle_timeout(_KEEP_ALIVE)
        .follow_redirects(False)
        .no_proxy()
    )
    proxy = proxy_for(httpx.URL(base_url))
    certificates = os.environ.get("SSL_CERT_FILE")
    try:
        if proxy is not None:
            through = ProxyBuilder.all(str(proxy.url))
            builder = builder.proxy(through.basic_auth(*proxy.auth) if proxy.auth else through)
        if certificates:
            builder = builder.add_root_certificate_pem(Path(certificates).read_bytes())
        return builder.build()
    except (OSError, BuilderError) as error:
        raise ConfigurationError(f"pyreqwest cannot be set up: {error}; check SSL_CERT_FILE and the proxy") from error
