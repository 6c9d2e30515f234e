"""The Mesh Export API: the list of exports, the latest finished one, and a fresh link to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from urllib.parse import urlencode, urlsplit, urlunsplit

from tilesync.core.http_status import Verdict, raise_for_status
from tilesync.core.masking import split_secret
from tilesync.errors import ExportReplaced, InvalidRequest, NoExport, NotAuthorised, Transient, Unavailable
from tilesync.events import Waiting
from tilesync.itwin.responses import api_message, classify_api_status, parse_exports
from tilesync.model import Export, Resolution, SasUrl, Selector, Status
from tilesync.protocols import Clock, Observer, TokenProvider
from tilesync.transport.api_client import ApiClient, ApiRequest, ApiResponse
from tilesync.transport.retry_after import retry_after_seconds

API_MEDIA_TYPE = "application/vnd.bentley.itwin-platform.v1+json"

LATEST_PAGE_ROWS = 10
"""Rows asked for when looking for the latest: the service keeps five an iModel and is slow for each row."""

FULL_PAGE_ROWS = 100

MAX_IDLE_PAGES = 20
"""Pages in a row without a new row, at most."""

MEMBERSHIP_HINT = (
    "a service application sees an iModel only when CLIENT_ID@apps.imsoidc.bentley.com is a member of its iTwin"
)


@dataclass(frozen=True, slots=True)
class ExportPage:
    """One page of exports as the service gave it, and the server's time when it did."""

    rows: list[Export]
    next_query: dict[str, str] | None
    server_time: datetime | None


def matches(export: Export, selector: Selector) -> bool:
    """Whether a row is meant by the selector; the service filters too, but a later page may have lost the filter.

    tileVersion and iTwinJS are not in the rows: for those the service's word stands.
    """
    return (
        (not selector.imodel or export.imodel is None or export.imodel.lower() == selector.imodel.lower())
        and (not selector.changeset or export.changeset == selector.changeset)
        and (not selector.export_type or not export.type or export.type.lower() == selector.export_type.lower())
        and (not selector.export_id or export.id.lower() == selector.export_id.lower())
    )


@dataclass
class ExportSearchResult:
    """What one look at the list found: the chosen export if there is one, the newest, and what else was there."""

    chosen: Export | None = None
    newest: Export | None = None
    row_count: int = 0
    unfinished_count: int = 0
    invalid: Export | None = None
    server_time: datetime | None = None


class MeshExports:
    """The exports that an identity can see."""

    def __init__(
        self, api_url: str, token: TokenProvider, api_client: ApiClient, clock: Clock, observe: Observer
    ) -> None:
        parts = urlsplit(api_url)
        path = parts.path.rstrip("/").removesuffix("/mesh-export")
        self._url = urlunsplit((parts.scheme, parts.netloc, f"{path}/mesh-export/", "", ""))
        self._token = token
        self._api_client = api_client
        self._clock = clock
        self._observe = observe

    async def pages(
        self, selector: Selector, *, top: int = FULL_PAGE_ROWS, cdn: bool = False
    ) -> AsyncIterator[ExportPage]:
        """The pages of the list, newest changeset first; rows that the selector does not mean are left out.

        The next page is asked for at this API's own address and with this side's own filters: of the service's `next`
        link only the query counts. Raises the RunErrors of the service.
        """
        filters, following, seen = _query_filters(selector, cdn=cdn), dict[str, str](), set[str]()
        known, idle = set[str](), 0
        while True:
            query = urlencode({"$top": str(top), **following, **filters}, safe="$:")
            if query in seen:
                raise Unavailable("the service's list of exports leads in a circle")
            seen.add(query)
            page = await self._fetch_page(query)
            yield replace(page, rows=[row for row in page.rows if matches(row, selector)])
            if page.next_query is None:
                return
            new = {row.id for row in page.rows} - known
            known, idle = known | new, 0 if new else idle + 1
            if idle > MAX_IDLE_PAGES:
                raise Unavailable(f"{idle} pages of the service's list of exports in a row brought nothing new")
            following = page.next_query

    async def _fetch_page(self, query: str) -> ExportPage:
        sent, refused = "", 0

        async def make() -> ApiRequest:
            nonlocal sent
            sent = await self._token.header()
            headers = {"Authorization": sent, "Accept": API_MEDIA_TYPE, "Prefer": "return=representation"}
            return ApiRequest(f"{self._url}?{query}", headers)

        async def accept(reply: ApiResponse) -> ExportPage:
            nonlocal refused
            body = await reply.read()
            verdict = classify_api_status(reply.status)
            if verdict is Verdict.DENIED and refused < 2:
                refused += 1
                if await self._token.renew_refused(sent):
                    raise Transient("the service refused the token; a fresh one is used", retry_after=0)
            _raise_for_verdict(verdict, reply.status, api_message(body, split_secret(sent)), remedy=self._token.remedy)
            wait = retry_after_seconds(reply.header)
            raise_for_status(
                verdict, reply.status, wait, "the service", "is --api-url (TILESYNC_API_URL) the service's address?"
            )
            rows, following = parse_exports(body, fetched=self._clock.monotonic(), secrets=split_secret(sent))
            return ExportPage(rows, following, reply.server_time())

        return await self._api_client.request(f"the Mesh Export API ({urlsplit(self._url).netloc})", make, accept)

    async def find_latest(self, selector: Selector, *, wait: timedelta, poll: timedelta) -> Resolution:
        """The first Complete export in the service's order, waited for while there is none.

        Waits only while nothing that matches is Complete and something may become it. Raises NoExport.
        """
        deadline = self._clock.monotonic() + wait.total_seconds()
        hint: str | None = None
        while True:
            look = await self._search(selector)
            if look.chosen is not None and look.newest is not None:
                return Resolution(look.chosen, look.newest.id, look.newest.status, look.server_time)
            if hint is None:
                hint = await self._find_hint(look, selector)
            left = deadline - self._clock.monotonic()
            message = _no_export_message(look, selector)
            if left <= 0 or _is_hopeless(look, selector):
                waited = f" (waited {wait.total_seconds():.0f} s)" if wait and not _is_hopeless(look, selector) else ""
                raise NoExport(message + waited, hint=hint)
            pause = min(poll.total_seconds(), left)
            self._observe(Waiting(message, hint, pause))
            await self._clock.sleep(pause)

    async def _search(self, selector: Selector) -> ExportSearchResult:
        look = ExportSearchResult()
        top = FULL_PAGE_ROWS if selector.export_id else LATEST_PAGE_ROWS
        async for page in self.pages(replace(selector, export_id=None), top=top):
            for row in page.rows:
                look.newest = look.newest or row
                if not matches(row, selector):
                    continue
                look.row_count += 1
                if row.is_complete:
                    look.chosen, look.server_time = row, page.server_time
                    return look
                if row.status.lower() == Status.INVALID.lower():
                    look.invalid = look.invalid or row
                else:
                    look.unfinished_count += 1
        return look

    async def _find_hint(self, result: ExportSearchResult, selector: Selector) -> str:
        """What to tell who finds nothing; asks once more, without the type, when nothing of the type is listed."""
        if result.row_count or result.newest or not selector.export_type:
            return "`tilesync exports` shows what the service has"
        others = {
            row.type async for row in self._list_rows(replace(selector, export_type="")) if row.is_complete and row.type
        }
        if others:
            return f"a finished export of another type is there: --export-type {' or '.join(sorted(others))}"
        return f"check the iModel id; the first generation takes a while; {MEMBERSHIP_HINT}"

    async def _list_rows(self, selector: Selector) -> AsyncIterator[Export]:
        async for page in self.pages(selector, top=LATEST_PAGE_ROWS):
            for row in page.rows:
                yield row

    async def fetch_link(self, export: Export, *, cdn: bool = False) -> tuple[SasUrl, datetime | None]:
        """A new link to one export, and the service's time. Raises ExportReplaced when it is no longer there."""
        selector = Selector(imodel=export.imodel, export_type=export.type)
        async for page in self.pages(selector, top=LATEST_PAGE_ROWS, cdn=cdn):
            for row in page.rows:
                if row.id == export.id:
                    return _require_link(row), page.server_time
        raise ExportReplaced(f"the service no longer lists export {export.id}")


def _require_link(export: Export) -> SasUrl:
    if not export.is_complete:
        raise ExportReplaced(f"export {export.id} is {export.status} now")
    if export.link is None:
        raise Unavailable(f"the service gives no link to export {export.id}", hint="check the identity's permissions")
    return export.link


def _query_filters(selector: Selector, *, cdn: bool) -> dict[str, str]:
    filters = {
        "iModelId": selector.imodel,
        "changesetId": selector.changeset,
        "exportType": selector.export_type,
        "tileVersion": selector.tile_version,
        "iTwinJS": selector.itwinjs,
        "cdn": "1" if cdn else None,
    }
    return {key: value for key, value in filters.items() if value}


def _is_hopeless(result: ExportSearchResult, selector: Selector) -> bool:
    """Whether waiting cannot help: every match is Invalid, or the one named by its id is not there."""
    return not result.unfinished_count and (result.invalid is not None or selector.export_id is not None)


def _no_export_message(result: ExportSearchResult, selector: Selector) -> str:
    if not result.row_count and selector.changeset:
        return f"there is no export of changeset {selector.changeset}, or this identity cannot see it"
    if result.unfinished_count:
        return "no matching export is Complete yet"
    if result.invalid is not None:
        reason = f" ({result.invalid.error})" if result.invalid.error else ""
        return f"every matching export is Invalid{reason}"
    if selector.export_id:
        return f"the service lists no export {selector.export_id}"
    return "there is no export yet, or this identity cannot see the iModel"


def _raise_for_verdict(verdict: Verdict, status: int, message: str, *, remedy: str) -> None:
    said = f": {message}" if message else ""
    if verdict is Verdict.DENIED:
        raise NotAuthorised(f"the service refuses the token ({status}{said})", hint=remedy)
    if verdict is Verdict.FORBIDDEN:
        raise NotAuthorised(f"this identity may not see these exports ({status}{said})", hint=MEMBERSHIP_HINT)
    if verdict is Verdict.INVALID:
        raise InvalidRequest(f"the service calls the request invalid ({status}{said})")
    if verdict is Verdict.MISSING:
        raise NoExport(f"the service knows nothing of this ({status}{said})", hint="check the iModel id and --api-url")
