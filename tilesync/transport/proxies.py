"""Proxy selection from the environment, the same for every HTTP client.

The clients (httpx, reqwest, obstore, botocore, requests) each read these variables by different rules. They all get the
result of `Proxies.proxy_for` instead, so that all requests of a run take the same route. The semantics are those of
curl and of Python's urllib where these agree:

- `http_proxy` and `https_proxy` by the scheme of the URL, else `all_proxy`. The lower-case name wins over the
  upper-case one, and an empty value disables the proxy. `HTTP_PROXY` is ignored in a CGI script, where a client can set
  it (CVE-2016-5385).
- A proxy without a scheme is an http proxy. `socks5://` is read as `socks5h://`: the proxy resolves the names.
- `no_proxy`: entries separated by commas or white space. `*` exempts every host. A name exempts that host and its
  subdomains, with or without a leading dot or `*.`. An address or a CIDR block exempts URLs with such an address: names
  are not resolved. `host:port` and `[address]:port` exempt that port only; a URL without a port has that of its scheme.
  Case and a final dot do not matter. Loopback is not exempt unless it is listed.

Sources: curl(1), "ENVIRONMENT"; urllib.request.getproxies_environment; golang.org/x/net/http/httpproxy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

from tilesync.errors import UsageError
from tilesync.values import dataclass

_SCHEMES: Final = ("https", "http", "all")
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
_BRACKETED_HOST: Final = re.compile(r"\[([^\]]+)\](?::(\d+))?")
_HOST_OR_DOMAIN: Final = re.compile(r"(?:\*?\.)?([^\s:/*\[\]]+?)\.?(?::(\d+))?")


BypassCheck = Callable[[str], object]
"""Returns whether the settings of the operating system exempt a host."""


def _never_bypassed(host: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Proxy:
    """Proxy, and the variable that sets it. `problem`: why it is invalid, empty if it is valid."""

    setting: str
    url: str = field(repr=False)
    problem: str = ""

    @property
    def is_socks(self) -> bool:
        """Return whether it is a SOCKS proxy."""
        return self.url.startswith("socks")

    @property
    def display_address(self) -> str:
        """Return its address without credentials."""
        if self.problem:
            return "an invalid address"
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" + (" (with credentials)" if parts.username else "")


@dataclass(frozen=True, slots=True)
class Exemption:
    """Entry of `no_proxy`: hosts that are reached directly, at one `port` if it names one."""

    network: IPv4Network | IPv6Network | None = None
    domain: str = ""
    port: int | None = None

    def covers(self, host: str, address: IPv4Address | IPv6Address | None, port: int) -> bool:
        """Return whether it exempts a host, in lower case without a final dot; `address`: the host, if it is one."""
        if self.port not in {None, port}:
            return False
        if self.network is not None or address is not None:
            return self.network is not None and address is not None and address in self.network
        return host == self.domain or host.endswith(f".{self.domain}")


@dataclass(frozen=True)
class Proxies:
    """Proxies for http and https URLs, and the exempt hosts. True if any URL may use a proxy.

    `invalid_entries`: entries of `no_proxy` that cannot be parsed, so exempt nothing.
    """

    by_scheme: Mapping[str, Proxy] = field(default_factory=dict)
    exemptions: tuple[Exemption, ...] = ()
    invalid_entries: tuple[str, ...] = ()
    is_bypassed: BypassCheck = _never_bypassed

    def __bool__(self) -> bool:
        return bool(self.by_scheme)

    def proxy_for(self, url: str) -> Proxy | None:
        """Return the proxy for a URL, None for a direct connection. Raises UsageError if that proxy is invalid."""
        parts = urlsplit(url)
        proxy = self.by_scheme.get(parts.scheme)
        if proxy is None:
            return None
        host, port = (parts.hostname or "").rstrip("."), parts.port or _DEFAULT_PORTS[parts.scheme]
        address = _parse_address(host)
        if self.is_bypassed(host) or any(exemption.covers(host, address, port) for exemption in self.exemptions):
            return None
        _check_usable(proxy)
        return proxy

    def check_usable(self) -> None:
        """Raise UsageError if one of the proxies is invalid."""
        for proxy in self.by_scheme.values():
            _check_usable(proxy)


def read_proxies(
    environ: Mapping[str, str], system: Mapping[str, str] | None = None, is_bypassed: BypassCheck = _never_bypassed
) -> Proxies:
    """Read the proxies of the environment; if it names none, those of the operating system.

    `system`: the proxies of the operating system by scheme; `is_bypassed`: its check for exempt hosts.
    """
    exemptions, invalid_entries = _parse_no_proxy(environ.get("no_proxy") or environ.get("NO_PROXY") or "")
    if exemptions is None:
        return Proxies()
    configured = {
        scheme: proxy for scheme in _SCHEMES if (proxy := _proxy_from_environment(scheme, environ)) is not None
    }
    if configured or not system:
        is_bypassed = _never_bypassed
    else:
        urls = {scheme: system[scheme] for scheme in _SCHEMES if system.get(scheme)}
        configured = {scheme: _parse_proxy(f"the system's {scheme} proxy", url) for scheme, url in urls.items()}
    by_scheme = {
        scheme: proxy
        for scheme in _DEFAULT_PORTS
        if (proxy := configured.get(scheme) or configured.get("all")) is not None
    }
    return Proxies(by_scheme, exemptions, invalid_entries, is_bypassed)


def _proxy_from_environment(scheme: str, environ: Mapping[str, str]) -> Proxy | None:
    lower, upper = f"{scheme}_proxy", f"{scheme}_proxy".upper()
    if lower not in environ and upper == "HTTP_PROXY" and "REQUEST_METHOD" in environ:  # a CGI script (CVE-2016-5385)
        return None
    name = lower if lower in environ else upper
    value = environ.get(name, "").strip()
    return _parse_proxy(name, value) if value else None


def _parse_proxy(setting: str, value: str) -> Proxy:
    url = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return Proxy(setting, "", "is not a valid URL")
    scheme = {"socks5": "socks5h"}.get(parts.scheme, parts.scheme)
    if scheme not in {"http", "https", "socks5h"}:
        return Proxy(setting, "", f"has an unsupported scheme ({scheme}://)")
    if not host or not url.isascii() or not url.isprintable() or " " in url:
        return Proxy(setting, "", "is not a valid URL")
    return Proxy(setting, f"{scheme}://{parts.netloc}")


def _check_usable(proxy: Proxy) -> None:
    if proxy.problem:
        raise UsageError(
            f"the proxy of {proxy.setting} {proxy.problem}",
            hint=f"set {proxy.setting} to http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT, or unset it",
        )


def _parse_no_proxy(text: str) -> tuple[tuple[Exemption, ...] | None, tuple[str, ...]]:
    """Return the entries, None if every host is exempt, and the entries that cannot be parsed."""
    words = [word for word in re.split(r"[,\s]+", text.lower()) if word]
    if "*" in words:
        return None, ()
    parsed = [(word, _parse_exemption(word)) for word in words]
    valid = tuple(exemption for _, exemption in parsed if exemption)
    return valid, tuple(word for word, exemption in parsed if exemption is None)


def _parse_exemption(word: str) -> Exemption | None:
    try:
        return Exemption(ip_network(word, strict=False))
    except ValueError:
        pass
    bracketed = _BRACKETED_HOST.fullmatch(word)
    match = bracketed or _HOST_OR_DOMAIN.fullmatch(word)
    if match is None:
        return None
    host, port = match[1], int(match[2]) if match[2] else None
    try:
        return Exemption(ip_network(host), port=port)
    except ValueError:
        return Exemption(domain=host, port=port) if not bracketed else None


def _parse_address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
