"""A SAS link that renews itself, from any thread."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from tilesync.errors import LinkRefused, NoFreshLink, NotAuthorised, Transient, Unavailable, UsageError
from tilesync.events import Event, LinkRenewed, Warned
from tilesync.model import SasUrl
from tilesync.stores.azure.sas_link import RenewableSasLink

BASE = "https://account.blob.core.windows.net/tiles"
REFUSAL = LinkRefused("the destination refused a.glb (403)")


def link(life: float, number: int = 0, base: str = BASE) -> SasUrl:
    """Return a link that expires after this many seconds."""
    end = datetime.now(UTC) + timedelta(seconds=life)
    return SasUrl(base, f"sig={number}", expires=end)


class LinkFactory:
    """Fetches links of some life, counted."""

    def __init__(self, life: float = 3600, *, fails: Exception | None = None, base: str = BASE) -> None:
        self.life = life
        self.error = fails
        self.base = base
        self.count = 0

    def __call__(self) -> SasUrl:
        self.count += 1
        time.sleep(0.02)
        if self.error is not None:
            raise self.error
        return link(self.life, self.count, self.base)


def test_many_threads_cause_one_fetch() -> None:
    """Threads that need the first link at the same time share one fetch."""
    factory = LinkFactory()
    renewable = RenewableSasLink(factory, lambda event: None)
    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(lambda _: renewable.current().query, range(64)))
    assert (found, factory.count) == ({"sig=1"}, 1)


def test_a_due_link_is_renewed_once() -> None:
    """Before a link expires one thread renews it; the others use the old one meanwhile."""
    events: list[Event] = []
    factory = LinkFactory()
    renewable = RenewableSasLink(factory, events.append, first=link(0.4))
    assert not renewable.is_due
    time.sleep(0.34)
    assert renewable.is_due
    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(lambda _: renewable.current().query, range(64)))
    assert factory.count == 1
    assert found <= {"sig=0", "sig=1"}
    assert [type(event) for event in events] == [LinkRenewed]


def test_a_failed_early_renewal_is_a_warning() -> None:
    """The link is still used; only after it expires the error is raised."""
    events: list[Event] = []
    renewable = RenewableSasLink(LinkFactory(fails=Unavailable("no answer")), events.append, first=link(1.0))
    time.sleep(0.85)
    assert renewable.current().query == "sig=0"
    assert [type(event) for event in events] == [Warned]
    time.sleep(0.2)
    with pytest.raises(Unavailable):
        renewable.renew(renewable.current())


def test_a_refused_fresh_link_is_final() -> None:
    """The first 403 renews the link; a 403 for the fresh link is final."""
    factory = LinkFactory()
    renewable = RenewableSasLink(factory, lambda event: None, first=link(3600))
    old = renewable.current()
    renewable.handle_refusal(old, REFUSAL, was_fresh=False)
    renewable.handle_refusal(old, REFUSAL, was_fresh=False)  # another thread, that had the old one
    assert (factory.count, renewable.current().query) == (1, "sig=1")
    with pytest.raises(NotAuthorised, match="through a fresh link"):
        renewable.handle_refusal(renewable.current(), REFUSAL, was_fresh=True)


def test_expired_fresh_links_are_retried() -> None:
    """A fresh link that is expired on arrival is fetched again."""
    factory = LinkFactory(-1)
    renewable = RenewableSasLink(factory, lambda event: None, first=link(-5))
    renewable.handle_refusal(renewable.current(), REFUSAL, was_fresh=True)
    assert factory.count >= 1


def test_a_link_without_fetch_cannot_be_renewed() -> None:
    """The hint names a fresh link, or a command that prints one."""
    renewable = RenewableSasLink(None, lambda event: None, first=link(3600))
    assert not renewable.is_due
    with pytest.raises(NotAuthorised) as error:
        renewable.handle_refusal(renewable.current(), REFUSAL, was_fresh=False)
    assert "--dest-link-command" in error.value.hint
    ended = RenewableSasLink(None, lambda event: None, first=link(-1))
    with pytest.raises(NoFreshLink, match="has expired"):
        ended.renew(ended._link)


def test_a_link_to_another_container_is_refused() -> None:
    """A renewed link must lead to the container of the first one."""
    renewable = RenewableSasLink(LinkFactory(base=BASE + "2"), lambda event: None, first=link(3600))
    with pytest.raises(NotAuthorised, match="another container"):
        renewable.renew(renewable.current())


def test_a_signature_is_not_sent_unencrypted() -> None:
    """Plain http is for loopback only."""
    with pytest.raises(UsageError):
        RenewableSasLink(None, lambda event: None, first=link(3600, base="http://host/tiles"))


def not_yet_valid_link(seconds: float, *, life: float = 3600) -> SasUrl:
    """Return a link that becomes valid after this many seconds."""
    start = datetime.now(UTC) + timedelta(seconds=seconds)
    made = link(life, 1)
    return SasUrl(made.base, f"{made.query}&st={start:%Y-%m-%dT%H:%M:%S.%fZ}", expires=made.expires)


def test_a_link_not_yet_valid_is_waited_for() -> None:
    """A 403 before the start of a link is transient, and says how many seconds to wait."""
    first = not_yet_valid_link(30)
    renewable = RenewableSasLink(None, lambda event: None, first=first)
    with pytest.raises(Transient) as error:
        renewable.handle_refusal(first, REFUSAL, was_fresh=True)
    assert error.value.retry_after is not None
    assert 25 < error.value.retry_after <= 30


def test_the_old_link_is_used_until_the_new_one_is_valid() -> None:
    """A renewed link that becomes valid later replaces the old one only then."""
    made = [lambda: not_yet_valid_link(0.5), lambda: link(3600, 2)]
    first = link(6.0)
    renewable = RenewableSasLink(lambda: made.pop(0)(), lambda event: None, first=first)
    time.sleep(4.9)
    assert renewable.is_due
    assert renewable.current() is first
    assert not renewable.is_due
    time.sleep(0.6)
    assert renewable.current().query == "sig=2"
