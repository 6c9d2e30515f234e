"""The fake service's APIs of iTwins and iModels: pages, refusals, delays and the rate limit, over real sockets."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.builders import IMODEL, export, make_stored_blobs
from tilesync.demo.api_rate import RateLimit
from tilesync.demo.fake_service import FakeBackend

ITWIN, OTHER_ITWIN = "aaaaaaaa-0000-4000-8000-00000000000a", "aaaaaaaa-0000-4000-8000-00000000000b"


@pytest.fixture
def backend() -> Iterator[FakeBackend]:
    with FakeBackend() as backend:
        backend.add_itwin(ITWIN, "Harbour")
        yield backend


def get(backend: FakeBackend, path: str, **headers: str) -> tuple[int, Any, dict[str, str]]:
    """Send a request; return status, document and headers."""
    sent = {"Authorization": f"Bearer {backend.token}", **{k.replace("_", "-"): v for k, v in headers.items()}}
    request = urllib.request.Request(f"{backend.url}{path}", headers=sent)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response), dict(response.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error), dict(error.headers)


def get_storage(backend: FakeBackend) -> int:
    """Request a container without a signature."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{backend.url}/container?comp=list&se=2026-01-01T00:00:00Z")
    with caught.value as error:
        return error.code


def model_id(number: int) -> str:
    return f"bbbbbbbb-0000-4000-8000-{number:012d}"


def test_minimal_rows_and_whole_ones(backend: FakeBackend) -> None:
    """`Prefer` chooses between three fields and all of them."""
    backend.add_imodel(IMODEL, ITWIN, "Bridge")
    _, document, _ = get(backend, f"/imodels/?iTwinId={ITWIN}")
    assert document["iModels"] == [{"id": IMODEL, "displayName": "Bridge", "dataCenterLocation": "East US"}]
    _, document, _ = get(backend, f"/imodels/?iTwinId={ITWIN}", Prefer="return=representation")
    assert document["iModels"][0]["iTwinId"] == ITWIN
    assert document["iModels"][0]["lastChangesetPushDateTime"] is None


def test_pages_end_with_a_null_link(backend: FakeBackend) -> None:
    """`next` and `prev` are null at the ends of the list."""
    for number in range(5):
        backend.add_imodel(model_id(number), ITWIN, f"Bridge {number}")
    path, ids, links = f"/imodels/?iTwinId={ITWIN}&$top=2", [], []
    while path:
        _, document, _ = get(backend, path)
        ids += [row["id"] for row in document["iModels"]]
        links.append({name: link is not None for name, link in document["_links"].items()})
        path = (document["_links"]["next"] or {"href": ""})["href"].removeprefix(backend.url)
    assert ids == [model_id(number) for number in range(5)]
    assert [link["next"] for link in links] == [True, True, False]
    assert [link["prev"] for link in links] == [False, True, True]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/imodels/", 422, "InvalidiModelsRequest"),
        (f"/imodels/?iTwinId={ITWIN}&$top=1001", 422, "InvalidiModelsRequest"),
        (f"/imodels/?iTwinId={OTHER_ITWIN}", 404, "iTwinNotFound"),
        ("/imodels/unknown/operation", 404, "NotFound"),
    ],
)
def test_refused_requests(backend: FakeBackend, path: str, status: int, code: str) -> None:
    """Requests that the service refuses get its status and code."""
    answered, document, _ = get(backend, path)
    assert (answered, document["error"]["code"]) == (status, code)


@pytest.mark.parametrize(("status", "code"), [(401, "HeaderNotFound"), (403, "InsufficientPermissions")])
def test_a_forbidden_itwin(backend: FakeBackend, status: int, code: str) -> None:
    """A forbidden iTwin refuses the lists of its iModels and exports, and the lists of everything leave it out."""
    backend.add_itwin(OTHER_ITWIN, "Airport")
    backend.add_imodel(IMODEL, OTHER_ITWIN, "Bridge")
    backend.add_export("e1", IMODEL, make_stored_blobs(export(1)))
    backend.forbid(OTHER_ITWIN, status)
    for path in (f"/imodels/?iTwinId={OTHER_ITWIN}", f"/mesh-export/?iModelId={IMODEL}"):
        answered, document, _ = get(backend, path)
        assert (answered, document["error"]["code"]) == (status, code)
    assert [row["id"] for row in get(backend, "/itwins/?subClass=Project")[1]["iTwins"]] == [ITWIN]
    assert get(backend, "/mesh-export/")[1]["exports"] == []
    backend.forbid(OTHER_ITWIN, None)
    assert len(get(backend, f"/mesh-export/?iModelId={IMODEL}")[1]["exports"]) == 1


def test_an_itwin_with_its_own_token(backend: FakeBackend) -> None:
    """An iTwin that was added with a token is seen by this token alone; no other token is accepted."""
    backend.add_itwin(OTHER_ITWIN, "Airport", token="other")
    assert get(backend, f"/imodels/?iTwinId={OTHER_ITWIN}")[0] == 403
    assert get(backend, f"/imodels/?iTwinId={OTHER_ITWIN}", Authorization="Bearer other")[0] == 200
    assert get(backend, "/itwins/", Authorization="Bearer unknown")[0] == 401


def test_the_list_of_itwins_ends_at_its_maximum(backend: FakeBackend) -> None:
    """Without `X-Max-Return` the list ends after 1,000 iTwins, without an error."""
    for number in range(1000):
        backend.add_itwin(model_id(number), f"Project {number}")
    path = "/itwins/?$top=1000&$skip=1000"
    assert get(backend, path)[1]["iTwins"] == []
    assert len(get(backend, path, X_Max_Return="10000")[1]["iTwins"]) == 1


def test_renamed_and_removed(backend: FakeBackend) -> None:
    """A renamed iModel keeps its id; a removed one is gone with its exports and containers."""
    backend.add_imodel(IMODEL, ITWIN, "Bridge")
    backend.add_export("e1", IMODEL, make_stored_blobs(export(1)))
    backend.rename_imodel(IMODEL, "Viaduct")
    assert get(backend, f"/imodels/?iTwinId={ITWIN}")[1]["iModels"][0]["displayName"] == "Viaduct"
    backend.remove_imodel(IMODEL)
    assert get(backend, f"/imodels/?iTwinId={ITWIN}")[1]["iModels"] == []
    assert get(backend, f"/mesh-export/?iModelId={IMODEL}")[1]["exports"] == []
    assert backend.containers == {}


def test_the_rate_limit_answers_429(backend: FakeBackend) -> None:
    """Calls beyond the limit get 429 and Retry-After, whichever API they are for; the storage does not count."""
    backend.rate_limit = RateLimit(2, seconds=30)
    assert [get(backend, path)[0] for path in ("/itwins/", "/mesh-export/")] == [200, 200]
    assert get_storage(backend) == 403
    status, document, headers = get(backend, f"/imodels/?iTwinId={ITWIN}")
    assert (status, document["error"]["code"]) == (429, "RateLimitExceeded")
    assert 28 <= int(headers["Retry-After"]) <= 30
    assert backend.api_calls.most_calls_in_window() == 3


def test_delayed_answers_do_not_wait_for_each_other(backend: FakeBackend) -> None:
    """Forty answers, each delayed by 0.2 s, take together far less than eight seconds."""
    backend.api_delay_s = 0.2
    began_at = time.monotonic()
    with ThreadPoolExecutor(40) as threads:
        assert {status for status, _, _ in threads.map(lambda _: get(backend, "/itwins/"), range(40))} == {200}
    assert 0.2 <= time.monotonic() - began_at < 4
