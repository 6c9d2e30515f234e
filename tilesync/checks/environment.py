"""Environment checks: the proxies of this machine, and the certificate authorities that it trusts."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path

from tilesync.checks.result import CheckResult, CheckStatus, join_some
from tilesync.transport.tls import create_tls_context, load_proxies


def check_proxies(environ: Mapping[str, str] = os.environ) -> CheckResult:
    """Report the proxies in use, with the variable that names each; never the secrets in their addresses.

    Raises UsageError for a proxy that cannot be used.
    """
    proxies = load_proxies()
    named = dict.fromkeys(f"{proxy.setting}: {proxy.display_address}" for proxy in proxies.by_scheme.values())
    no_proxy = environ.get("no_proxy") or environ.get("NO_PROXY")
    if not named:
        return CheckResult("no proxy is used")
    proxies.check_usable()
    message = "; ".join(named) + (f"; not for {no_proxy}" if no_proxy else "")
    if proxies.invalid_entries:
        warning = (
            f"{message}; these NO_PROXY entries are invalid and have no effect: {join_some(proxies.invalid_entries)}"
        )
        hint = (
            "NO_PROXY takes names, addresses and CIDR blocks, each with an optional :PORT, separated by commas; and *"
        )
        return CheckResult(warning, CheckStatus.WARN, hint)
    return CheckResult(message)


def check_authorities(environ: Mapping[str, str] = os.environ) -> CheckResult:
    """Report which certificate authorities are trusted, and the source of the list."""
    missing = [
        f"{name}={environ[name]}" for name in _CA_VARIABLES if environ.get(name) and not Path(environ[name]).exists()
    ]
    paths = ssl.get_default_verify_paths()
    named = [f"{name}={environ[name]}" for name in _CA_VARIABLES if environ.get(name)]
    defaults = [str(path) for path in (paths.cafile, paths.capath) if path]
    count = len(create_tls_context().get_ca_certs())
    message = " and ".join(named or defaults or ["certifi's bundle"]) + (f" ({count} authorities)" if count else "")
    if missing:
        return CheckResult(
            f"{' and '.join(missing)}: this file does not exist",
            CheckStatus.WARN,
            f"correct or unset {_join_setting_names(missing)}",
        )
    return CheckResult(message)


def _join_setting_names(settings: list[str]) -> str:
    return " and ".join(setting.partition("=")[0] for setting in settings)


_CA_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
