"""SAS link that renews itself: one renewal for all callers, ahead of time, and never to another container."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.clock import FakeClock
from tests.support.simulator import JobOutcome
from tilesync.errors import ExportReplaced, NotAuthorised, Unavailable, UsageError
from tilesync.events import LinkRenewed, Warned
from tilesync.model import SasUrl
from tilesync.transport.renewing_link import RenewingLink

BASE = "https://account.blob.core.windows.net/export"


class Service:
    """Fake service whose links are valid for `life`; `fixed` gives all the same end, `error` is raised instead."""

    def __init__(self, clock: FakeClock, life: float = 3600, *, ahead: float = 0) -> None:
        self.clock = clock
        self.life = timedelta(seconds=life)
        self.ahead = timedelta(seconds=ahead)
        self.calls = 0
        self.fixed: datetime | None = None
        self.error: Exception | None = None
        self.base = BASE
        self.fetch_allowed: asyncio.Event | None = None

    async def fetch(self) -> tuple[SasUrl, datetime | None]:
        self.calls += 1
        self.clock.advance(0.0001)
        if self.fetch_allowed is not None:
            await self.fetch_allowed.wait()
        if self.error is not None:
            raise self.error
        return self.link(), self.clock.now() + self.ahead

    def link(self) -> SasUrl:
        end = self.fixed or self.clock.now() + self.ahead + self.life
        return SasUrl(self.base, f"n={self.calls}&sig=s", end, self.clock.monotonic())


def renewing(service: Service, run: JobOutcome | None = None) -> RenewingLink:
    return RenewingLink(service.fetch, service.clock, run if run is not None else JobOutcome())


async def run_pending_callbacks() -> None:
    """Run the callbacks that are ready."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_concurrent_renewals_cause_one_fetch() -> None:
    """64 workers renew the same stale link at once: one fetch, and all get the new link."""

    async def work() -> None:
        service = Service(FakeClock())
        link = renewing(service)
        stale = await link.current()
        await asyncio.gather(*(link.renew(stale) for _ in range(64)))
        assert service.calls == 2
        assert {(await link.current()).query for _ in range(64)} == {"n=2&sig=s"}

    asyncio.run(work())


def test_renewing_an_old_link_does_nothing() -> None:
    """A late worker with the previous link causes no fetch."""

    async def work() -> None:
        service = Service(FakeClock())
        link = renewing(service)
        stale = await link.current()
        await link.renew(stale)
        for _ in range(10):
            await link.renew(stale)
        assert service.calls == 2

    asyncio.run(work())


def test_failed_renewal_is_raised_to_all() -> None:
    """A renewal on demand that fails raises its error in all waiting callers, after one fetch; the next may succeed."""

    async def work() -> None:
        service = Service(FakeClock())
        link = renewing(service)
        stale = await link.current()
        service.error = Unavailable("no")
        results = await asyncio.gather(*(link.renew(stale) for _ in range(8)), return_exceptions=True)
        assert all(isinstance(result, Unavailable) for result in results)
        assert service.calls == 2
        service.error = None
        await link.renew(stale)
        assert (await link.current()).query == "n=3&sig=s"

    asyncio.run(work())


def test_cancelled_caller_does_not_cancel_the_renewal() -> None:
    """A cancelled worker leaves the fetch to the other waiting ones."""

    async def work() -> None:
        service = Service(FakeClock())
        link = renewing(service)
        stale = await link.current()
        service.fetch_allowed = asyncio.Event()
        first, second = (asyncio.create_task(link.renew(stale)) for _ in range(2))
        await run_pending_callbacks()
        first.cancel()
        await run_pending_callbacks()
        service.fetch_allowed.set()
        await second
        assert service.calls == 2
        assert (await link.current()).query == "n=2&sig=s"

    asyncio.run(work())


@pytest.mark.parametrize(
    ("life", "renewal_s"),
    [(10, 8), (100, 80), (1000, 800), (1500, 1200), (2000, 1700), (3000, 2700), (3600, 3000), (86400, 3000)],
)
def test_renewal_ahead_of_time(life: float, renewal_s: float) -> None:
    """The margin is min(5 minutes, 20 % of the lifetime), and 50 minutes after the fetch at the latest."""

    async def work() -> None:
        clock = FakeClock()
        service = Service(clock, life)
        link = renewing(service)
        await link.current()
        clock.advance(renewal_s - 0.5)
        await link.current()
        await run_pending_callbacks()
        assert service.calls == 1
        clock.advance(0.5)
        await link.current()
        await run_pending_callbacks()
        assert service.calls == 2

    asyncio.run(work())


def test_a_link_without_an_end_is_renewed_after_50_minutes() -> None:
    """Without an end in the query, the service's promise of an hour applies."""

    async def work() -> None:
        clock = FakeClock()
        service = Service(clock)
        link = RenewingLink(service.fetch, clock, JobOutcome())
        link.set_current(SasUrl(BASE, "sig=s"), clock.now())
        clock.advance(2999)
        await link.current()
        await run_pending_callbacks()
        assert service.calls == 0
        assert not link.is_expired(await link.current())
        clock.advance(2)
        await link.current()
        await run_pending_callbacks()
        assert service.calls == 1

    asyncio.run(work())


def test_a_renewal_ahead_of_time_does_not_block() -> None:
    """During a renewal ahead of time the valid link is returned; one fetch for all."""

    async def work() -> None:
        clock = FakeClock()
        service = Service(clock, 100)
        link = renewing(service)
        first = await link.current()
        clock.advance(85)
        service.fetch_allowed = asyncio.Event()
        for _ in range(20):
            assert await link.current() == first
            await run_pending_callbacks()
        assert service.calls == 2
        service.fetch_allowed.set()
        await run_pending_callbacks()
        assert (await link.current()).query == "n=2&sig=s"
        await link.aclose()

    asyncio.run(work())


def test_an_expired_link_is_not_returned() -> None:
    """An expired link is not returned."""

    async def work() -> None:
        clock = FakeClock()
        service = Service(clock, 100)
        link = renewing(service)
        await link.current()
        clock.advance(101)
        links = await asyncio.gather(*(link.current() for _ in range(64)))
        assert {item.query for item in links} == {"n=2&sig=s"}
        assert service.calls == 2

    asyncio.run(work())


def test_a_renewal_that_does_not_move_the_end_is_not_repeated_for_a_minute() -> None:
    """Links with always the same end cause one renewal ahead of time a minute at most."""

    async def work() -> None:
        clock = FakeClock()
        service = Service(clock)
        service.fixed = clock.now() + timedelta(seconds=400)
        link = renewing(service)
        await link.current()
        clock.advance(330)
        await link.current()
        await run_pending_callbacks()
        assert service.calls == 2
        for _ in range(59):
            clock.advance(1)
            await link.current()
            await run_pending_callbacks()
        assert service.calls == 2
        clock.advance(2)
        await link.current()
        await run_pending_callbacks()
        assert service.calls == 3

    asyncio.run(work())


@pytest.mark.parametrize("ahead", [-7200, -3700, -600, 600, 3700, 7200])
def test_server_time_counts(ahead: float) -> None:
    """A link expires and is renewed by the server's time, whatever our clock says."""

    async def work() -> None:
        clock = FakeClock()
        service = Service(clock, 100, ahead=ahead)
        link = renewing(service)
        first = await link.current()
        assert not link.is_expired(first)
        clock.advance(79)
        await link.current()
        await run_pending_callbacks()
        assert service.calls == 1
        clock.advance(22)
        assert link.is_expired(first)
        assert (await link.current()).query == "n=2&sig=s"

    asyncio.run(work())


def test_a_link_to_another_container_is_refused() -> None:
    """A fresh link to another container: NotAuthorised, and the old link stays current."""

    async def work() -> None:
        service = Service(FakeClock())
        link = renewing(service)
        stale = await link.current()
        service.base = BASE + "-other"
        with pytest.raises(NotAuthorised, match="another container"):
            await link.renew(stale)
        assert await link.current() == stale

    asyncio.run(work())


def test_renewal_ahead_of_time_may_fail() -> None:
    """Ahead of time an error is a warning; after the end it is an error."""

    async def work() -> None:
        clock, run = FakeClock(), JobOutcome()
        service = Service(clock, 1000)
        link = renewing(service, run)
        first = await link.current()
        clock.advance(801)
        service.error = Unavailable("down")
        for _ in range(10):
            assert await link.current() == first
            await run_pending_callbacks()
        assert service.calls == 2
        assert len(run.events_of(Warned)) == 1
        clock.advance(70)
        assert await link.current() == first
        await run_pending_callbacks()
        assert service.calls == 3
        clock.advance(200)
        with pytest.raises(Unavailable):
            await link.current()

    asyncio.run(work())


def test_expired_fresh_link_is_not_used() -> None:
    """The previous link is used while it is valid, and a fresh one is fetched at the usual interval."""

    async def work() -> None:
        clock, run = FakeClock(), JobOutcome()
        old, dead, new = (SasUrl(BASE, "sig=s", clock.now() + timedelta(hours=hours)) for hours in (1, 1 / 60, 3))
        given = iter([dead, dead, new])

        async def fetch() -> tuple[SasUrl, datetime | None]:
            return next(given), clock.now()

        link = RenewingLink(fetch, clock, run)
        link.set_current(old, clock.now())
        clock.advance(50 * 60)
        for _ in range(100):
            assert await link.current() is old
            await run_pending_callbacks()
        assert ["already expired" in event.message for event in run.events_of(Warned)] == [True]
        clock.advance(60)
        assert await link.current() is old
        await run_pending_callbacks()
        clock.advance(60)
        await link.current()
        await run_pending_callbacks()
        assert await link.current() is new

    asyncio.run(work())


def test_warning_holds_no_secret() -> None:
    """Neither warning nor renewal event shows a signature."""

    async def work() -> None:
        clock, run = FakeClock(), JobOutcome()
        service = Service(clock, 100)
        link = renewing(service, run)
        stale = await link.current()
        await link.renew(stale)
        assert len(run.events_of(LinkRenewed)) == 1
        assert "sig" not in repr(run.events)
        assert "sig=" not in repr(stale)

    asyncio.run(work())


def test_export_replaced_is_raised() -> None:
    """ExportReplaced of the service is raised unchanged."""

    async def work() -> None:
        service = Service(FakeClock())
        link = renewing(service)
        stale = await link.current()
        service.error = ExportReplaced("gone")
        with pytest.raises(ExportReplaced):
            await link.renew(stale)

    asyncio.run(work())


def test_link_that_cannot_be_renewed() -> None:
    """A bare link raises NotAuthorised with a hint, and is never renewed ahead of time."""

    async def work() -> None:
        clock = FakeClock()
        link = RenewingLink(None, clock, JobOutcome())
        bare = SasUrl(BASE, "sig=s", clock.now() + timedelta(hours=1))
        link.set_current(bare, None)
        clock.advance(3599)
        assert await link.current() == bare
        with pytest.raises(NotAuthorised) as caught:
            await link.renew(bare)
        assert "--link-command" in caught.value.hint
        assert "13:00:00" in str(caught.value)

    asyncio.run(work())


def test_link_without_tls_is_refused() -> None:
    """Http is allowed to this machine only: a signature is never sent without TLS."""
    link = RenewingLink(None, FakeClock(), JobOutcome())
    with pytest.raises(UsageError):
        link.set_current(SasUrl("http://example.com/c", "sig=s"), None)
    link.set_current(SasUrl("http://127.0.0.1:1/c", "sig=s"), None)


def test_closing_stops_a_renewal() -> None:
    """No renewal outlives the run."""

    async def work() -> None:
        clock = FakeClock()
        service = Service(clock, 100)
        link = renewing(service)
        await link.current()
        clock.advance(90)
        service.fetch_allowed = asyncio.Event()
        await link.current()
        await run_pending_callbacks()
        await link.aclose()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(work())


@given(
    life=st.floats(1, 7200), ahead=st.floats(-90000, 90000), steps=st.lists(st.floats(0, 2000), min_size=1, max_size=30)
)
def test_current_link_is_never_expired(life: float, ahead: float, steps: list[float]) -> None:
    """`current` returns a link that is valid by the server's time (within the two seconds of its Date header)."""

    async def work() -> None:
        clock = FakeClock()
        service = Service(clock, life, ahead=ahead)
        link = renewing(service)
        for step in steps:
            given_out = await link.current()
            assert given_out.expires is not None
            assert given_out.expires > clock.now() + service.ahead - timedelta(seconds=2)
            await run_pending_callbacks()
            clock.advance(step)
        assert service.calls <= len(steps) + 1
        await link.aclose()

    asyncio.run(work())
