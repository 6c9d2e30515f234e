"""The signed link to a store: fresh when it is asked for, renewed once for all, from any thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from tilesync.azure.error_hints import BAD_SIGNATURE
from tilesync.azure.sas import STUBBORN, expired, starts, trusted_for
from tilesync.core.urls import check_store
from tilesync.errors import LinkRefused, NoFreshLink, NotAuthorised, TilesyncError, Transient
from tilesync.events import Renewed, Warned
from tilesync.model import SasUrl
from tilesync.protocols import Observer

WRONG_KEY = (
    "what signs the links (AZURE_STORAGE_KEY, AZURE_STORAGE_CONNECTION_STRING, a command) has no current key of the"
    " account, or this machine's clock is wrong"
)


class SignedLink:
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
        self._due_at = 0.0
        if first is not None:
            self._adopt(first)

    @property
    def due(self) -> bool:
        """Whether the next one who asks may have to wait for a fresh link."""
        return self._link is None or (self._fetch is not None and time.monotonic() >= self._due_at)

    def current(self) -> SasUrl:
        """The link to use now. Raises NotAuthorised when there is none to be had."""
        link = self._link
        if link is not None and not self.due:
            return link
        if link is None or _ended(link):
            self.renew(link)
        elif self._lock.acquire(blocking=False):  # else another thread is at it, and this link lives
            try:
                self._replace_quietly(link)
            finally:
                self._lock.release()
        assert self._link is not None
        return self._link

    def renew(self, stale: SasUrl | None) -> None:
        """Fetch a fresh link, unless the current one is no longer `stale`."""
        with self._lock:
            if self._link is stale:
                self._replace()

    def refused(self, link: SasUrl, refusal: LinkRefused, *, again: bool) -> None:
        """The store answered 403 to this link: renew it. Raises NotAuthorised where that is final: `again`, the link
        was fresh; Transient where it is not valid yet.
        """
        if ahead := _ahead(link):
            raise Transient(f"the link to the destination is valid only {ahead:.0f} s from now", retry_after=ahead)
        if again and not _ended(link):
            raise NotAuthorised(f"{refusal}, also through a fresh link", hint=_for_fresh(refusal.hint)) from refusal
        try:
            self.renew(link)
        except NoFreshLink as error:
            hint = error.hint if _ended(link) else refusal.hint or error.hint
            raise NotAuthorised(f"{refusal}; {error}", hint=hint) from refusal

    def _replace_quietly(self, old: SasUrl) -> None:
        try:
            if self._link is old:
                self._replace()
                if self._link is not old and (ahead := _ahead(self._link)):  # until then the old one is used
                    self._link, self._due_at = old, time.monotonic() + ahead
        except TilesyncError as error:
            self._due_at = time.monotonic() + STUBBORN.total_seconds()
            self._observe(Warned(f"the link to the store could not be renewed ahead of time: {error}"))

    def _replace(self) -> None:
        old = self._link
        if self._fetch is None:
            verb = "has ended" if old is not None and _ended(old) else "is refused"
            hint = f"run the same command with a fresh link, or with {self._option}: it continues where it stopped"
            raise NoFreshLink(f"the link to the store {verb}, and there is no other", hint=hint)
        link = self._fetch()
        if link.base != (self._base or link.base):
            raise NotAuthorised(
                f"the fresh link leads to another container ({link.base}, not {self._base})",
                hint=f"{self._option} must print links to the container that is named",
            )
        self._adopt(link)
        if old is not None:
            self._observe(Renewed(link.expires.isoformat() if link.expires else None))

    def _adopt(self, link: SasUrl) -> None:
        check_store(link.base, allow_http=self._allow_http)
        self._base = link.base
        self._due_at = time.monotonic() + trusted_for(link, self._link, datetime.now(UTC)).total_seconds()
        self._link = link


def _for_fresh(hint: str) -> str:
    """What helps where a link that was just made is refused too."""
    return WRONG_KEY if hint == BAD_SIGNATURE else hint


def _ahead(link: SasUrl | None) -> float:
    """Seconds until a link becomes valid."""
    begin = starts(link.query) if link is not None else None
    return max(0.0, (begin - datetime.now(UTC)).total_seconds()) if begin is not None else 0.0


def _ended(link: SasUrl) -> bool:
    return expired(link, datetime.now(UTC))
