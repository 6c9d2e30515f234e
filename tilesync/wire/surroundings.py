"""What of this machine stands between tilesync and the servers: proxies, and whom it trusts."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from tilesync.rules.checks import Result, Said
from tilesync.wire.trust import roots

SCHEMES = ("https", "http", "all")


def proxies(environ: Mapping[str, str] = os.environ) -> Said:
    """The proxies that are used, with the variable that names each; never what is secret in their addresses."""
    found = getproxies()
    named = [f"{_variable(scheme, environ)}: {_shown(found[scheme])}" for scheme in SCHEMES if found.get(scheme)]
    spared = environ.get("no_proxy") or environ.get("NO_PROXY")
    if not named:
        return Said("no proxy is set")
    return Said("; ".join(named) + (f"; not for {spared}" if spared else ""))


def _variable(scheme: str, environ: Mapping[str, str]) -> str:
    names = (f"{scheme}_proxy", f"{scheme}_proxy".upper())
    return next((name for name in names if environ.get(name)), f"the system's {scheme} proxy")


def _shown(proxy: str) -> str:
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an address that cannot be read"
    return f"{parts.scheme}://{parts.hostname or ''}{port}" + (" (with credentials)" if parts.username else "")


def authorities(environ: Mapping[str, str] = os.environ) -> Said:
    """Whose certificates are believed, as `roots` finds them."""
    lost = [f"{name}={environ[name]}" for name in _VARIABLES if environ.get(name) and not Path(environ[name]).exists()]
    paths = ssl.get_default_verify_paths()
    named = [f"{name}={environ[name]}" for name in _VARIABLES if environ.get(name)]
    usual = [str(path) for path in (paths.cafile, paths.capath) if path]
    count = len(roots().get_ca_certs())
    found = " and ".join(named or usual or ["certifi's bundle"]) + (f" ({count} authorities)" if count else "")
    if lost:
        return Said(f"{' and '.join(lost)}: there is no such file", Result.WARN, f"correct or unset {_names(lost)}")
    return Said(found)


def _names(settings: list[str]) -> str:
    return " and ".join(setting.partition("=")[0] for setting in settings)


_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
