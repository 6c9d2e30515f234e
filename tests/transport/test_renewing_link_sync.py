"""SAS link that renews itself, from any thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from tilesync.azure.link_state import Instant, LinkState, LinkTexts
from tilesync.errors import LinkRefused, NotAuthorised, Unavailable
from tilesync.events import Event, LinkRenewed, Notice, Warned
from tilesync.model import SasUrl
from tilesync.runtime.threads import run_in_thread
from tilesync.transport import renewing_link_sync
from tilesync.transport.renewing_link_sync import SyncRenewingLink

BASE = "https://account.blob.core.windows.net/tiles"
REFUSAL = LinkRefused("the destination refused a.glb (403)")


def link(life: float, number: int = 0, base: str = BASE) -> SasUrl:
    """Return a link that expires after this many seconds."""
    end = datetime.now(UTC) + timedelta(seconds=life)
    return SasUrl(base, f"sig={number}", expires=end, fetched_at_s=time.monotonic())


def renewing(
    fetch: Callable[[], SasUrl] | None,
    observe: Callable[[Event], None] = lambda event: None,
    *,
    first: SasUrl | None = None,
    budget_s: float = 0.0,
) -> SyncRenewingLink:
    """Return a link that renews itself."""
    state = LinkState(observe, can_renew=fetch is not None, texts=LinkTexts(), budget_s=budget_s)
    return SyncRenewingLink(fetch, state, first=first)


def refuse(sas: SasUrl) -> None:
    """Refuse a request."""
    raise REFUSAL


@pytest.fixture
def advance(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Advance the clock of the links by seconds."""
    passed, now = [0.0], renewing_link_sync._now

    def later() -> Instant:
        at = now()
        return Instant(at.utc + timedelta(seconds=passed[0]), at.monotonic_s + passed[0])

    def advance(seconds: float) -> None:
        passed[0] += seconds

    monkeypatch.setattr(renewing_link_sync, "_now", later)
    return advance


class LinkFactory:
    """Fetches links with a given lifetime, and counts them."""

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
    renewable = renewing(factory)
    with ThreadPoolExecutor(16) as pool:
        result = set(pool.map(lambda _: renewable.current().query, range(64)))
    assert (result, factory.count) == ({"sig=1"}, 1)


def test_a_due_link_is_renewed_once(advance: Callable[[float], None]) -> None:
    """Before a link expires one thread renews it; the others use the old one meanwhile."""
    events: list[Event] = []
    factory = LinkFactory()
    renewable = renewing(factory, events.append, first=link(400))
    assert not renewable.is_due
    advance(340)
    assert renewable.is_due
    with ThreadPoolExecutor(16) as pool:
        result = set(pool.map(lambda _: renewable.current().query, range(64)))
    assert factory.count == 1
    assert result <= {"sig=0", "sig=1"}
    assert [type(event) for event in events] == [LinkRenewed]


def test_a_failed_early_renewal_is_a_warning(advance: Callable[[float], None]) -> None:
    """The link is still used; only after it expires the error is raised."""
    events: list[Event] = []
    renewable = renewing(LinkFactory(fails=Unavailable("no answer")), events.append, first=link(1000))
    advance(850)
    assert renewable.current().query == "sig=0"
    assert [type(event) for event in events] == [Warned]
    advance(200)
    with pytest.raises(Unavailable):
        renewable.renew(renewable.current())


def test_a_refused_fresh_link_is_final() -> None:
    """The first 403 renews the link; a 403 for the fresh link is final."""
    factory, tried = LinkFactory(), list[str]()

    def attempt(sas: SasUrl) -> None:
        tried.append(sas.query)
        raise REFUSAL

    renewable = renewing(factory, first=link(3600))
    with pytest.raises(NotAuthorised, match="through a fresh link"):
        renewable.use(attempt)
    assert tried == ["sig=0", "sig=1"]


def test_an_old_link_is_not_renewed_again() -> None:
    """A thread that is late with the old link causes no fetch."""
    factory = LinkFactory()
    renewable = renewing(factory, first=link(3600))
    old = renewable.current()
    renewable.renew(old)
    renewable.renew(old)
    assert (factory.count, renewable.current().query) == (1, "sig=1")


def test_expired_fresh_links_are_retried() -> None:
    """A fresh link that has already expired is replaced again, a few times."""
    factory = LinkFactory(-1)
    with pytest.raises(NotAuthorised) as error:
        renewing(factory, first=link(-5)).use(refuse)
    assert 1 <= factory.count <= 10
    assert "clock" in error.value.hint


def test_coroutines_use_the_same_link() -> None:
    """A coroutine renews a refused link in a thread, and stops waiting for it when it is cancelled."""

    async def attempt(sas: SasUrl) -> str:
        if sas.query == "sig=0":
            raise REFUSAL
        return sas.query

    async def work() -> None:
        renewable = renewing(LinkFactory(), first=link(3600))
        assert await renewable.use_async(attempt) == "sig=1"
        assert await renewable.current_async() is renewable.current()
        late = not_yet_valid_link(30)
        waiting = asyncio.create_task(run_in_thread(renewing(None, first=late, budget_s=60).use, refuse))
        await asyncio.sleep(0.1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    started_at = time.monotonic()
    asyncio.run(work())
    assert time.monotonic() - started_at < 10


def not_yet_valid_link(seconds: float, *, life: float = 3600) -> SasUrl:
    """Return a link that becomes valid after this many seconds."""
    start = datetime.now(UTC) + timedelta(seconds=seconds)
    made = link(life, 1)
    return SasUrl(made.base, f"{made.query}&st={start:%Y-%m-%dT%H:%M:%S.%fZ}", expires=made.expires)


def test_a_link_not_yet_valid_is_waited_for() -> None:
    """A 403 before the start of a link is waited for, and reported once with its seconds."""
    events: list[Event] = []
    first = not_yet_valid_link(0.7)
    starts_at = time.monotonic() + 0.7

    def attempt(sas: SasUrl) -> SasUrl:
        if time.monotonic() < starts_at:
            raise REFUSAL
        return sas

    assert renewing(None, events.append, first=first, budget_s=60).use(attempt) is first
    (notice,) = events
    assert isinstance(notice, Notice)
    assert "in 1 s; waiting for it" in notice.message


def test_the_old_link_is_used_until_the_new_one_is_valid(advance: Callable[[float], None]) -> None:
    """A renewed link that becomes valid later replaces the old one only then."""
    first = link(6000)
    renewable = renewing(lambda: not_yet_valid_link(4900 + 500, life=36_000), first=first)
    advance(4900)
    assert renewable.is_due
    assert renewable.current() is first
    assert not renewable.is_due
    advance(600)
    assert renewable.current().query.startswith("sig=1&st=")
