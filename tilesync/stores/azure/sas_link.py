"""SAS links to a destination in Azure: their hints, and whether they may travel unencrypted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial

from tilesync.azure.link_state import LinkState, LinkTexts
from tilesync.core.urls import check_store_url
from tilesync.errors import Unavailable
from tilesync.model import SasUrl
from tilesync.protocols import Observer
from tilesync.transport.renewing_link_sync import SyncRenewingLink

WRONG_KEY_HINT = (
    "check that the key which signs the links (AZURE_STORAGE_KEY, AZURE_STORAGE_CONNECTION_STRING, a command) is a"
    " current key of the account, and that this machine's clock is right"
)


def make_store_link(
    fetch: Callable[[], SasUrl] | None,
    observe: Observer,
    *,
    first: SasUrl | None = None,
    base: str | None = None,
    option: str = "--dest-link-command",
    allow_http: bool = False,
    budget: timedelta = timedelta(),
) -> SyncRenewingLink:
    """Make a link to a destination, which `fetch` renews.

    `first`: a link to begin with. `base`: the URL of the container, if it is known before the first link. `option`: the
    option that would print fresh links, for the hints. `budget`: how long to wait for a link that is not valid yet.
    """
    texts = LinkTexts(
        name="the link to the store",
        bad_signature_hint=WRONG_KEY_HINT,
        other_container_hint=f"{option} must print links to the container of the destination",
        no_fresh_link_hint=f"run the same command with a fresh link, or with {option}: it continues where it stopped",
        too_late_error=Unavailable,
    )
    state = LinkState(
        observe,
        can_renew=fetch is not None,
        texts=texts,
        budget_s=budget.total_seconds(),
        base=base if first is None else None,
        check_url=partial(check_store_url, allow_http=allow_http),
    )
    return SyncRenewingLink(fetch, state, first=first)
