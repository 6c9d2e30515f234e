"""Settings that all HTTP engines share: trusted authorities, proxies, and the User-Agent."""

from __future__ import annotations

import os
import ssl

from tilesync.transport.proxies import Proxies, read_proxies


def create_tls_context() -> ssl.SSLContext:
    """A context that trusts SSL_CERT_FILE and SSL_CERT_DIR, else the system's authorities, else certifi's."""
    context = ssl.create_default_context()
    if not (context.get_ca_certs() or _has_certificates(ssl.get_default_verify_paths())):
        context.load_verify_locations(cadata=fallback_ca_bundle().decode("ascii"))
    return context


def _has_certificates(paths: ssl.DefaultVerifyPaths) -> bool:
    """Whether OpenSSL would find authorities in its folder, which it reads only when it needs one."""
    return bool(paths.capath and os.path.isdir(paths.capath) and os.listdir(paths.capath))


def fallback_ca_bundle() -> bytes:
    """Certifi's authorities (PEM), for a machine that has none of its own."""
    import certifi

    return certifi.contents().encode("ascii")


def load_proxies() -> Proxies:
    """The proxies of the environment; on macOS and Windows those of the system where no variable names one."""
    from urllib.request import getproxies, proxy_bypass

    return read_proxies(os.environ, getproxies(), proxy_bypass)


def user_agent() -> str:
    """How tilesync names itself to servers."""
    from tilesync import __version__

    return f"tilesync/{__version__}"
