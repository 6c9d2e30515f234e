"""SAS links to a destination: their hints, and whether they may travel unencrypted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tilesync.errors import LinkRefused, NoFreshLink, NotAuthorised, UsageError
from tilesync.model import SasUrl
from tilesync.stores.azure.sas_link import make_store_link

BASE = "https://account.blob.core.windows.net/tiles"


def link(life: float, base: str = BASE) -> SasUrl:
    """Return a link that expires after this many seconds."""
    return SasUrl(base, "sig=0", expires=datetime.now(UTC) + timedelta(seconds=life))


def refuse(sas: SasUrl) -> None:
    """Refuse a request."""
    raise LinkRefused("the destination refused a.glb (403)")


def test_a_link_without_fetch_cannot_be_renewed() -> None:
    """The hint names a fresh link, or a command that prints one."""
    renewable = make_store_link(None, lambda event: None, first=link(3600))
    assert not renewable.is_due
    with pytest.raises(NotAuthorised) as error:
        renewable.use(refuse)
    assert "--dest-link-command" in error.value.hint
    ended = make_store_link(None, lambda event: None, first=link(-1))
    with pytest.raises(NoFreshLink, match="has expired"):
        ended.renew(ended.current())


def test_a_link_to_another_container_is_refused() -> None:
    """A renewed link must lead to the container of the first one."""
    renewable = make_store_link(lambda: link(3600, BASE + "2"), lambda event: None, first=link(3600))
    with pytest.raises(NotAuthorised, match="another container"):
        renewable.renew(renewable.current())


def test_a_signature_is_not_sent_unencrypted() -> None:
    """Plain http is for loopback only, unless the user allows it."""
    first = link(3600, base="http://host/tiles")
    with pytest.raises(UsageError):
        make_store_link(None, lambda event: None, first=first)
    assert make_store_link(None, lambda event: None, first=first, allow_http=True).current() is first
