"""Proxy selection: which proxy a URL is asked through, read once from the environment for every HTTP engine.

The engines (httpx, reqwest, obstore, botocore, requests) each read these variables in their own way; they are told the
answer of `Proxies.proxy_for` instead, so that no two requests of a run go different ways. The semantics are those of
curl and of Python's urllib where these agree:

- `http_proxy` and `https_proxy` by the scheme of the URL that is asked, else `all_proxy`. The lower-case name wins over
  the upper-case one, and an empty one switches it off. `HTTP_PROXY` is ignored in a CGI script, where a client can set
  it (CVE-2016-5385).
- A proxy without a scheme speaks http. `socks5://` is read as `socks5h://`: the proxy resolves the names.
- `no_proxy`: entries parted by commas or white space. `*` spares every host. A name spares that host and all below it,
  with or without a leading dot or `*.`; an address or a CIDR block spares addresses that are written so in the URL:
  names are not resolved. `host:port` and `[address]:port` spare that port alone, the scheme's own where the URL has
  none. Case and a dot at the end do not matter. Loopback is not spared unless it is named.

Sources: curl(1), "ENVIRONMENT"; urllib.request.getproxies_environment; golang.org/x/net/http/httpproxy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

from tilesync.errors import UsageError

_SCHEMES: Final = ("https", "http", "all")
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
_BRACKETED_HOST: Final = re.compile(r"\[([^\]]+)\](?::(\d+))?")
_HOST_OR_DOMAIN: Final = re.compile(r"(?:\*?\.)?([^\s:/*\[\]]+?)\.?(?::(\d+))?")


BypassCheck = Callable[[str], object]
"""Whether the settings of the operating system spare a host."""


def _never_bypassed(host: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and the variable that names it. `problem`: why it cannot be used, empty where it can."""

    setting: str
    url: str = field(repr=False)
    problem: str = ""

    @property
    def is_socks(self) -> bool:
        """Whether it speaks SOCKS."""
        return self.url.startswith("socks")

    @property
    def display_address(self) -> str:
        """Its address, without credentials."""
        if self.problem:
            return "an address that cannot be used"
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" + (" (with credentials)" if parts.username else "")


@dataclass(frozen=True, slots=True)
class Exemption:
    """An entry of `no_proxy`: hosts that are asked directly, at one `port` where it names one."""

    network: IPv4Network | IPv6Network | None = None
    domain: str = ""
    port: int | None = None

    def covers(self, host: str, address: IPv4Address | IPv6Address | None, port: int) -> bool:
        """Whether it spares a host, written in small letters without a dot at its end; `address`: where it is one."""
        if self.port not in {None, port}:
            return False
        if self.network is not None or address is not None:
            return self.network is not None and address is not None and address in self.network
        return host == self.domain or host.endswith(f".{self.domain}")


@dataclass(frozen=True)
class Proxies:
    """The proxies for http and https URLs, and the hosts that are asked directly. True where any URL may go through
    one. `unread`: entries of `no_proxy` that spare nothing, as they cannot be read.
    """

    by_scheme: Mapping[str, Proxy] = field(default_factory=dict)
    exemptions: tuple[Exemption, ...] = ()
    invalid_entries: tuple[str, ...] = ()
    is_bypassed: BypassCheck = _never_bypassed

    def __bool__(self) -> bool:
        return bool(self.by_scheme)

    def proxy_for(self, url: str) -> Proxy | None:
        """The proxy that a URL is asked through; None: directly. Raises UsageError where that proxy cannot be used."""
        parts = urlsplit(url)
        proxy = self.by_scheme.get(parts.scheme)
        if proxy is None:
            return None
        host, port = (parts.hostname or "").rstrip("."), parts.port or _DEFAULT_PORTS[parts.scheme]
        address = _parse_address(host)
        if self.is_bypassed(host) or any(each.covers(host, address, port) for each in self.exemptions):
            return None
        _check_usable(proxy)
        return proxy

    def check_usable(self) -> None:
        """Raise UsageError where a proxy that is named cannot be used."""
        for proxy in self.by_scheme.values():
            _check_usable(proxy)


def read_proxies(
    environ: Mapping[str, str], system: Mapping[str, str] | None = None, is_bypassed: BypassCheck = _never_bypassed
) -> Proxies:
    """The proxies that the environment names; where it names none, those of the operating system (`system`: by their
    schemes), which spares the hosts that are `bypassed`.
    """
    exemptions, unread = _parse_no_proxy(environ.get("no_proxy") or environ.get("NO_PROXY") or "")
    if exemptions is None:
        return Proxies()
    named = {scheme: proxy for scheme in _SCHEMES if (proxy := _proxy_from_environment(scheme, environ)) is not None}
    if named or not system:
        is_bypassed = _never_bypassed
    else:
        found = {scheme: system[scheme] for scheme in _SCHEMES if system.get(scheme)}
        named = {scheme: _parse_proxy(f"the system's {scheme} proxy", url) for scheme, url in found.items()}
    both = {scheme: proxy for scheme in _DEFAULT_PORTS if (proxy := named.get(scheme) or named.get("all")) is not None}
    return Proxies(both, exemptions, unread, is_bypassed)


def _proxy_from_environment(scheme: str, environ: Mapping[str, str]) -> Proxy | None:
    lower, upper = f"{scheme}_proxy", f"{scheme}_proxy".upper()
    if lower not in environ and upper == "HTTP_PROXY" and "REQUEST_METHOD" in environ:
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
        return Proxy(setting, "", "is no URL")
    scheme = {"socks5": "socks5h"}.get(parts.scheme, parts.scheme)
    if scheme not in {"http", "https", "socks5h"}:
        return Proxy(setting, "", f"is of a kind that is not known ({scheme}://)")
    if not host or not url.isascii() or not url.isprintable() or " " in url:
        return Proxy(setting, "", "is no URL")
    return Proxy(setting, f"{scheme}://{parts.netloc}")


def _check_usable(proxy: Proxy) -> None:
    if proxy.problem:
        raise UsageError(
            f"the proxy of {proxy.setting} {proxy.problem}",
            hint=f"set {proxy.setting} to http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT, or unset it",
        )


def _parse_no_proxy(text: str) -> tuple[tuple[Exemption, ...] | None, tuple[str, ...]]:
    """The entries, and those that cannot be read; None where every host is spared."""
    words = [word for word in re.split(r"[,\s]+", text.lower()) if word]
    if "*" in words:
        return None, ()
    read = [(word, _parse_exemption(word)) for word in words]
    return tuple(each for _, each in read if each), tuple(word for word, each in read if each is None)


def _parse_exemption(word: str) -> Exemption | None:
    try:
        return Exemption(ip_network(word, strict=False))
    except ValueError:
        pass
    bracketed = _BRACKETED_HOST.fullmatch(word)
    found = bracketed or _HOST_OR_DOMAIN.fullmatch(word)
    if found is None:
        return None
    host, port = found[1], int(found[2]) if found[2] else None
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
