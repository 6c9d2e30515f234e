"""Client of the iModels API and the iTwins API: requests as documented, pages, foreign rows, and errors with hints."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any, TypeVar

import pytest

from tests.support.builders import IMODEL
from tests.support.clock import FakeClock
from tests.support.faults import error_response, is_api
from tests.support.fleet_service import fill_fleet, make_id
from tests.support.simulator import JobOutcome, Simulator
from tilesync.demo.loopback_server import FakeRequest, FakeResponse
from tilesync.errors import InvalidRequest, NoExport, NotAuthorised, Unavailable
from tilesync.itwin.auth import BearerTokenProvider
from tilesync.itwin.imodels import PAGE_ROWS, IModels
from tilesync.itwin.responses import IModelRow, ITwinRow
from tilesync.model import Secret
from tilesync.transport.api_client import open_api_client

T = TypeVar("T")

ITWIN = make_id("itwin", 0)


def collect(sim: Simulator, start: Callable[[IModels], AsyncIterator[T]], *tokens: str, budget: float = 60) -> list[T]:
    """Collect the rows of a list. `tokens` are used one after the other; the last one stays."""
    waiting, clock = list(tokens or (sim.token,)), FakeClock()

    async def fetch() -> tuple[Secret, None]:
        return Secret(waiting.pop(0) if len(waiting) > 1 else waiting[0]), None

    async def main() -> list[T]:
        async with open_api_client(clock, JobOutcome(), budget=timedelta(seconds=budget)) as api_client:
            imodels = IModels(sim.url, BearerTokenProvider(fetch, clock), api_client)
            async with asyncio.timeout(30):
                return [row async for row in start(imodels)]

    return asyncio.run(main())


def list_imodels(sim: Simulator, *tokens: str, itwin: str = ITWIN, budget: float = 60) -> list[IModelRow]:
    return collect(sim, lambda imodels: imodels.list(itwin), *tokens, budget=budget)


def list_itwins(sim: Simulator, *tokens: str) -> list[ITwinRow]:
    return collect(sim, lambda imodels: imodels.list_itwins(), *tokens)


def answer_with(sim: Simulator, *rows: Any, key: str = "iModels", following: Any = None) -> None:
    """Answer each call with this page; `following`: the value of `next`."""
    body = json.dumps({key: rows, "_links": {"next": following}}).encode()
    sim.add_fault(is_api, error_response(200, body=body), times=None)


def test_the_imodels_of_an_itwin(service: Simulator) -> None:
    """Each iModel of this iTwin, in the order of the service, with its name as it is; others are left out."""
    fleet = fill_fleet(service, 4, itwins=2)
    fleet.give_same_name(0, 2)
    assert list_imodels(service) == [
        IModelRow(make_id("imodel", 0), "Bridge 0000"),
        IModelRow(make_id("imodel", 2), "Bridge 0000"),
    ]


def test_requests_are_as_documented(service: Simulator) -> None:
    """Address, headers and query are those of "Get iTwin iModels" (v2) and "Get my iTwins" (v1)."""
    fill_fleet(service, 1)
    list_imodels(service)
    list_itwins(service)
    imodels, itwins = service.api_requests
    assert imodels.path == "/imodels/"
    assert imodels.query == {"iTwinId": ITWIN, "$top": "1000"}
    assert imodels.headers["accept"] == "application/vnd.bentley.itwin-platform.v2+json"
    assert imodels.headers["authorization"] == "Bearer demo"
    assert imodels.headers["prefer"] == "return=minimal"
    assert itwins.path == "/itwins/"
    assert itwins.query == {"subClass": "Asset,Project", "$top": "1000"}
    assert itwins.headers["accept"] == "application/vnd.bentley.itwin-platform.v1+json"
    assert itwins.headers["x-max-return"] == "10000"


def test_an_itwin_of_several_pages(service: Simulator) -> None:
    """2,500 iModels are listed by three calls; `next: null` ends the list."""
    service.add_itwin(ITWIN, "Harbour")
    for number in range(2500):
        service.add_imodel(make_id("imodel", number), ITWIN, f"Bridge {number}")
    assert [row.id for row in list_imodels(service)] == [make_id("imodel", number) for number in range(2500)]
    assert [request.query.get("$skip") for request in service.api_requests] == [None, "1000", "2000"]


def test_a_next_link_with_a_token(service: Simulator) -> None:
    """Of `next` only the query is used, also a `$continuationToken`; the address and the iTwin stay ours."""
    pages = {
        None: ([{"id": make_id("imodel", 0)}], {"href": "https://elsewhere.invalid/x?$continuationToken=a%2Bb&$top=7"}),
        "a+b": ([{"id": make_id("imodel", 1)}], None),
    }

    def respond(request: FakeRequest, _: Any) -> FakeResponse:
        rows, following = pages[request.query.get("$continuationToken")]
        return FakeResponse(200, json.dumps({"iModels": rows, "_links": {"next": following}}).encode())

    service.add_fault(is_api, respond, times=None)
    assert [row.id for row in list_imodels(service)] == [make_id("imodel", 0), make_id("imodel", 1)]
    assert [request.query["iTwinId"] for request in service.api_requests] == [ITWIN, ITWIN]


def test_rows_that_a_later_page_repeats(service: Simulator) -> None:
    """An iModel that slides to the next page while the list is read is returned once."""
    service.add_itwin(ITWIN, "Harbour")
    for number in range(PAGE_ROWS + 1):
        service.add_imodel(make_id("imodel", number), ITWIN, "Bridge")

    def add_at_front() -> None:
        known = dict(service.directory.imodels)
        service.directory.imodels.clear()
        service.add_imodel(make_id("imodel", 5000), ITWIN, "New")
        service.directory.imodels.update(known)

    service.run_before_request(2, is_api, add_at_front)
    assert [row.id for row in list_imodels(service)] == [make_id("imodel", n) for n in range(PAGE_ROWS + 1)]


def test_a_list_that_repeats_itself(service: Simulator) -> None:
    """`next` links that lead in a circle, or to pages without new rows, end with Unavailable."""
    answer_with(service, {"id": IMODEL}, following={"href": "https://x.invalid/?$skip=10"})
    with pytest.raises(Unavailable, match="list of iModels repeat in a loop"):
        list_imodels(service)


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"id": IMODEL}, ""),
        ({"id": IMODEL, "displayName": None}, ""),
        ({"id": IMODEL, "displayName": ["x"]}, ""),
        ({"id": IMODEL, "displayName": "../\u00e4 \u2603/*", "state": 7}, "../\u00e4 \u2603/*"),
        ({"id": IMODEL, "displayName": "n" * 9999}, "n" * 4096),
        ({"id": IMODEL, "displayName": "see ?sig=abcdefghijkl"}, "see ?sig=\u2026"),
        ({"id": IMODEL, "displayName": "echo secret-token"}, "echo \u2026"),
    ],
)
def test_display_names_are_free_text(service: Simulator, row: dict[str, Any], name: str) -> None:
    """A name of any kind is text; what looks like a secret in it is masked, and a missing one is empty."""
    answer_with(service, row)
    assert list_imodels(service, "secret-token") == [IModelRow(IMODEL, name)]


def test_ids_are_in_lower_case(service: Simulator) -> None:
    """An id is the same however the service writes it."""
    answer_with(service, {"id": make_id("imodel", 3).upper(), "displayName": "x"})
    assert list_imodels(service) == [IModelRow(make_id("imodel", 3), "x")]


@pytest.mark.parametrize("row", [{}, {"id": 7}, {"id": "../../etc"}, {"id": ""}, "text", None])
def test_a_row_without_an_id(service: Simulator, row: Any) -> None:
    """A row whose id is missing, or no GUID, is an error of the service, never a path or a query of ours."""
    answer_with(service, row)
    with pytest.raises(Unavailable, match="not a list of iModels"):
        list_imodels(service, budget=1)


@pytest.mark.parametrize("body", [b"<html>login</html>", b'{"iModels": null}', b"[]", b""])
def test_a_body_that_is_no_list(service: Simulator, body: bytes) -> None:
    """Anything but a list ends with Unavailable, never with an empty list: nothing would be mirrored."""
    service.add_fault(is_api, error_response(200, body=body), times=None)
    with pytest.raises(Unavailable, match="not a list of iModels"):
        list_imodels(service, budget=1)


# --- errors ---


def test_a_refused_token_is_renewed(service: Simulator) -> None:
    """401, then a fresh token: the list arrives."""
    fill_fleet(service, 1)
    assert len(list_imodels(service, "old", "demo")) == 1
    assert [r.headers["authorization"] for r in service.api_requests] == ["Bearer old", "Bearer demo"]


def test_an_itwin_that_refuses_the_token(service: Simulator) -> None:
    """401 that a fresh token does not cure ends with exit 5."""
    fill_fleet(service, 1).refuse_itwin(0, 401)
    with pytest.raises(NotAuthorised, match="refuses the token") as caught:
        list_imodels(service)
    assert caught.value.exit_code == 5


def test_a_forbidden_itwin_says_who_must_be_a_member(service: Simulator) -> None:
    """403: the hint names the member to add, and the permission."""
    fill_fleet(service, 1).refuse_itwin(0, 403)
    with pytest.raises(NotAuthorised, match="may not see the iModels of this iTwin") as caught:
        list_imodels(service)
    assert "CLIENT_ID@apps.imsoidc.bentley.com" in caught.value.hint
    assert "imodels_webview" in caught.value.hint


def test_an_unknown_itwin(service: Simulator) -> None:
    """404: the hint names both causes, a wrong id and a missing membership."""
    with pytest.raises(NoExport, match="finds no such iTwin") as caught:
        list_imodels(service)
    assert "check the iTwin id" in caught.value.hint
    assert "members of the iTwin" in caught.value.hint


def test_a_request_that_the_service_rejects(service: Simulator) -> None:
    """422: the service's details are in the message."""
    fill_fleet(service, 1)
    with pytest.raises(InvalidRequest, match="iTwinId: Required"):
        list_imodels(service, itwin="")


def test_the_token_is_never_in_a_message(service: Simulator) -> None:
    """A service that repeats the token in its error does not bring it into ours."""
    body = json.dumps({"error": {"code": "X", "message": "no access with secret-token"}}).encode()
    service.add_fault(is_api, error_response(403, body=body))
    with pytest.raises(NotAuthorised) as caught:
        list_imodels(service, "secret-token")
    assert "secret-token" not in f"{caught.value} {caught.value.hint}"


# --- iTwins ---


def test_the_itwins_of_an_identity(service: Simulator) -> None:
    """The iTwins that this identity can see, over all pages, also beyond the service's default of 1,000."""
    service.add_itwin(make_id("itwin", 0), "Other", token="other")
    for number in range(1, 1200):
        service.add_itwin(make_id("itwin", number), f"Project {number}")
    assert list_itwins(service)[0] == ITwinRow(make_id("itwin", 1), "Project 1")
    assert len(list_itwins(service)) == 1199
    assert list_itwins(service, "other")[0] == ITwinRow(make_id("itwin", 0), "Other")
