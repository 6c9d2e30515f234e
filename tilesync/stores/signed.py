"""The signed link to a destination: fresh when it is asked for, renewed once for all, from any thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from tilesync.errors import LinkRefused, NoFreshLink, NotAuthorised, TilesyncError
from tilesync.events import Renewed, Warned
from tilesync.model import SasUrl
from tilesync.protocols import Observer
from tilesync.rules.lifetimes import STUBBORN, expired, trusted_for
from tilesync.rules.links import check_store


class SignedLink:
    """A link that `fetch` replaces, ahead of its end and on demand; without one its end is the end. `first`: one that
    is there already. `base`: the URL of the container that is meant, where that is known before a link is; a link to
    another one than that, or than that of the first, is refused. `allow_http`: it may go in the clear.
    """

    def __init__(
        self,
        fetch: Callable[[], SasUrl] | None,
        observe: Observer,
        *,
        first: SasUrl | None = None,
        base: str | None = None,
        allow_http: bool = False,
    ) -> None:
        self._allow_http = allow_http
        self._fetch = fetch
        self._observe = observe
        self._base = base
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
        was fresh.
        """
        if again and not _ended(link):
            raise NotAuthorised(f"{refusal}, also through a fresh link", hint=HINT) from refusal
        try:
            self.renew(link)
        except NoFreshLink as error:
            raise NotAuthorised(f"{refusal}; {error}", hint=error.hint) from refusal

    def _replace_quietly(self, old: SasUrl) -> None:
        try:
            if self._link is old:
                self._replace()
        except TilesyncError as error:
            self._due_at = time.monotonic() + STUBBORN.total_seconds()
            self._observe(Warned(f"the link to the destination could not be renewed ahead of time: {error}"))

    def _replace(self) -> None:
        old = self._link
        if self._fetch is None:
            verb = "has ended" if old is not None and _ended(old) else "is refused"
            hint = NO_OTHER if verb == "has ended" else f"{NO_OTHER}; to write there it needs `sp=racwdl`"
            raise NoFreshLink(f"the link to the destination {verb}, and there is no other", hint=hint)
        link = self._fetch()
        if link.base != (self._base or link.base):
            raise NotAuthorised(
                f"the fresh link leads to another container ({link.base}, not {self._base})",
                hint="--dest-link-command must print links to the container that DEST names",
            )
        self._adopt(link)
        if old is not None:
            self._observe(Renewed(link.expires.isoformat() if link.expires else None))

    def _adopt(self, link: SasUrl) -> None:
        check_store(link.base, allow_http=self._allow_http)
        self._base = link.base
        self._due_at = time.monotonic() + trusted_for(link, self._link, datetime.now(UTC)).total_seconds()
        self._link = link


HINT = "check that this identity, or the link, may read, list, create, write and delete there (`sp=racwdl`)"
NO_OTHER = "run the same command with a fresh link, or with --dest-link-command: it continues where it stopped"


def _ended(link: SasUrl) -> bool:
    return expired(link, datetime.now(UTC))
