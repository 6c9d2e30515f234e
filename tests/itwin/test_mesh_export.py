"""Client of the Mesh Export API: find the latest export, wait for it, and map errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import pytest

from tests.support.builders import IMODEL, export
from tests.support.clock import FakeClock
from tests.support.faults import delay, error_response, is_api
from tests.support.simulator import EXPORT, OTHER_EXPORT, JobOutcome, Simulator
from tilesync.demo.loopback_server import FakeRequest, FakeResponse
from tilesync.errors import ExportReplaced, InvalidRequest, NoExport, NotAuthorised, TilesyncError, Unavailable
from tilesync.events import Retried, Waiting
from tilesync.itwin.auth import BearerTokenProvider, read_environment_token
from tilesync.itwin.mesh_export import MeshExports, matches
from tilesync.model import Export, Resolution, SasUrl, Secret, Selector
from tilesync.transport.api_client import open_api_client

T = TypeVar("T")

SELECTOR = Selector(imodel=IMODEL, export_type="3DTiles")
THIRD = "cccccccc-0000-4000-8000-000000000003"


def run_with_client(
    sim: Simulator, job: Callable[[MeshExports], Awaitable[T]], *, clock: FakeClock | None = None,
    run: JobOutcome | None = None, token: Any = None, budget: float = 60, url: str = "",
) -> T:  # fmt: skip
    """Run `job` with a client of the simulator's API."""
    clock, run = clock or FakeClock(), run if run is not None else JobOutcome()

    async def work() -> T:
        async with open_api_client(clock, run, budget=timedelta(seconds=budget)) as conversation:
            who = token or BearerTokenProvider(lambda: read_environment_token(Secret(sim.token)), clock)
            async with asyncio.timeout(30):
                return await job(MeshExports(url or sim.url, who, conversation, clock, run))

    return asyncio.run(work())


def latest(
    sim: Simulator, selector: Selector = SELECTOR, *, wait: float = 0, poll: float = 15, **how: Any
) -> Resolution:
    return run_with_client(
        sim,
        lambda exports: exports.find_latest(selector, wait=timedelta(seconds=wait), poll=timedelta(seconds=poll)),
        **how,
    )


# --- the latest ---


def test_the_latest_is_the_first_complete_row(service: Simulator) -> None:
    """The first Complete row in the service's order is chosen; newer incomplete ones are only reported."""
    service.offer_export()
    service.offer_export(export_id=OTHER_EXPORT, lastModified="2020-01-01T00:00:00Z")
    service.offer_export(export_id=THIRD, status="InProgress")
    result = latest(service)
    assert (result.export.id, result.newest, result.newest_status, result.behind) == (
        OTHER_EXPORT,
        THIRD,
        "InProgress",
        True,
    )


def test_a_link_does_not_mean_complete(service: Simulator) -> None:
    """Rows with a link that are not Complete are skipped."""
    service.offer_export()
    for number, status in enumerate(("NotStarted", "InProgress", "Invalid")):
        service.offer_export(export_id=f"dddddddd-0000-4000-8000-00000000000{number}", status=status)
    assert latest(service).export.id == EXPORT


def test_it_stops_at_the_first_complete_row(service: Simulator) -> None:
    """No page after that of the latest is requested."""
    for number in range(25):
        service.offer_export(export(1), export_id=f"dddddddd-0000-4000-8000-0000000000{number:02d}")
    latest(service)
    assert len(service.api_requests) == 1


@pytest.mark.parametrize("wanted", ["3dtiles", "3DTILES", "3DTiles"])
def test_the_type_compares_without_case(service: Simulator, wanted: str) -> None:
    """`--export-type 3dtiles` finds 3DTiles, whatever the service's filter does with it."""
    service.offer_export()
    assert latest(service, replace(SELECTOR, export_type=wanted)).export.id == EXPORT


def test_request_is_as_documented(service: Simulator) -> None:
    """Address, headers and query are those of get-exports: ten rows, filters, whole rows."""
    service.offer_export()
    latest(
        service,
        replace(SELECTOR, changeset=service.exports[0]["request"]["changesetId"], tile_version="1", itwinjs="4"),
    )
    (request,) = service.api_requests
    assert request.path == "/mesh-export/"
    assert request.headers["authorization"] == "Bearer demo"
    assert request.headers["accept"] == "application/vnd.bentley.itwin-platform.v1+json"
    assert request.headers["prefer"] == "return=representation"
    assert request.query == {
        "$top": "10", "iModelId": IMODEL, "exportType": "3DTiles", "tileVersion": "1", "iTwinJS": "4",
        "changesetId": service.exports[0]["request"]["changesetId"],
    }  # fmt: skip


def test_pages_use_our_address_and_filters(service: Simulator) -> None:
    """If `next` names a foreign host and drops the filters, the next page still uses our address and filters."""
    service.offer_export()
    for number in range(23):
        service.offer_export(export(1), export_id=f"dddddddd-0000-4000-8000-0000000000{number:02d}", status="Invalid")
    result = latest(service)
    assert result.export.id == EXPORT
    assert [r.query.get("$skip") for r in service.api_requests] == [None, "10", "20"]
    assert all(r.query["iModelId"] == IMODEL and r.query["exportType"] == "3DTiles" for r in service.api_requests)
    assert all(r.headers["authorization"] == "Bearer demo" for r in service.api_requests)


def test_rows_are_filtered_again(service: Simulator) -> None:
    """If a service ignores its filters, foreign iModels and types are neither chosen nor reported as newest."""
    service.offer_export()
    service.offer_export(export_id=OTHER_EXPORT, request={"iModelId": "someone else's", "changesetId": "x"})
    service.offer_export(export_id=THIRD, request={"iModelId": IMODEL, "changesetId": "x", "exportType": "IMODEL"})
    rows = [service._build_export_row(row, _representation()) for row in service.exports]
    body = json.dumps({"exports": rows, "_links": {}}).encode()
    service.add_fault(is_api, error_response(200, body=body))
    result = latest(service)
    assert (result.export.id, result.newest) == (EXPORT, EXPORT)


def _representation() -> Any:
    return FakeRequest("/mesh-export/", {}, {"prefer": "return=representation"})


def test_loop_of_next_links(service: Simulator) -> None:
    """A `next` link to an earlier page ends with Unavailable, not in an endless loop."""
    service.offer_export(status="Invalid")
    row = service._build_export_row(service.exports[0], _representation())
    body = json.dumps({"exports": [row], "_links": {"next": {"href": "https://x.invalid/?$skip=10"}}}).encode()
    service.add_fault(is_api, error_response(200, body=body), times=None)
    with pytest.raises(Unavailable, match="repeat in a loop"):
        latest(service)
    assert len(service.api_requests) <= 3


@pytest.mark.parametrize("rows", [0, 1])
def test_pages_without_new_rows(service: Simulator, rows: int) -> None:
    """A list with ever new `next` links and no new rows is given up."""
    service.offer_export(status="Invalid")
    some = [service._build_export_row(service.exports[0], _representation())][:rows]

    def page(_: Any, __: Any) -> Any:
        following = {"next": {"href": f"https://x.invalid/?$skip={len(service.api_requests)}"}}
        return FakeResponse(200, json.dumps({"exports": some, "_links": following}).encode())

    service.add_fault(is_api, page, times=None)
    with pytest.raises(Unavailable, match="consecutive pages of the service's list of exports contained nothing new"):
        latest(service)
    assert len(service.api_requests) <= 30


def test_a_changeset_and_an_id_select(service: Simulator) -> None:
    """--changeset-id and --export-id find older exports, and report the newest of the selection."""
    service.offer_export()
    changeset = service.exports[0]["request"]["changesetId"]
    service.offer_export(export_id=OTHER_EXPORT)
    assert latest(service, replace(SELECTOR, changeset=changeset)).export.id == EXPORT
    result = latest(service, replace(SELECTOR, export_id=EXPORT))
    assert (result.export.id, result.newest, result.behind) == (EXPORT, OTHER_EXPORT, True)


def test_an_export_id_is_found_on_later_pages(service: Simulator) -> None:
    """--export-id searches all pages."""
    service.offer_export()
    for number in range(120):
        service.exports.insert(0, {**service.exports[-1], "id": f"n{number}"})
    assert latest(service, replace(SELECTOR, export_id=EXPORT)).export.id == EXPORT


@pytest.mark.parametrize("suffix", ["", "/", "/mesh-export", "/mesh-export/"])
def test_the_api_url_may_be_written_in_several_ways(service: Simulator, suffix: str) -> None:
    """The address with and without the path of the service is the same."""
    service.offer_export()
    latest(service, url=service.url + suffix)
    assert service.api_requests[0].path == "/mesh-export/"


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (Selector(), True),
        (Selector(imodel="IM"), True),
        (Selector(imodel="other"), False),
        (Selector(export_type="3dTILES"), True),
        (Selector(export_type="IMODEL"), False),
        (Selector(changeset="c"), True),
        (Selector(changeset="d"), False),
        (Selector(export_id="E"), True),
        (Selector(export_id="f"), False),
    ],
)
def test_matches(selector: Selector, expected: bool) -> None:
    """Each field of the selector filters alone; empty ones do not filter."""
    assert matches(Export("e", "Complete", imodel="im", changeset="c", type="3DTiles"), selector) is expected


# --- waiting ---


def test_it_waits_from_empty_over_in_progress_to_complete(service: Simulator) -> None:
    """Nothing, then unfinished, then finished: two polls, then the export."""
    service.offer_export()
    unfinished = [{**service.exports[0], "status": "InProgress"}]
    service.list_exports = lambda look: [] if look <= 2 else unfinished if look == 3 else service.exports
    clock, run = FakeClock(), JobOutcome()
    assert latest(service, wait=600, clock=clock, run=run).export.id == EXPORT
    assert clock.sleeps_s == [15, 15]
    first, second = run.events_of(Waiting)
    assert "no export yet, or this identity cannot see the iModel" in first.message
    assert "not Complete" in second.message or "no matching export is Complete yet" in second.message


def test_wait_limit(service: Simulator) -> None:
    """Past --wait: NoExport, exit 4; the last wait is cut to the remaining time."""
    service.offer_export(status="InProgress")
    clock = FakeClock()
    with pytest.raises(NoExport) as caught:
        latest(service, wait=40, clock=clock)
    assert caught.value.exit_code == 4
    assert clock.sleeps_s == [15, 15, 10]
    assert "waited 40 s" in str(caught.value)


def test_without_waiting(service: Simulator) -> None:
    """--wait 0s: no sleep."""
    clock = FakeClock()
    with pytest.raises(NoExport):
        latest(service, clock=clock)
    assert clock.sleeps_s == []


def test_all_invalid_ends_at_once(service: Simulator) -> None:
    """If every match is Invalid, waiting cannot help; the reason is reported."""
    for export_id in (EXPORT, OTHER_EXPORT):
        service.offer_export(
            export_id=export_id, status="Invalid", error={"code": "X", "message": "the model is empty"}
        )
    clock = FakeClock()
    with pytest.raises(NoExport, match="Invalid"):
        latest(service, wait=600, clock=clock)
    assert clock.sleeps_s == []


def test_invalid_beside_unfinished_is_waited_for(service: Simulator) -> None:
    """One Invalid and one in progress: the latter may still become Complete."""
    service.offer_export(status="Invalid")
    service.offer_export(export_id=OTHER_EXPORT)
    unfinished = [{**service.exports[0], "status": "InProgress"}, service.exports[1]]
    service.list_exports = lambda look: unfinished if look == 1 else service.exports
    assert latest(service, wait=600).export.id == OTHER_EXPORT


def test_another_type_is_named_in_the_hint(service: Simulator) -> None:
    """If only another type is Complete, the hint names it."""
    service.offer_export(request={"iModelId": IMODEL, "changesetId": "x", "exportType": "CESIUM"})
    with pytest.raises(NoExport) as caught:
        latest(service)
    assert "CESIUM" in caught.value.hint


def test_an_empty_list_has_a_hint_about_membership(service: Simulator) -> None:
    """An empty list may mean a missing membership: the hint explains how a service application becomes a member."""
    with pytest.raises(NoExport) as caught:
        latest(service)
    assert "apps.imsoidc.bentley.com" in caught.value.hint


def test_an_id_that_is_not_listed_is_not_waited_for(service: Simulator) -> None:
    """--export-id of an unknown export ends at once."""
    service.offer_export()
    clock = FakeClock()
    with pytest.raises(NoExport, match=OTHER_EXPORT):
        latest(service, replace(SELECTOR, export_id=OTHER_EXPORT), wait=600, clock=clock)
    assert clock.sleeps_s == []


# --- errors ---


class Tokens:
    """Token provider that gives its tokens one after the other."""

    remedy = "get a fresh token"

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)
        self.asked = 0

    async def header(self) -> str:
        return f"Bearer {self.tokens[0]}"

    async def renew_refused(self, header: str) -> bool:
        self.asked += 1
        if len(self.tokens) > 1:
            self.tokens.pop(0)
        return await self.header() != header


def test_a_refused_token_is_fetched_again_once(service: Simulator) -> None:
    """401, then a fresh token: the response arrives without waiting."""
    service.offer_export()
    clock = FakeClock()
    assert latest(service, token=Tokens("old", "demo"), clock=clock).export.id == EXPORT
    assert [r.headers["authorization"] for r in service.api_requests] == ["Bearer old", "Bearer demo"]
    assert sum(clock.sleeps_s) < 1


def test_a_token_that_stays_refused_ends_with_5(service: Simulator) -> None:
    """401 without another token: NotAuthorised, after few requests, with the service's message."""
    service.offer_export()
    with pytest.raises(NotAuthorised, match="401") as caught:
        latest(service, token=Tokens("bad"))
    assert caught.value.exit_code == 5
    assert len(service.api_requests) == 1
    with pytest.raises(NotAuthorised):
        latest(service, token=Tokens("bad", "worse", "worst", "hopeless"))
    assert len(service.api_requests) <= 4


def test_forbidden_ends_with_5_and_a_hint(service: Simulator) -> None:
    """403: NotAuthorised with the hint about membership."""
    body = b'{"error": {"code": "InsufficientPermissions", "message": "The user has insufficient permissions."}}'
    service.add_fault(is_api, error_response(403, body=body))
    with pytest.raises(NotAuthorised, match="insufficient permissions") as caught:
        latest(service)
    assert "member" in caught.value.hint


def test_invalid_request_with_all_details(service: Simulator) -> None:
    """422: InvalidRequest, exit 2, with every detail in the message."""
    details = [
        {"code": "InvalidValue", "message": "Provided 'iModelId' value is not valid.", "target": "iModelId"},
        {"code": "InvalidValue", "message": "Provided '$top' value is not valid.", "target": "$top"},
    ]
    body = json.dumps(
        {"error": {"code": "InvalidMeshExportRequest", "message": "Cannot get exports.", "details": details}}
    )
    service.add_fault(is_api, error_response(422, body=body.encode()))
    with pytest.raises(InvalidRequest) as caught:
        latest(service)
    assert caught.value.exit_code == 2
    for part in ("Cannot get exports", "'iModelId' value", "'$top' value"):
        assert part in str(caught.value)


def test_too_many_requests_waits_as_long_as_asked(service: Simulator) -> None:
    """429 with Retry-After 7: the next request is seven seconds later."""
    service.offer_export()
    service.add_fault(is_api, error_response(429, body=b"{}", Retry_After="7"))
    clock, run = FakeClock(), JobOutcome()
    assert latest(service, clock=clock, run=run).export.id == EXPORT
    assert len(clock.sleeps_s) == 1
    assert 7 <= clock.sleeps_s[0] < 8
    assert len(run.events_of(Retried)) == 1


def test_failing_service_is_retried_within_the_budget(service: Simulator) -> None:
    """Permanent 5xx: Unavailable, exit 6, within the budget, with growing waits."""
    service.add_fault(is_api, error_response(503), times=None)
    clock = FakeClock()
    with pytest.raises(Unavailable) as caught:
        latest(service, clock=clock, budget=30)
    assert caught.value.exit_code == 6
    assert 15 < sum(clock.sleeps_s) <= 30
    assert clock.sleeps_s[-1] > clock.sleeps_s[0]


def test_web_page_in_place_of_a_list(service: Simulator) -> None:
    """A gateway's HTML with status 200 is retried, then Unavailable: never an empty list."""
    service.offer_export()
    service.add_fault(is_api, error_response(200, body=b"<html>hello</html>"), times=2)
    assert latest(service).export.id == EXPORT
    service.add_fault(is_api, error_response(200, body=b'{"exports": null}'), times=None)
    with pytest.raises(Unavailable):
        latest(service, budget=2)


def test_a_redirect_is_not_followed_with_the_token(service: Simulator) -> None:
    """302 from the API: an error; the other host gets no request."""
    with Simulator() as other:
        service.add_fault(is_api, error_response(302, body=b"x", Location=f"{other.url}/mesh-export/"), times=None)
        with pytest.raises(TilesyncError):
            latest(service, budget=1)
        assert other.requests == []


def test_silent_service(service: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeated read timeouts: Unavailable."""
    from tilesync.transport import api_client

    monkeypatch.setattr(api_client, "API_READ_TIMEOUT", timedelta(seconds=0.2))
    service.add_fault(is_api, delay(0.7), times=None)
    with pytest.raises(Unavailable, match="no response"):
        latest(service, budget=1)


def test_refused_connection(service: Simulator) -> None:
    """A refused connection: Unavailable, with the reason."""
    with pytest.raises(Unavailable, match="connection"):
        latest(service, url="http://127.0.0.1:9", budget=1)


# --- the fresh link ---


def fresh(sim: Simulator, wanted: Export, **how: Any) -> SasUrl:
    return run_with_client(sim, lambda exports: exports.fetch_link(wanted, **how))[0]


def test_the_pinned_export_is_found_again_across_pages(service: Simulator) -> None:
    """The link is that of the pinned export, although newer exports and pages precede it."""
    service.offer_export()
    wanted = latest(service).export
    for number in range(25):
        service.offer_export(export(1), export_id=f"dddddddd-0000-4000-8000-0000000000{number:02d}")
    link = fresh(service, wanted)
    assert link.container_name == EXPORT
    assert wanted.link is not None
    assert link.query != wanted.link.query


def test_a_link_to_a_deleted_export_is_export_replaced(service: Simulator) -> None:
    """No longer listed: ExportReplaced, not a link to another export."""
    service.offer_export()
    wanted = latest(service).export
    service.delete()
    service.offer_export(export_id=OTHER_EXPORT)
    with pytest.raises(ExportReplaced):
        fresh(service, wanted)


def test_link_to_an_export_in_progress_again(service: Simulator) -> None:
    """InProgress again: ExportReplaced, since its tiles are no longer those that were resolved."""
    service.offer_export()
    wanted = latest(service).export
    service.exports[0]["status"] = "InProgress"
    with pytest.raises(ExportReplaced):
        fresh(service, wanted)


def test_cdn_link(service: Simulator) -> None:
    """`cdn=1` is in the query for a CDN link only."""
    service.offer_export()
    wanted = latest(service).export
    fresh(service, wanted, cdn=True)
    assert [r.query.get("cdn") for r in service.api_requests] == [None, "1"]
