"""What a request says of itself."""

from __future__ import annotations

from tilesync.wire.blocking import Send


def test_a_request_is_silent() -> None:
    """Its representation holds neither the signature of its URL nor that of a source that it names."""
    send = Send("PUT", "https://a.net/c/b?sig=SECRET", {"x-ms-copy-source": "https://a.net/c/a?sig=SECRET"}, b"SECRET")
    assert "SECRET" not in f"{send!r} {send}"
