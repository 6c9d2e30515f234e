"""Client of the Mesh Export API: list exports, find the latest finished one, and get a fresh link to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from tilesync.core.retention import find_next_deleted
from tilesync.errors import ExportReplaced, NoExport, Unavailable
from tilesync.events import Waiting
from tilesync.itwin.api_pages import MEMBERSHIP_HINT, ApiPages, ListEndpoint, ListPage, ListQuery, endpoint_url
from tilesync.itwin.responses import parse_exports
from tilesync.model import Export, Resolution, SasUrl, Selector, Status
from tilesync.protocols import Clock, Observer, TokenProvider
from tilesync.transport.api_client import ApiClient
from tilesync.transport.api_pace import ApiPace
from tilesync.values import dataclass

API_MEDIA_TYPE = "application/vnd.bentley.itwin-platform.v1+json"

LATEST_PAGE_ROWS = 10
"""Rows per page when searching for the latest: the service keeps five for each iModel, and each row takes time."""

FULL_PAGE_ROWS = 100

ExportPage = ListPage[Export]
"""One page of exports."""


def matches(export: Export, selector: Selector) -> bool:
    """Return whether an export matches the selector; the service filters too, but a later page may lose the filter.

    The rows do not contain tileVersion and iTwinJS: only the service filters by those.
    """
    return (
        (not selector.imodel or export.imodel is None or export.imodel.lower() == selector.imodel.lower())
        and (not selector.changeset or export.changeset == selector.changeset)
        and (not selector.export_type or not export.type or export.type.lower() == selector.export_type.lower())
        and (not selector.export_id or export.id.lower() == selector.export_id.lower())
    )


def find_endangered(rows: Sequence[Export]) -> tuple[Export, ...]:
    """Return the finished exports that the service deletes when it makes the next one; `rows` are all, newest first."""
    return tuple(row for row in find_next_deleted(rows) if row.is_complete)


@dataclass
class ExportSearchResult:
    """Result of one search in the list. `chosen`: the first Complete export that matches. `newest`: the first row."""

    chosen: Export | None = None
    newest: Export | None = None
    row_count: int = 0
    unfinished_count: int = 0
    invalid: Export | None = None
    server_time: datetime | None = None
    next_deleted: tuple[Export, ...] = ()


class MeshExports:
    """Client for the exports that an identity can see."""

    def __init__(
        self,
        api_url: str,
        token: TokenProvider,
        api_client: ApiClient,
        clock: Clock,
        observe: Observer,
        *,
        pace: ApiPace | None = None,
    ) -> None:
        self._endpoint = ListEndpoint(
            endpoint_url(api_url, "mesh-export"),
            api="the Mesh Export API",
            rows="exports",
            headers={"Accept": API_MEDIA_TYPE, "Prefer": "return=representation"},
            parse=lambda body, secrets: parse_exports(body, fetched=clock.monotonic(), secrets=secrets),
            row_id=lambda export: export.id,
            forbidden="this identity may not see these exports",
            missing="the service finds no such iModel or export",
            missing_hint="check the iModel id and --api-url",
        )
        self._pages = ApiPages(token, api_client, pace=pace)
        self._clock = clock
        self._observe = observe

    async def pages(
        self, selector: Selector, *, top: int = FULL_PAGE_ROWS, cdn: bool = False, urgent: bool = False
    ) -> AsyncIterator[ExportPage]:
        """Yield the pages of the list, newest changeset first, without the rows that do not match the selector.

        `urgent`: before all other calls that wait for their turn. Raises the RunErrors of the service.
        """
        query = ListQuery(top, _query_filters(selector, cdn=cdn), urgent=urgent)
        async for page in self._pages.pages(self._endpoint, query):
            yield replace(page, rows=[row for row in page.rows if matches(row, selector)])

    async def find_latest(self, selector: Selector, *, wait: timedelta, poll: timedelta) -> Resolution:
        """Find the first Complete export in the service's order.

        Waits up to `wait` as long as none is Complete but one may still become so. Raises NoExport.
        """
        deadline = self._clock.monotonic() + wait.total_seconds()
        hint: str | None = None
        while True:
            result = await self._search(selector)
            if result.chosen is not None and result.newest is not None:
                return Resolution(
                    result.chosen,
                    result.newest.id,
                    result.newest.status,
                    result.server_time,
                    newest_modified=result.newest.modified,
                    next_deleted=result.next_deleted,
                )
            if hint is None:
                hint = await self._find_hint(result, selector)
            left_s = deadline - self._clock.monotonic()
            message = _no_export_message(result, selector)
            if left_s <= 0 or _is_hopeless(result, selector):
                waited = (
                    f" (waited {wait.total_seconds():.0f} s)" if wait and not _is_hopeless(result, selector) else ""
                )
                raise NoExport(message + waited, hint=hint)
            pause_s = min(poll.total_seconds(), left_s)
            self._observe(Waiting(message, hint, pause_s))
            await self._clock.sleep(pause_s)

    async def _search(self, selector: Selector) -> ExportSearchResult:
        result = ExportSearchResult()
        top = FULL_PAGE_ROWS if selector.export_id else LATEST_PAGE_ROWS
        async for page in self.pages(replace(selector, export_id=None), top=top):
            if page.next_query is None and selector.imodel and result.newest is None:  # the page has all exports
                result.next_deleted = find_endangered(page.rows)
            for row in page.rows:
                result.newest = result.newest or row
                if not matches(row, selector):
                    continue
                result.row_count += 1
                if row.is_complete:
                    result.chosen, result.server_time = row, page.server_time
                    return result
                if row.status.lower() == Status.INVALID.lower():
                    result.invalid = result.invalid or row
                else:
                    result.unfinished_count += 1
        return result

    async def _find_hint(self, result: ExportSearchResult, selector: Selector) -> str:
        """Choose the hint for a search without a result. If the type has no exports, look for other types."""
        if result.row_count or result.newest or not selector.export_type:
            return "`tilesync exports` shows what the service has"
        other_types = {
            row.type async for row in self._list_rows(replace(selector, export_type="")) if row.is_complete and row.type
        }
        if other_types:
            return f"there is a finished export of another type: --export-type {' or '.join(sorted(other_types))}"
        return f"check the iModel id; the first generation takes a while; {MEMBERSHIP_HINT}"

    async def _list_rows(self, selector: Selector) -> AsyncIterator[Export]:
        async for page in self.pages(selector, top=LATEST_PAGE_ROWS):
            for row in page.rows:
                yield row

    async def fetch_link(self, export: Export, *, cdn: bool = False) -> tuple[SasUrl, datetime | None]:
        """Get a new link to one export, with the service's time. Raises ExportReplaced when it is no longer listed.

        Transfers wait for a link, so that it goes before all other calls.
        """
        selector = Selector(imodel=export.imodel, export_type=export.type)
        async for page in self.pages(selector, top=LATEST_PAGE_ROWS, cdn=cdn, urgent=True):
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
    """Return whether waiting cannot help: every match is Invalid, or the export given by its id is not listed."""
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
