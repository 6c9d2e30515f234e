"""State of a SAS link that renews itself: the link to use, when to renew it, and what a refusal means."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from enum import Enum
from typing import NamedTuple

from tilesync.azure.error_hints import BAD_SIGNATURE_HINT
from tilesync.azure.sas import MIN_RENEWAL_INTERVAL, is_expired, parse_start, time_left, time_until_renewal
from tilesync.core.urls import check_scheme
from tilesync.errors import LinkRefused, NoFreshLink, NotAuthorised, TilesyncError
from tilesync.events import Event, LinkRenewed, Notice, Warned
from tilesync.model import SasUrl
from tilesync.values import dataclass

MIN_CLOCK_SKEW = timedelta(seconds=2)
"""Smaller clock differences are ignored: they come from the whole seconds of `Date` and from latency."""

FRESH_LINK_GRACE = timedelta(seconds=10)
"""A fresh link may be refused for this long: its key or policy takes time to reach all servers."""

VALIDITY_RETRY_S = 1.0
"""Seconds after its stated start until a link that was not valid yet is tried again."""

MAX_REFUSALS = 8
"""Maximum consecutive 403s for one request, when each fresh link has already expired."""


class Instant(NamedTuple):
    """One moment: the time of day, and seconds on a clock that never goes back."""

    utc: datetime
    monotonic_s: float


class Renewal(Enum):
    """Need to renew a link. EARLY: it is still valid. REQUIRED: no valid link is left."""

    NONE = "none"
    EARLY = "early"
    REQUIRED = "required"


@dataclass(frozen=True)
class LinkTexts:
    """Name and hints of one link in messages. None: the default hint of the error.

    `too_late_error`: class of the error for a link that becomes valid only after the budget.
    """

    name: str = "the link"
    bad_signature_hint: str | None = None
    other_container_hint: str | None = None
    no_fresh_link_hint: str | None = None
    too_late_error: type[TilesyncError] = NotAuthorised


class LinkState:
    """State of one renewing link. It does no I/O: a driver fetches the links and tells the time.

    If a link is not valid yet (`st`), or is refused in its first seconds, a run waits up to `budget_s`; until then it
    uses the previous link, as long as that is valid. A link to another container is refused. `base`: the URL of the
    container, if it is known before the first link. `check_url` raises for a URL without TLS.
    """

    def __init__(
        self,
        observe: Callable[[Event], None],
        *,
        can_renew: bool,
        texts: LinkTexts,
        budget_s: float = 0.0,
        base: str | None = None,
        check_url: Callable[[str], None] = check_scheme,
    ) -> None:
        self._observe = observe
        self._can_renew = can_renew
        self._texts = texts
        self._budget_s = budget_s
        self._base = base
        self._check_url = check_url
        self._skew = timedelta()
        self._current: SasUrl | None = None
        self._previous: SasUrl | None = None  # kept until the current link is accepted
        self._refused: SasUrl | None = None
        self._accepted: SasUrl | None = None
        self._announced: SasUrl | None = None
        self._renew_at_s = 0.0
        self._used_from_s = 0.0  # the previous link is used until then
        self._valid_from_s = 0.0

    # --- choose and replace the link ---

    def renewal(self, now: Instant) -> Renewal:
        """Return whether the link must or may be renewed now."""
        if self._current is None:
            return Renewal.REQUIRED
        if not self._can_renew or now.monotonic_s < self._renew_at_s:
            return Renewal.NONE
        return Renewal.REQUIRED if self.is_expired(self._current, now) else Renewal.EARLY

    def link_to_use(self, now: Instant) -> SasUrl | None:
        """Return the link to use now; None before the first one."""
        previous = self._previous
        if previous is not None and now.monotonic_s < self._used_from_s and not self.is_expired(previous, now):
            return previous
        return self._current

    def needs_replacement(self, stale: SasUrl | None) -> bool:
        """Return whether no link was fetched after `stale`, not even one with the same text."""
        return self._current is None or self._current is stale

    def mark_refused(self, link: SasUrl | None) -> None:
        """Record that the link to replace was refused: it is not used again."""
        self._refused = link

    def replace(self, link: SasUrl, server_time: datetime | None, now: Instant) -> None:
        """Make the freshly fetched `link` the current one.

        Raises UsageError when it would be sent without TLS, and NotAuthorised when it is for another container, or has
        expired while the previous link is still valid.
        """
        old = self._current
        if link.base != (self._base or link.base):
            raise NotAuthorised(
                f"the fresh link is for another container or folder ({link.base}, not {self._base})",
                hint=self._texts.other_container_hint,
            )
        self._check_url(link.base)
        self._update_skew(server_time, now)
        if (
            old is not None
            and old is not self._refused
            and self.is_expired(link, now)
            and not self.is_expired(old, now)
        ):
            raise NotAuthorised("the fresh link has already expired, but the previous link is still valid")
        self._base, self._current = link.base, link
        self._previous = old if old is not self._refused and old is not link else None
        self._used_from_s = self._valid_from_s = now.monotonic_s + self._seconds_before_start(link, now)
        self._renew_at_s = now.monotonic_s + time_until_renewal(link, old, self._server_now(now)).total_seconds()
        if old is not None:
            self._observe(LinkRenewed(link.expires.isoformat() if link.expires else None))

    def record_early_failure(self, error: BaseException, now: Instant) -> None:
        """Record an early renewal that failed: only a warning, since the link is still valid."""
        left = time_left(self._current, self._server_now(now)) if self._current is not None else None
        half_life = max(left / 2, timedelta()) if left is not None else MIN_RENEWAL_INTERVAL
        self._renew_at_s = now.monotonic_s + min(MIN_RENEWAL_INTERVAL, half_life).total_seconds()
        self._observe(Warned(f"{self._texts.name} could not be renewed ahead of time: {error}"))

    def no_fresh_link_error(self, now: Instant) -> NoFreshLink:
        """Return the error for a link that cannot be renewed."""
        link, name, hint = self._current, self._texts.name, self._texts.no_fresh_link_hint
        if link is None or link.expires is None:
            return NoFreshLink(f"{name} cannot be renewed", hint=hint)
        verb = "has expired at" if self.is_expired(link, now) else "is valid until"
        return NoFreshLink(f"{name} {verb} {link.expires:%Y-%m-%d %H:%M:%S} UTC, and it cannot be renewed", hint=hint)

    # --- time ---

    def is_expired(self, link: SasUrl, now: Instant) -> bool:
        """Return whether `link` has expired by the server's clock; one without an end never does."""
        return is_expired(link, self._server_now(now))

    def _server_now(self, now: Instant) -> datetime:
        return now.utc + self._skew

    def _update_skew(self, server_time: datetime | None, now: Instant) -> None:
        if server_time is not None:
            skew = server_time - now.utc
            self._skew = skew if abs(skew) > MIN_CLOCK_SKEW else timedelta()

    def _seconds_before_start(self, link: SasUrl, now: Instant) -> float:
        """Return the seconds until a link becomes valid, by the server's clock."""
        start = parse_start(link.query)
        return max(0.0, (start - self._server_now(now)).total_seconds()) if start is not None else 0.0

    # --- accepted and refused requests ---

    def mark_accepted(self, link: SasUrl) -> None:
        """Record that a request with `link` was accepted: the previous link is no longer needed."""
        if self._accepted is not link:
            self._accepted = link
            if link is self._current:
                self._previous = None

    def seconds_until_valid(self, link: SasUrl, refusal: LinkRefused, now: Instant, *, is_last: bool) -> float | None:
        """Return the seconds after which to try again, if the refused `link` may not be valid yet; None otherwise.

        `is_last`: there is no other link. Raises the `too_late_error` if the wait exceeds the budget.
        """
        if refusal.is_permanent:
            return None
        self._update_skew(refusal.server_time, now)
        if link is not self._current:
            if link is self._previous:
                self._previous = None
            return None
        early_s = self._seconds_before_start(link, now)
        if self._previous is not None and not self.is_expired(self._previous, now):
            self._used_from_s = now.monotonic_s + max(early_s, VALIDITY_RETRY_S)
            return 0.0
        if link is self._accepted or self.is_expired(link, now):
            return None
        if early_s and (is_last or early_s <= self._budget_s):  # otherwise a fresh link may be valid sooner
            self._announce_wait(link, early_s)
            self._valid_from_s = now.monotonic_s + early_s
            return early_s + VALIDITY_RETRY_S
        grace_s = min(FRESH_LINK_GRACE.total_seconds(), self._budget_s)
        if not is_last or now.monotonic_s - self._valid_from_s >= grace_s:
            return None
        self._announce_wait(link, 0)
        return VALIDITY_RETRY_S

    def _announce_wait(self, link: SasUrl, seconds: float) -> None:
        start, name = parse_start(link.query), self._texts.name
        message = f"{name} becomes valid at {start:%Y-%m-%d %H:%M:%S} UTC, in {seconds:.0f} s" if start else ""
        if seconds > self._budget_s:
            raise self._texts.too_late_error(message, hint="run again then, or wait for it with a longer --retry-for")
        if self._announced is not link:
            self._announced = link
            self._observe(Notice(f"{message if seconds else f'{name} is new, and is refused'}; waiting for it"))

    def fresh_link_error(self, refusal: LinkRefused) -> NotAuthorised:
        """Return the error for a fresh link that is refused too."""
        hint = self._texts.bad_signature_hint if refusal.hint == BAD_SIGNATURE_HINT else None
        return NotAuthorised(f"{refusal}, also through a fresh link", hint=refusal.hint if hint is None else hint)

    def endless_refusals_error(self) -> NotAuthorised:
        """Return the error for fresh links that are refused again and again."""
        return NotAuthorised(
            f"{self._texts.name} is refused, and so is each fresh one", hint="check that this machine's clock is right"
        )


class LinkRefusals:
    """Refusals (403) of one request, and what to do after each.

    A 403 is final for an unexpired link that was fetched after the previous 403, unless it may not be valid yet.
    """

    def __init__(self, state: LinkState) -> None:
        self._state = state
        self._refused_at_s: float | None = None
        self._count = 0

    def after_refusal(self, link: SasUrl, refusal: LinkRefused, now: Instant) -> float | None:
        """Return the seconds to wait before the next attempt; None to renew the link first.

        Raises NotAuthorised when the refusal is final.
        """
        state = self._state
        is_final = (
            self._refused_at_s is not None
            and link.fetched_at_s > self._refused_at_s
            and not state.is_expired(link, now)
        )
        delay_s = state.seconds_until_valid(link, refusal, now, is_last=is_final)
        if delay_s is not None:
            return delay_s
        if is_final:
            raise state.fresh_link_error(refusal) from refusal
        self._refused_at_s, self._count = now.monotonic_s, self._count + 1
        if self._count >= MAX_REFUSALS:
            raise state.endless_refusals_error() from refusal
        return None

    def after_failed_renewal(self, link: SasUrl, refusal: LinkRefused, error: NoFreshLink, now: Instant) -> float:
        """Return the seconds to wait before the next attempt with the same link. Raises NotAuthorised if none helps."""
        delay_s = self._state.seconds_until_valid(link, refusal, now, is_last=True)
        if delay_s is None:
            hint = error.hint if self._state.is_expired(link, now) else refusal.hint or error.hint
            raise NotAuthorised(f"{refusal}; {error}", hint=hint) from refusal
        self._count -= 1
        return delay_s
