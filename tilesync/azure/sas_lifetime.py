"""How long a signed link may be trusted, and when a fresh one is due."""

from __future__ import annotations

from datetime import datetime, timedelta

from tilesync.model import SasUrl

MARGIN = timedelta(minutes=5)
"""How long before its end a long-lived link is renewed; a short-lived one at 20 % of its life."""

TRUSTED = timedelta(minutes=50)
"""A link is renewed this long after its fetch, whatever it says: the service promises an hour."""

STUBBORN = timedelta(seconds=60)
"""No renewal ahead of time this soon after one that did not move the expiry."""


def left(link: SasUrl, now: datetime) -> timedelta | None:
    """How long a link lives on, by the clock that `now` is of; None for one that states no end."""
    return None if link.expires is None else link.expires - now


def expired(link: SasUrl, now: datetime) -> bool:
    """Whether a link has ended; one that states no end never has."""
    rest = left(link, now)
    return rest is not None and rest <= timedelta()


def trusted_for(link: SasUrl, old: SasUrl | None, now: datetime) -> timedelta:
    """How long a link that was just fetched, in place of `old`, is used before a fresh one is due."""
    rest = left(link, now)
    wait = TRUSTED if rest is None or rest <= timedelta() else min(rest - min(MARGIN, rest / 5), TRUSTED)
    if old is not None and link.expires is not None and old.expires == link.expires:
        wait = max(wait, STUBBORN)
    return wait
