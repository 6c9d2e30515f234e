"""The signed link to a store: fresh when it is asked for, renewed once for all, from any thread."""

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
    "what signs the links (AZURE_STORAGE_KEY, AZURE_STORAGE_CONNECTION_STRING, a command) has no current key of the"
    " account, or this machine's clock is wrong"
)


class RenewableSasLink:
    """A link that `fetch` replaces, ahead of its end and on demand; without one its end is the end. `first`: one that
    is there already. `base`: the URL of the container that is meant, where that is known before a link is; a link to
    another one than that, or than that of the first, is refused. `option` is the one that would print fresh links.
    `allow_http`: it may go in the clear.
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
        """Whether the next one who asks may have to wait for a fresh link."""
        return self._link is None or (self._fetch is not None and time.monotonic() >= self._renew_at)

    def current(self) -> SasUrl:
        """The link to use now. Raises NotAuthorised when there is none to be had."""
        link = self._link
        if link is not None and not self.is_due:
            return link
        if link is None or _has_expired(link):
            self.renew(link)
        elif self._lock.acquire(blocking=False):  # else another thread is at it, and this link lives
            try:
                self._replace_or_warn(link)
            finally:
                self._lock.release()
        assert self._link is not None
        return self._link

    def renew(self, stale: SasUrl | None) -> None:
        """Fetch a fresh link, unless the current one is no longer `stale`."""
        with self._lock:
            if self._link is stale:
                self._replace()

    def handle_refusal(self, link: SasUrl, refusal: LinkRefused, *, was_fresh: bool) -> None:
        """The store answered 403 to this link: renew it. Raises NotAuthorised where that is final: `again`, the link
        was fresh; Transient where it is not valid yet.
        """
        if ahead := _seconds_until_valid(link):
            raise Transient(f"the link to the destination is valid only {ahead:.0f} s from now", retry_after=ahead)
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
                if self._link is not old and (
                    ahead := _seconds_until_valid(self._link)
                ):  # until then the old one is used
                    self._link, self._renew_at = old, time.monotonic() + ahead
        except TilesyncError as error:
            self._renew_at = time.monotonic() + MIN_RENEWAL_INTERVAL.total_seconds()
            self._observe(Warned(f"the link to the store could not be renewed ahead of time: {error}"))

    def _replace(self) -> None:
        old = self._link
        if self._fetch is None:
            verb = "has ended" if old is not None and _has_expired(old) else "is refused"
            hint = f"run the same command with a fresh link, or with {self._option}: it continues where it stopped"
            raise NoFreshLink(f"the link to the store {verb}, and there is no other", hint=hint)
        link = self._fetch()
        if link.base != (self._base or link.base):
            raise NotAuthorised(
                f"the fresh link leads to another container ({link.base}, not {self._base})",
                hint=f"{self._option} must print links to the container that is named",
            )
        self._set_link(link)
        if old is not None:
            self._observe(LinkRenewed(link.expires.isoformat() if link.expires else None))

    def _set_link(self, link: SasUrl) -> None:
        check_store_url(link.base, allow_http=self._allow_http)
        self._base = link.base
        self._renew_at = time.monotonic() + time_until_renewal(link, self._link, datetime.now(UTC)).total_seconds()
        self._link = link


def _fresh_link_hint(hint: str) -> str:
    """What helps where a link that was just made is refused too."""
    return WRONG_KEY_HINT if hint == BAD_SIGNATURE_HINT else hint


def _seconds_until_valid(link: SasUrl | None) -> float:
    """Seconds until a link becomes valid."""
    begin = parse_start(link.query) if link is not None else None
    return max(0.0, (begin - datetime.now(UTC)).total_seconds()) if begin is not None else 0.0


def _has_expired(link: SasUrl) -> bool:
    return is_expired(link, datetime.now(UTC))
