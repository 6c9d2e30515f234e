"""Blocking blob client: secrets in requests, and timeouts."""

from __future__ import annotations

from datetime import timedelta
from threading import Event

import pytest

from tests.support.http_server import full_backlog, hang, serving
from tilesync.errors import Transient
from tilesync.transport import blob_client
from tilesync.transport.blob_client_sync import SyncBlobRequest, open_sync_client


def test_request_repr_holds_no_secret() -> None:
    """Its representation shows neither the signature of its URL nor that of a copy source."""
    send = SyncBlobRequest(
        "PUT", "https://a.net/c/b?sig=SECRET", {"x-ms-copy-source": "https://a.net/c/a?sig=SECRET"}, b"SECRET"
    )
    assert "SECRET" not in f"{send!r} {send}"


def failure(send: SyncBlobRequest) -> str:
    """Return the message of one failed attempt."""
    with (
        open_sync_client(lambda event: None, budget=timedelta()) as store,
        pytest.raises(Transient) as error,
        store.send_once(send),
    ):
        pass
    return str(error.value)


def test_timeout_of_a_request() -> None:
    """A response that exceeds the timeout of its request is reported with that timeout."""
    over = Event()
    with serving(hang(b"", over)) as server:
        try:
            assert (
                failure(SyncBlobRequest("POST", server.url(), {}, b"x", timeout=timedelta(seconds=1)))
                == "no bytes within 1 s"
            )
        finally:
            over.set()


@pytest.mark.parametrize("body", [None, b"x"])
def test_connect_timeout(body: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that accepts no connection is reported with the connect timeout."""
    monkeypatch.setattr(blob_client, "CONNECT_TIMEOUT", timedelta(seconds=1))
    with full_backlog() as url:
        assert failure(SyncBlobRequest("POST", url, {}, body)) == "no connection within 1 s"
