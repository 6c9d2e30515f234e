"""Pages of the lists of the iTwin Platform: one client for exports, iModels and iTwins."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import field
from datetime import datetime
from functools import partial
from typing import Generic, TypeVar
from urllib.parse import urlencode, urlsplit, urlunsplit

from tilesync.core.http_status import Verdict, raise_for_status
from tilesync.core.masking import split_secret
from tilesync.errors import AllCallsWait, InvalidRequest, NoExport, NotAuthorised, Transient, Unavailable
from tilesync.itwin.responses import api_message, classify_api_status
from tilesync.protocols import TokenProvider
from tilesync.transport.api_client import ApiClient, ApiRequest, ApiResponse
from tilesync.transport.api_pace import ApiPace
from tilesync.transport.retry import retry_after_seconds
from tilesync.values import dataclass

R = TypeVar("R")

MAX_IDLE_PAGES = 20
"""Maximum number of consecutive pages without a new row."""

DEFAULT_PAUSE_S = 5.0
"""Seconds that all calls wait after a 429 without Retry-After."""

MAX_PAUSE_S = 300.0
"""Longest Retry-After, in seconds, that calls with a pace wait, unless the retry budget is longer."""

MAX_TOKEN_RENEWALS = 2
"""Refusals of a token after which a fresh one is tried."""

MEMBERSHIP_HINT = (
    "a service application sees an iModel only when CLIENT_ID@apps.imsoidc.bentley.com is a member of its iTwin"
)

_API_ROOTS = ("/mesh-export", "/imodels", "/itwins")

PageParser = Callable[[bytes, Iterable[str]], tuple[list[R], dict[str, str] | None]]
"""Parses a page, without the given secrets, into its rows and the query of the next page, None if it is the last."""


@dataclass(frozen=True, slots=True)
class ListPage(Generic[R]):
    """One page of a list in the order of the service, with the server's time."""

    rows: list[R]
    next_query: dict[str, str] | None
    server_time: datetime | None


@dataclass(frozen=True, slots=True)
class ListEndpoint(Generic[R]):
    """A list of the service: its address, its headers, the parser of a page, and its words in messages.

    `api` names it in messages: "the iModels API". `rows`: "iModels". `forbidden`, `missing`: the message for 403 and
    404, without status; `missing_hint`: the hint for the latter.
    """

    url: str
    api: str
    rows: str
    headers: Mapping[str, str]
    parse: PageParser[R]
    row_id: Callable[[R], str]
    forbidden: str
    missing: str
    missing_hint: str
    forbidden_hint: str = MEMBERSHIP_HINT

    @property
    def server(self) -> str:
        """Name of the server in messages, with its host."""
        return f"{self.api} ({urlsplit(self.url).netloc})"


@dataclass(frozen=True, slots=True)
class ListQuery:
    """Query of a list. `filters` are sent with each page, whatever the service's `next` link says."""

    top: int
    filters: Mapping[str, str] = field(default_factory=dict)
    urgent: bool = False
    """Whether its calls go before all others that wait for their turn."""


def endpoint_url(api_url: str, root: str) -> str:
    """Return the address of a list below the API's address, which may be written with or without one of its paths."""
    parts = urlsplit(api_url)
    path = parts.path.rstrip("/")
    for known in _API_ROOTS:
        path = path.removesuffix(known)
    return urlunsplit((parts.scheme, parts.netloc, f"{path}/{root}/", "", ""))


class ApiPages:
    """Client of the service's lists with one identity. With `pace`, each attempt waits for its turn."""

    def __init__(self, token: TokenProvider, api_client: ApiClient, *, pace: ApiPace | None = None) -> None:
        self._token = token
        self._api_client = api_client
        self._pace = pace

    async def pages(self, endpoint: ListEndpoint[R], query: ListQuery) -> AsyncIterator[ListPage[R]]:
        """Yield the pages of a list in the service's order.

        Of the service's `next` link only the query is used: the next page is requested from the configured address and
        with the same filters, since the link may name another host or lose a filter. Raises Unavailable for a list that
        repeats itself, and the RunErrors of the service.
        """
        next_query, sent_queries = dict[str, str](), set[str]()
        known_ids, idle_pages = set[str](), 0
        while True:
            text = urlencode({"$top": str(query.top), **next_query, **query.filters}, safe="$:,")
            if text in sent_queries:
                raise Unavailable(f"the pages of the service's list of {endpoint.rows} repeat in a loop")
            sent_queries.add(text)
            page = await self._fetch(endpoint, text, urgent=query.urgent)
            yield page
            if page.next_query is None:
                return
            new_ids = {endpoint.row_id(row) for row in page.rows} - known_ids
            known_ids, idle_pages = known_ids | new_ids, 0 if new_ids else idle_pages + 1
            if idle_pages > MAX_IDLE_PAGES:
                raise Unavailable(
                    f"{idle_pages} consecutive pages of the service's list of {endpoint.rows} contained nothing new"
                )
            next_query = page.next_query

    async def _fetch(self, endpoint: ListEndpoint[R], query: str, *, urgent: bool) -> ListPage[R]:
        sent_header, refusals = "", 0

        async def build_request() -> ApiRequest:
            nonlocal sent_header
            sent_header = await self._token.header()
            return ApiRequest(f"{endpoint.url}?{query}", {"Authorization": sent_header, **endpoint.headers})

        async def read_response(response: ApiResponse) -> ListPage[R]:
            nonlocal refusals
            body = await response.read()
            verdict = classify_api_status(response.status)
            if verdict is Verdict.DENIED and refusals < MAX_TOKEN_RENEWALS:
                refusals += 1
                if await self._token.renew_refused(sent_header):
                    raise Transient("the service refused the token; a fresh one is used", retry_after=0)
            secrets = split_secret(sent_header)
            self._raise_for_verdict(endpoint, verdict, response.status, api_message(body, secrets))
            self._raise_for_failure(endpoint, verdict, response)
            rows, next_query = endpoint.parse(body, secrets)
            return ListPage(rows, next_query, response.server_time())

        take_turn = partial(self._take_turn, endpoint.server, urgent=urgent)
        return await self._api_client.request(endpoint.server, build_request, read_response, take_turn=take_turn)

    @asynccontextmanager
    async def _take_turn(self, server: str, *, urgent: bool) -> AsyncIterator[None]:
        """Wait for a turn and use it. The token is fetched before, so that the call begins at its turn."""
        if self._pace is None:
            yield
            return
        await self._token.header()
        async with self._pace.turn(urgent=urgent, max_pause_s=self._max_pause_s):
            yield

    @property
    def _max_pause_s(self) -> float:
        return max(MAX_PAUSE_S, self._api_client.budget.total_seconds())

    def _raise_for_failure(self, endpoint: ListEndpoint[R], verdict: Verdict, response: ApiResponse) -> None:
        """Raise for a response that a retry may cure. With a pace, a 429 makes all calls wait, this one among them.

        Raises Unavailable if that takes too long for this one.
        """
        wait_s = retry_after_seconds(response.header)
        if self._pace is not None and verdict is Verdict.THROTTLED:
            pause_s = DEFAULT_PAUSE_S if wait_s is None else wait_s
            self._pace.pause(pause_s)
            if pause_s > self._max_pause_s:
                raise Unavailable(f"{endpoint.server} answered 429; it asks to wait {pause_s:.0f} s")
            raise AllCallsWait(f"the service answered 429; all API calls wait {pause_s:.0f} s", is_throttled=True)
        raise_for_status(
            verdict,
            response.status,
            wait_s,
            "the service",
            "is --api-url (TILESYNC_API_URL) the service's address?",
        )

    def _raise_for_verdict(self, endpoint: ListEndpoint[R], verdict: Verdict, status: int, message: str) -> None:
        detail = f"{status}: {message}" if message else f"{status}"
        if verdict is Verdict.DENIED:
            raise NotAuthorised(f"the service refuses the token ({detail})", hint=self._token.remedy)
        if verdict is Verdict.FORBIDDEN:
            raise NotAuthorised(f"{endpoint.forbidden} ({detail})", hint=endpoint.forbidden_hint)
        if verdict is Verdict.INVALID:
            raise InvalidRequest(f"the service rejects the request as invalid ({detail})")
        if verdict is Verdict.MISSING:
            raise NoExport(f"{endpoint.missing} ({detail})", hint=endpoint.missing_hint)
