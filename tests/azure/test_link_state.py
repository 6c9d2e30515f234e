"""State of a link that renews itself, on a clock of the test."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.support.clock import FakeClock
from tilesync.azure.link_state import VALIDITY_RETRY_S, Instant, LinkRefusals, LinkState, LinkTexts, Renewal
from tilesync.azure.sas import parse_sas_link
from tilesync.errors import LinkRefused, NoFreshLink, NotAuthorised, Unavailable
from tilesync.events import Event, Notice
from tilesync.model import SasUrl

HOUR = timedelta(hours=1)
REFUSAL = LinkRefused("the container refused a.glb (403)", hint="read the manual")


class LinkFixture:
    """One link on a fake clock, whose waits have a budget of a minute."""

    def __init__(self, *, can_renew: bool = True) -> None:
        self.clock = FakeClock()
        self.events: list[Event] = []
        self.state = LinkState(self.events.append, can_renew=can_renew, texts=LinkTexts(), budget_s=60.0)

    @property
    def now(self) -> Instant:
        return Instant(self.clock.now(), self.clock.monotonic())

    def make(self, *, life: timedelta = HOUR, starts_in: timedelta | None = None, n: int = 0) -> SasUrl:
        now = self.clock.now()
        start = "" if starts_in is None else f"&st={now + starts_in:%Y-%m-%dT%H:%M:%SZ}"
        query = f"sp=rl{start}&se={now + life:%Y-%m-%dT%H:%M:%SZ}&sig={n}"
        return parse_sas_link(f"https://a.blob.core.windows.net/c?{query}", fetched=self.clock.monotonic())

    def replace(self, link: SasUrl) -> None:
        self.state.replace(link, self.clock.now(), self.now)

    @property
    def current(self) -> SasUrl | None:
        return self.state.link_to_use(self.now)

    def seconds_until_valid(self, link: SasUrl, *, is_last: bool) -> float | None:
        refusal = LinkRefused("no", server_time=self.clock.now())
        return self.state.seconds_until_valid(link, refusal, self.now, is_last=is_last)


def test_previous_link_is_used_while_valid() -> None:
    """A renewed link is not used before its start, and a refused one only after some time."""
    run = LinkFixture()
    old, new = run.make(), run.make(life=2 * HOUR, starts_in=timedelta(minutes=58), n=1)
    run.replace(old)
    run.state.mark_accepted(old)
    run.clock.advance(56 * 60)
    assert run.state.renewal(run.now) is Renewal.EARLY
    assert run.current is old
    run.replace(new)
    assert run.state.renewal(run.now) is Renewal.NONE
    assert run.current is old
    run.clock.advance(2 * 60)
    assert run.current is new
    assert run.seconds_until_valid(new, is_last=False) == 0
    assert run.current is old
    run.clock.advance(VALIDITY_RETRY_S)
    assert run.current is new
    run.state.mark_accepted(new)
    assert run.seconds_until_valid(new, is_last=True) is None
    assert run.current is new


def test_refused_link_is_not_reused() -> None:
    """A link that was replaced because it was refused is not used again."""
    run = LinkFixture()
    old, new = run.make(), run.make(life=2 * HOUR, starts_in=timedelta(seconds=5), n=1)
    run.replace(old)
    assert run.state.needs_replacement(old)
    run.state.mark_refused(old)
    run.replace(new)
    assert not run.state.needs_replacement(old)
    assert run.current is new
    assert run.seconds_until_valid(new, is_last=False) == 5 + VALIDITY_RETRY_S
    assert run.seconds_until_valid(new, is_last=False) == 5 + VALIDITY_RETRY_S
    assert len([event for event in run.events if isinstance(event, Notice)]) == 1
    run.clock.advance(5 + VALIDITY_RETRY_S)
    assert run.seconds_until_valid(new, is_last=False) is None
    assert run.seconds_until_valid(new, is_last=True) == VALIDITY_RETRY_S
    run.clock.advance(10)
    assert run.seconds_until_valid(new, is_last=True) is None


def test_a_refusal_renews_the_link_and_the_next_is_final() -> None:
    """The first refusal asks for a fresh link; that of the fresh link is final, once its grace is over."""
    run = LinkFixture()
    run.replace(run.make())
    refusals = LinkRefusals(run.state)
    run.clock.advance(1)
    old = run.current
    assert old is not None
    assert refusals.after_refusal(old, REFUSAL, run.now) is None
    run.clock.advance(1)
    fresh = run.make(n=1)
    run.state.mark_refused(old)
    run.replace(fresh)
    assert refusals.after_refusal(fresh, REFUSAL, run.now) == VALIDITY_RETRY_S
    run.clock.advance(10)
    with pytest.raises(NotAuthorised, match="also through a fresh link"):
        refusals.after_refusal(fresh, REFUSAL, run.now)


def test_a_permanent_refusal_has_no_grace() -> None:
    """A refusal that time cannot cure is final for a fresh link at once."""
    run = LinkFixture()
    refusals, refusal = LinkRefusals(run.state), LinkRefused("no", is_permanent=True)
    run.replace(run.make())
    assert refusals.after_refusal(run.make(), refusal, run.now) is None
    run.clock.advance(1)
    with pytest.raises(NotAuthorised, match="also through a fresh link"):
        refusals.after_refusal(run.make(), refusal, run.now)


def test_a_link_that_is_valid_too_late_is_not_waited_for() -> None:
    """A start beyond the budget ends the request, with the time at which the link becomes valid."""
    run = LinkFixture(can_renew=False)
    late = run.make(starts_in=timedelta(minutes=10))
    run.replace(late)
    refusals = LinkRefusals(run.state)
    assert refusals.after_refusal(late, REFUSAL, run.now) is None
    with pytest.raises(NotAuthorised, match="the link becomes valid at 2026-03-01 12:10:00 UTC, in 600 s"):
        refusals.after_failed_renewal(late, REFUSAL, NoFreshLink("none"), run.now)


def test_the_owner_of_a_link_chooses_the_error_for_a_late_start() -> None:
    """A link to a store that becomes valid too late counts as a store that is not available (exit 6)."""
    run = LinkFixture(can_renew=False)
    texts = LinkTexts(too_late_error=Unavailable)
    run.state = LinkState(run.events.append, can_renew=False, texts=texts, budget_s=60.0)
    late = run.make(starts_in=timedelta(minutes=10))
    run.replace(late)
    with pytest.raises(Unavailable, match="in 600 s"):
        LinkRefusals(run.state).after_failed_renewal(late, REFUSAL, NoFreshLink("none"), run.now)


def test_without_another_link_the_refusal_names_both_reasons() -> None:
    """The hint is that of the refusal for a valid link, and that of the missing renewal for an expired one."""
    run = LinkFixture(can_renew=False)
    link = run.make()
    run.replace(link)
    run.clock.advance(60)
    error = run.state.no_fresh_link_error(run.now)
    with pytest.raises(NotAuthorised, match=r"^the container refused a.glb \(403\); the link is valid until") as caught:
        LinkRefusals(run.state).after_failed_renewal(link, REFUSAL, error, run.now)
    assert caught.value.hint == "read the manual"
    run.clock.advance(3600)
    error = run.state.no_fresh_link_error(run.now)
    with pytest.raises(NotAuthorised, match="the link has expired at") as caught:
        LinkRefusals(run.state).after_failed_renewal(link, REFUSAL, error, run.now)
    assert "--link-command" in caught.value.hint


def test_the_container_may_be_known_before_the_first_link() -> None:
    """With a known container the first link is refused too, if it is for another one."""
    run = LinkFixture()
    base = "https://a.blob.core.windows.net/c"
    state = LinkState(run.events.append, can_renew=True, texts=LinkTexts(), base=base)
    with pytest.raises(NotAuthorised, match="another container"):
        state.replace(replace(run.make(), base=base + "2"), None, run.now)
    state.replace(run.make(), None, run.now)
