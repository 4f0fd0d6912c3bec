"""The network's settings in the environment, read once for both libraries so that they mean the same to both."""

import ssl
import urllib.request

import httpx

from fastapi_autumn.errors import ConfigurationError

__all__ = ["origin", "port_of", "proxy_for", "ssl_context"]


def origin(base_url: str) -> httpx.URL:
    """Read an origin such as `https://api.useautumn.com`.

    Raises:
        ConfigurationError: It is none.
    """
    try:
        url = httpx.URL(base_url)
        is_origin = url.scheme in {"http", "https"} and bool(url.host)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ConfigurationError(f"AUTUMN_BASE_URL has no host that can be called ({error}).") from None
    if not is_origin:
        raise ConfigurationError("AUTUMN_BASE_URL has to be an origin such as https://api.useautumn.com.")
    return url


def port_of(url: httpx.URL) -> int:
    """Return the port that `url` names or its scheme has."""
    return url.port or (443 if url.scheme == "https" else 80)


def proxy_for(url: httpx.URL) -> httpx.Proxy | None:
    """Return the proxy that HTTP_PROXY, HTTPS_PROXY and ALL_PROXY name for `url`, unless NO_PROXY has its host.

    Raises:
        ConfigurationError: The variable holds no address of a proxy. It is not shown: it may have a password in it.
    """
    proxies = urllib.request.getproxies()
    named = proxies.get(url.scheme) or proxies.get("all")
    # An entry of NO_PROXY may have a port.
    if not named or urllib.request.proxy_bypass(f"{url.host}:{port_of(url)}"):
        return None
    try:
        return httpx.Proxy(named if "://" in named else f"http://{named}")
    except (ValueError, httpx.InvalidURL):
        raise ConfigurationError(
            f"{url.scheme.upper()}_PROXY or ALL_PROXY is not the address of a proxy, such as http://proxy.example:3128."
        ) from None


def ssl_context() -> ssl.SSLContext:
    """Trust what SSL_CERT_FILE or SSL_CERT_DIR names, or else the authorities that certifi lists.

    Raises:
        ConfigurationError: What they name cannot be read.
    """
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        raise ConfigurationError(f"the certificates cannot be read: {error}; check SSL_CERT_FILE") from error
