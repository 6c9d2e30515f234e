"""A SAS link to a destination that renews itself, safe from any thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from tilesync.azure.error_hints import BAD_SIGNATURE_HINT
from tilesync.azure.sas import MIN_RENEWAL_INTERVAL, is_expired, parse_start, time_until_renewal
from tilesync.core.urls import check_store_url
from tilesync.errors import LinkRefused, NoFreshLink, NotAuthorised, TilesyncError, Transient
from tilesync.events import LinkRenewed, Warned
from tilesync.model import SasUrl
from tilesync.protocols import Observer

WRONG_KEY_HINT = (
    "check that the key which signs the links (AZURE_STORAGE_KEY, AZURE_STORAGE_CONNECTION_STRING, a command) is a"
    " current key of the account, and that this machine's clock is right"
)


class RenewableSasLink:
    """A SAS link that `fetch` replaces before it expires and on demand; without `fetch` it cannot be replaced.

    `first`: a link to begin with. `base`: the URL of the container, if it is known before the first link. A link to
    another container is refused. `option`: the option that would print fresh links, for the hints. `allow_http`: the
    link may travel unencrypted.
    """

    def __init__(
        self,
        fetch: Callable[[], SasUrl] | None,
        observe: Observer,
        *,
        first: SasUrl | None = None,
        base: str | None = None,
        option: str = "--dest-link-command",
        allow_http: bool = False,
    ) -> None:
        self._allow_http = allow_http
        self._fetch = fetch
        self._observe = observe
        self._base = base
        self._option = option
        self._lock = threading.Lock()
        self._link: SasUrl | None = None
        self._renew_at = 0.0
        if first is not None:
            self._set_link(first)

    @property
    def is_due(self) -> bool:
        """Return whether the next call of `current` may have to fetch a link."""
        return self._link is None or (self._fetch is not None and time.monotonic() >= self._renew_at)

    def current(self) -> SasUrl:
        """Return the link to use now. Raises NotAuthorised if there is none."""
        link = self._link
        if link is not None and not self.is_due:
            return link
        if link is None or _has_expired(link):
            self.renew(link)
        elif self._lock.acquire(blocking=False):  # else another thread renews it, and this link is still valid
            try:
                self._replace_or_warn(link)
            finally:
                self._lock.release()
        assert self._link is not None
        return self._link

    def renew(self, stale: SasUrl | None) -> None:
        """Fetch a fresh link, unless another thread has already replaced `stale`."""
        with self._lock:
            if self._link is stale:
                self._replace()

    def handle_refusal(self, link: SasUrl, refusal: LinkRefused, *, was_fresh: bool) -> None:
        """Renew a link that the store refused with 403. Raises Transient if the link is not valid yet.

        Raises NotAuthorised if a renewal cannot help: the link `was_fresh` and has not expired, or no other is
        available.
        """
        if delay_s := _seconds_until_valid(link):
            raise Transient(f"the link to the destination is valid only {delay_s:.0f} s from now", retry_after=delay_s)
        if was_fresh and not _has_expired(link):
            raise NotAuthorised(
                f"{refusal}, also through a fresh link", hint=_fresh_link_hint(refusal.hint)
            ) from refusal
        try:
            self.renew(link)
        except NoFreshLink as error:
            hint = error.hint if _has_expired(link) else refusal.hint or error.hint
            raise NotAuthorised(f"{refusal}; {error}", hint=hint) from refusal

    def _replace_or_warn(self, old: SasUrl) -> None:
        try:
            if self._link is old:
                self._replace()
                # A link that becomes valid later replaces the old one only then.
                if self._link is not old and (delay_s := _seconds_until_valid(self._link)):
                    self._link, self._renew_at = old, time.monotonic() + delay_s
        except TilesyncError as error:
            self._renew_at = time.monotonic() + MIN_RENEWAL_INTERVAL.total_seconds()
            self._observe(Warned(f"the link to the store could not be renewed before it expires: {error}"))

    def _replace(self) -> None:
        old = self._link
        if self._fetch is None:
            state = "has expired" if old is not None and _has_expired(old) else "is refused"
            hint = f"run the same command with a fresh link, or with {self._option}: it continues where it stopped"
            raise NoFreshLink(f"the link to the store {state}, and there is no other", hint=hint)
        link = self._fetch()
        if link.base != (self._base or link.base):
            raise NotAuthorised(
                f"the fresh link leads to another container ({link.base}, not {self._base})",
                hint=f"{self._option} must print links to the container of the destination",
            )
        self._set_link(link)
        if old is not None:
            self._observe(LinkRenewed(link.expires.isoformat() if link.expires else None))

    def _set_link(self, link: SasUrl) -> None:
        check_store_url(link.base, allow_http=self._allow_http)
        self._base = link.base
        self._renew_at = time.monotonic() + time_until_renewal(link, self._link, datetime.now(UTC)).total_seconds()
        self._link = link


def stale_links_error() -> NotAuthorised:
    """Return the error for fresh links that are refused again and again."""
    return NotAuthorised(
        "each fresh link to the store is refused on arrival", hint="check that this machine's clock is right"
    )


def _fresh_link_hint(hint: str) -> str:
    """Return the hint for a fresh link that is refused too."""
    return WRONG_KEY_HINT if hint == BAD_SIGNATURE_HINT else hint


def _seconds_until_valid(link: SasUrl | None) -> float:
    """Return the seconds until a link becomes valid, 0 for a valid one."""
    start = parse_start(link.query) if link is not None else None
    return max(0.0, (start - datetime.now(UTC)).total_seconds()) if start is not None else 0.0


def _has_expired(link: SasUrl) -> bool:
    return is_expired(link, datetime.now(UTC))
