"""What of this machine stands between tilesync and the servers: proxies, and whom it trusts."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path

from tilesync.doctor.result import CheckResult, CheckStatus, join_some
from tilesync.transport import tls as trust
from tilesync.transport.tls import create_tls_context


def check_proxies(environ: Mapping[str, str] = os.environ) -> CheckResult:
    """The proxies that are used, with the variable that names each; never what is secret in their addresses. Raises
    UsageError for one that cannot be used.
    """
    found = trust.load_proxies()
    named = dict.fromkeys(f"{proxy.setting}: {proxy.display_address}" for proxy in found.by_scheme.values())
    spared = environ.get("no_proxy") or environ.get("NO_PROXY")
    if not named:
        return CheckResult("no proxy is used")
    found.check_usable()
    said = "; ".join(named) + (f"; not for {spared}" if spared else "")
    if found.invalid_entries:
        what = f"{said}; these entries cannot be read, and spare nothing: {join_some(found.invalid_entries)}"
        hint = "NO_PROXY takes names, addresses and CIDR blocks, each also with :PORT, parted by commas; and *"
        return CheckResult(what, CheckStatus.WARN, hint)
    return CheckResult(said)


def check_authorities(environ: Mapping[str, str] = os.environ) -> CheckResult:
    """Whose certificates are believed, as `roots` finds them."""
    lost = [
        f"{name}={environ[name]}" for name in _CA_VARIABLES if environ.get(name) and not Path(environ[name]).exists()
    ]
    paths = ssl.get_default_verify_paths()
    named = [f"{name}={environ[name]}" for name in _CA_VARIABLES if environ.get(name)]
    usual = [str(path) for path in (paths.cafile, paths.capath) if path]
    count = len(create_tls_context().get_ca_certs())
    found = " and ".join(named or usual or ["certifi's bundle"]) + (f" ({count} authorities)" if count else "")
    if lost:
        return CheckResult(
            f"{' and '.join(lost)}: there is no such file",
            CheckStatus.WARN,
            f"correct or unset {_join_setting_names(lost)}",
        )
    return CheckResult(found)


def _join_setting_names(settings: list[str]) -> str:
    return " and ".join(setting.partition("=")[0] for setting in settings)


_CA_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
