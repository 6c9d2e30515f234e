"""Authorities of certificates, for both clients."""

from __future__ import annotations

import ssl

import trustme

from tests.support.both_clients import HELLO, fetch_by_both_clients
from tests.support.http_server import RecordingServer, answer, serving


def test_ssl_cert_file(secure: RecordingServer, bundle: str) -> None:
    """Both clients trust the authorities of SSL_CERT_FILE."""
    assert fetch_by_both_clients(secure.url("/?sig=SECRET"), SSL_CERT_FILE=bundle) == HELLO


def test_unknown_authorities_are_refused(secure: RecordingServer) -> None:
    """Without SSL_CERT_FILE both clients refuse a server of an unknown authority, and send it no request."""
    result = fetch_by_both_clients(secure.url("/?sig=SECRET"))
    assert (result["api"][0], result["blob"][0]) == ("Unavailable", "Transient")
    assert "certificate" in result["api"][1].lower()
    assert "certificate" in result["blob"][1].lower() or "issuer" in result["blob"][1].lower()
    assert secure.paths == []


def test_certificate_for_another_name(authority: trustme.CA, bundle: str) -> None:
    """Both clients refuse a certificate for another name, although its authority is trusted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("elsewhere.invalid").configure_cert(context)
    with serving(answer(), context) as server:
        result = fetch_by_both_clients(server.url("/?sig=SECRET", "localhost"), SSL_CERT_FILE=bundle)
        assert (result["api"][0], result["blob"][0]) == ("Unavailable", "Transient")
        assert server.paths == []
