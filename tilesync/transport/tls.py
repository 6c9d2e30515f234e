"""Settings of all HTTP clients: trusted certificate authorities, proxies and the User-Agent."""

from __future__ import annotations

import os
import ssl
import sys

from tilesync.transport.proxies import Proxies, read_proxies


def create_tls_context() -> ssl.SSLContext:
    """Create a TLS context that trusts SSL_CERT_FILE and SSL_CERT_DIR, else the system's or certifi's authorities."""
    context = ssl.create_default_context()
    if not (context.get_ca_certs() or _has_certificates(ssl.get_default_verify_paths())):
        context.load_verify_locations(cadata=fallback_ca_bundle().decode("ascii"))
    return context


def create_empty_tls_context() -> ssl.SSLContext:
    """Create a TLS context that trusts no authority, for plain HTTP: to load the system's takes 40 ms."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _has_certificates(paths: ssl.DefaultVerifyPaths) -> bool:
    """Return whether the folder of OpenSSL holds certificates; OpenSSL reads it only when it needs one."""
    return bool(paths.capath and os.path.isdir(paths.capath) and os.listdir(paths.capath))


def fallback_ca_bundle() -> bytes:
    """Return certifi's authorities (PEM), for a machine that has none."""
    import certifi

    return certifi.contents().encode("ascii")


def load_proxies() -> Proxies:
    """Load the proxies of the environment; if it names none, those of the system (macOS and Windows)."""
    if sys.platform not in {"darwin", "win32"}:  # elsewhere urllib reads the environment too; it takes 15 ms to load
        return read_proxies(os.environ)
    from urllib.request import getproxies, proxy_bypass

    return read_proxies(os.environ, getproxies(), proxy_bypass)


def user_agent() -> str:
    """Return the User-Agent of tilesync."""
    from tilesync import __version__

    return f"tilesync/{__version__}"
