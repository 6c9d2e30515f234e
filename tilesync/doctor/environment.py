"""What of this machine stands between tilesync and the servers: proxies, and whom it trusts."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path

from tilesync.doctor.result import Result, Said, some
from tilesync.transport import tls as trust
from tilesync.transport.tls import roots


def proxies(environ: Mapping[str, str] = os.environ) -> Said:
    """The proxies that are used, with the variable that names each; never what is secret in their addresses. Raises
    UsageError for one that cannot be used.
    """
    found = trust.proxies()
    named = dict.fromkeys(f"{proxy.setting}: {proxy.shown}" for proxy in found.by_scheme.values())
    spared = environ.get("no_proxy") or environ.get("NO_PROXY")
    if not named:
        return Said("no proxy is used")
    found.demand_usable()
    said = "; ".join(named) + (f"; not for {spared}" if spared else "")
    if found.unread:
        what = f"{said}; these entries cannot be read, and spare nothing: {some(found.unread)}"
        hint = "NO_PROXY takes names, addresses and CIDR blocks, each also with :PORT, parted by commas; and *"
        return Said(what, Result.WARN, hint)
    return Said(said)


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
