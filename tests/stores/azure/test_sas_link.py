"""The link to a destination: renewed once for all, from any thread."""

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
    """A link that lives for so many seconds from now on."""
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


def test_many_who_ask_cause_one_fetch() -> None:
    """Threads that come for the first link get the same one."""
    mint = LinkFactory()
    signed = RenewableSasLink(mint, lambda event: None)
    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(lambda _: signed.current().query, range(64)))
    assert (found, mint.count) == ({"sig=1"}, 1)


def test_one_that_is_due_is_renewed_once() -> None:
    """Ahead of its end one thread fetches; the others go on with the old one meanwhile."""
    heard: list[Event] = []
    mint = LinkFactory()
    signed = RenewableSasLink(mint, heard.append, first=link(0.4))
    assert not signed.is_due
    time.sleep(0.34)
    assert signed.is_due
    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(lambda _: signed.current().query, range(64)))
    assert mint.count == 1
    assert found <= {"sig=0", "sig=1"}
    assert [type(event) for event in heard] == [LinkRenewed]


def test_a_failure_ahead_of_time_is_a_warning() -> None:
    """The link lives on, and is used; who comes past its end hears the error."""
    heard: list[Event] = []
    signed = RenewableSasLink(LinkFactory(fails=Unavailable("no answer")), heard.append, first=link(0.4))
    time.sleep(0.34)
    assert signed.current().query == "sig=0"
    assert [type(event) for event in heard] == [Warned]
    time.sleep(0.1)
    with pytest.raises(Unavailable):
        signed.renew(signed.current())


def test_a_refusal_is_final_through_a_fresh_link() -> None:
    """The first 403 fetches another link, the next one is not the link's fault."""
    mint = LinkFactory()
    signed = RenewableSasLink(mint, lambda event: None, first=link(3600))
    old = signed.current()
    signed.handle_refusal(old, REFUSAL, was_fresh=False)
    signed.handle_refusal(old, REFUSAL, was_fresh=False)  # another thread, that had the old one
    assert (mint.count, signed.current().query) == (1, "sig=1")
    with pytest.raises(NotAuthorised, match="through a fresh link"):
        signed.handle_refusal(signed.current(), REFUSAL, was_fresh=True)


def test_fresh_links_that_have_ended_are_no_refusal() -> None:
    """Where each link is expired on arrival there is another try."""
    mint = LinkFactory(-1)
    signed = RenewableSasLink(mint, lambda event: None, first=link(-5))
    signed.handle_refusal(signed.current(), REFUSAL, was_fresh=True)
    assert mint.count >= 1


def test_without_a_way_to_another_its_end_is_the_end() -> None:
    """What to do is said: a fresh link, or a command."""
    signed = RenewableSasLink(None, lambda event: None, first=link(3600))
    assert not signed.is_due
    with pytest.raises(NotAuthorised) as error:
        signed.handle_refusal(signed.current(), REFUSAL, was_fresh=False)
    assert "--dest-link-command" in error.value.hint
    ended = RenewableSasLink(None, lambda event: None, first=link(-1))
    with pytest.raises(NoFreshLink, match="has expired"):
        ended.renew(ended._link)


def test_a_link_to_another_container_is_refused() -> None:
    """A run keeps to the container that it began with."""
    signed = RenewableSasLink(LinkFactory(base=BASE + "2"), lambda event: None, first=link(3600))
    with pytest.raises(NotAuthorised, match="another container"):
        signed.renew(signed.current())


def test_a_signature_does_not_travel_in_clear() -> None:
    """Plain http is for this machine only."""
    with pytest.raises(UsageError):
        RenewableSasLink(None, lambda event: None, first=link(3600, base="http://host/tiles"))


def not_yet_valid_link(seconds: float, *, life: float = 3600) -> SasUrl:
    """A link that becomes valid so many seconds from now."""
    begin = datetime.now(UTC) + timedelta(seconds=seconds)
    made = link(life, 1)
    return SasUrl(made.base, f"{made.query}&st={begin:%Y-%m-%dT%H:%M:%S.%fZ}", expires=made.expires)


def test_a_link_that_is_not_valid_yet_is_waited_for() -> None:
    """A refusal before its beginning is no final one: it says after how many seconds to ask again."""
    first = not_yet_valid_link(30)
    signed = RenewableSasLink(None, lambda event: None, first=first)
    with pytest.raises(Transient) as error:
        signed.handle_refusal(first, REFUSAL, was_fresh=True)
    assert error.value.retry_after is not None
    assert 25 < error.value.retry_after <= 30


def test_the_old_link_is_used_until_the_new_one_is_valid() -> None:
    """A link that is renewed ahead of time and begins later takes its place only then."""
    made = [lambda: not_yet_valid_link(0.5), lambda: link(3600, 2)]
    first = link(6.0)
    signed = RenewableSasLink(lambda: made.pop(0)(), lambda event: None, first=first)
    time.sleep(4.9)
    assert signed.is_due
    assert signed.current() is first
    assert not signed.is_due
    time.sleep(0.6)
    assert signed.current().query == "sig=2"
