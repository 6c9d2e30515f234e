"""Client of the iModels API and the iTwins API: the iModels of an iTwin, and the iTwins that an identity can see.

Sources: iModels API v2, "Get iTwin iModels"; iTwins API, "Get my iTwins".
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from tilesync.itwin.api_pages import ApiPages, ListEndpoint, ListQuery, R, endpoint_url
from tilesync.itwin.responses import IModelRow, ITwinRow, parse_imodels, parse_itwins
from tilesync.protocols import TokenProvider
from tilesync.transport.api_client import ApiClient
from tilesync.transport.api_pace import ApiPace

IMODELS_MEDIA_TYPE = "application/vnd.bentley.itwin-platform.v2+json"
ITWINS_MEDIA_TYPE = "application/vnd.bentley.itwin-platform.v1+json"

PAGE_ROWS = 1000
"""Rows per page: the service's maximum, so that the list of an iTwin is mostly one call."""

MAX_ITWINS = 10_000
"""Maximum of `X-Max-Return`. Without this header the list ends after 1,000 iTwins, without an error."""

ITWIN_SUBCLASSES = "Asset,Project"

ITWIN_MEMBER_HINT = (
    "add this identity to the members of the iTwin, with a role that has the permission imodels_webview; a service"
    " application is the member CLIENT_ID@apps.imsoidc.bentley.com"
)

_MISSING_ITWIN_HINT = (
    f"check the iTwin id, and that --api-url is the service's address; if both are right, {ITWIN_MEMBER_HINT}"
)


class IModels:
    """Client for the iModels and iTwins that an identity can see."""

    def __init__(
        self, api_url: str, token: TokenProvider, api_client: ApiClient, *, pace: ApiPace | None = None
    ) -> None:
        self._pages = ApiPages(token, api_client, pace=pace)
        self._imodels = ListEndpoint(
            endpoint_url(api_url, "imodels"),
            api="the iModels API",
            rows="iModels",
            headers={"Accept": IMODELS_MEDIA_TYPE, "Prefer": "return=minimal"},
            parse=parse_imodels,
            row_id=lambda imodel: imodel.id,
            forbidden="this identity may not see the iModels of this iTwin",
            forbidden_hint=ITWIN_MEMBER_HINT,
            missing="the service finds no such iTwin",
            missing_hint=_MISSING_ITWIN_HINT,
        )
        self._itwins = ListEndpoint(
            endpoint_url(api_url, "itwins"),
            api="the iTwins API",
            rows="iTwins",
            headers={"Accept": ITWINS_MEDIA_TYPE, "Prefer": "return=minimal", "X-Max-Return": str(MAX_ITWINS)},
            parse=parse_itwins,
            row_id=lambda itwin: itwin.id,
            forbidden="this identity may not list its iTwins",
            forbidden_hint="name the iTwins by their ids, or use an identity with the scope itwin-platform",
            missing="the service has no list of iTwins at this address",
            missing_hint="is --api-url (TILESYNC_API_URL) the service's address?",
        )

    async def list(self, itwin_id: str) -> AsyncIterator[IModelRow]:
        """Yield each iModel of an iTwin once, in the service's order. Raises the RunErrors of the service.

        Only iModels that the identity can see are listed: a shorter list is no error.
        """
        async for row in self._list(self._imodels, ListQuery(PAGE_ROWS, {"iTwinId": itwin_id})):
            yield row

    async def list_itwins(self) -> AsyncIterator[ITwinRow]:
        """Yield each active iTwin whose member the identity is, once. Raises the RunErrors of the service."""
        async for row in self._list(self._itwins, ListQuery(PAGE_ROWS, {"subClass": ITWIN_SUBCLASSES})):
            yield row

    async def _list(self, endpoint: ListEndpoint[R], query: ListQuery) -> AsyncIterator[R]:
        """Yield each row once: a page can repeat rows of the one before, if others were added meanwhile."""
        seen = set[str]()
        async for page in self._pages.pages(endpoint, query):
            for row in page.rows:
                if (row_id := endpoint.row_id(row)) not in seen:
                    seen.add(row_id)
                    yield row
