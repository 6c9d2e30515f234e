"""What a request says of itself."""

from __future__ import annotations

from datetime import timedelta
from threading import Event

import pytest

from tests.transport.test_api_client import full_backlog, hang, serving
from tilesync.errors import Transient
from tilesync.transport import blob_client as bulk
from tilesync.transport.blob_client_sync import SyncBlobRequest, open_sync_client


def test_a_request_is_silent() -> None:
    """Its representation holds neither the signature of its URL nor that of a source that it names."""
    send = SyncBlobRequest(
        "PUT", "https://a.net/c/b?sig=SECRET", {"x-ms-copy-source": "https://a.net/c/a?sig=SECRET"}, b"SECRET"
    )
    assert "SECRET" not in f"{send!r} {send}"


def failure(send: SyncBlobRequest) -> str:
    """Why one attempt failed."""
    with (
        open_sync_client(lambda event: None, budget=timedelta()) as store,
        pytest.raises(Transient) as error,
        store.send_once(send),
    ):
        pass
    return str(error.value)


def test_a_limit_of_its_own_is_told() -> None:
    """An answer that does not come within the time of its request is told with that time."""
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
def test_a_connection_that_is_not_made(body: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that does not answer at all is told with the limit that connections have."""
    monkeypatch.setattr(bulk, "CONNECT_TIMEOUT", timedelta(seconds=1))
    with full_backlog() as url:
        assert failure(SyncBlobRequest("POST", url, {}, body)) == "no connection within 1 s"
