"""Authorities of certificates, for both clients."""

from __future__ import annotations

import ssl

import pytest
import trustme

from tests.support.api_requests import request_once
from tests.support.both_clients import HELLO, fetch_by_both_clients
from tests.support.http1_pools import Run, fetch_all
from tests.support.http_server import RecordingServer, answer, serving
from tilesync.transport.http1_pool import PoolRequest
from tilesync.transport.tls import create_empty_tls_context


class LoadedAuthorities(Exception):
    """The authorities of the system were loaded."""


@pytest.fixture
def without_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse to load the authorities of the system."""

    def refuse(*_: object) -> None:
        raise LoadedAuthorities

    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", refuse)


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


@pytest.mark.usefixtures("without_authorities")
def test_plain_http_loads_no_authorities(with_pool: Run, secure: RecordingServer) -> None:
    """Authorities are loaded for TLS only, by the API client and by the pool."""
    assert request_once(answer())[0] == (200, b"hello")
    with serving(answer()) as server:
        (response,) = with_pool(lambda pool: fetch_all(pool, [PoolRequest(server.url(), {}, 5)]))
    assert response is not None
    with pytest.raises(LoadedAuthorities):
        with_pool(lambda pool: fetch_all(pool, [PoolRequest(secure.url(), {}, 5)]))


def test_an_empty_context_trusts_nobody() -> None:
    """A context without authorities refuses every certificate."""
    context = create_empty_tls_context()
    assert (context.verify_mode, context.check_hostname, context.get_ca_certs()) == (ssl.CERT_REQUIRED, True, [])
