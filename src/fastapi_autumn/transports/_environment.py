"""The network's settings in the environment, read once for both libraries so that they mean the same to both."""

import urllib.request

import httpx

__all__ = ["proxy_for"]


def proxy_for(url: httpx.URL) -> httpx.Proxy | None:
    """Return the proxy that HTTP_PROXY, HTTPS_PROXY and ALL_PROXY name for `url`, unless NO_PROXY has its host."""
    proxies = urllib.request.getproxies()
    named = proxies.get(url.scheme) or proxies.get("all")
    if not named or urllib.request.proxy_bypass(url.host):
        return None
    return httpx.Proxy(named if "://" in named else f"http://{named}")
