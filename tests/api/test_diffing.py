"""The Python API of comparisons."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import tilesync as ts
from tests.support.builders import IMODEL
from tests.support.faults import error_response, is_listing
from tests.support.sequential_exports import CHANGED_FILE, FIRST, SECOND, files_of, mirror_each, offer_exports
from tests.support.simulator import Simulator


@pytest.fixture(scope="module")
def dest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions that differ in one file, the second one current."""
    return mirror_each(tmp_path_factory.mktemp("diff") / "d", FIRST, SECOND)


def test_the_result_has_changes_and_totals(dest: Path) -> None:
    """Changes can be read as often as wanted, also after the call; the last line is that of the command line."""
    result = ts.diff(dest, FIRST, SECOND)
    (change,) = result
    assert list(result.changes) == [change]
    assert (change.kind, change.name, change.role) == ("changed", CHANGED_FILE, "content")
    assert change.new is not None
    assert change.new.size == len(files_of(SECOND)[CHANGED_FILE])
    assert (result.a, result.b, result.is_same, result.ok, result.exit_code) == (FIRST, SECOND, False, True, 0)
    assert result.totals.files == ts.ChangeCounts(changed=1, same=len(files_of(FIRST)) - 1)
    line = result.to_dict()
    assert (line["kind"], line["exit"], line["changed"], line["dest"]) == ("finished", 0, 1, str(dest))
    assert asyncio.run(ts.aio.diff(dest, FIRST)).totals == result.totals
    assert ts.diff(dest, "current").is_same


def test_the_flat_layout_keeps_urls(tmp_path: Path) -> None:
    """In the flat layout a viewer's cache keeps the files that the next export does not change."""
    with Simulator() as sim:
        offer_exports(sim, FIRST)
        ts.mirror(IMODEL, tmp_path, layout="flat", auth=ts.Token(sim.token), api_url=sim.url)
        offer_exports(sim, SECOND)
        result = ts.diff(tmp_path, "current", f"latest@{IMODEL}", auth=ts.Token(sim.token), api_url=sim.url)
        by_link = ts.diff(tmp_path, "current", ts.Secret(sim.create_link(SECOND)))
    assert by_link.totals == result.totals
    files = files_of(FIRST)
    kept = sum(len(data) for name, data in files.items() if name != CHANGED_FILE)
    assert (result.totals.cached, result.totals.bytes_cached) == (len(files) - 1, kept)


def test_a_version_with_filters_is_compared_with_what_a_mirror_would_take(tmp_path: Path) -> None:
    """Files that --exclude left out are not reported as added."""
    with Simulator() as sim:
        offer_exports(sim, FIRST)
        ts.mirror(IMODEL, tmp_path, exclude=["tiles/00[45].glb"], auth=ts.Token(sim.token), api_url=sim.url)
        result = ts.diff(tmp_path, "current", f"latest@{IMODEL}", auth=ts.Token(sim.token), api_url=sim.url)
    assert result.is_same
    assert result.totals.files.same == len(files_of(FIRST)) - 2


def test_a_container_that_cannot_be_listed(dest: Path) -> None:
    """A comparison needs the listing, and the error says so."""
    with Simulator() as sim:
        offer_exports(sim, FIRST)
        sim.add_fault(is_listing, error_response(403, "AuthorizationPermissionMismatch"), times=99)
        with pytest.raises(ts.errors.NotAuthorised, match="a comparison needs a listing"):
            ts.diff(dest, FIRST, f"latest@{IMODEL}", auth=ts.Token(sim.token), api_url=sim.url)


def test_two_sources_are_refused(dest: Path) -> None:
    """One side must be a version; and a link is never shown, since it may have a signature."""
    with pytest.raises(ts.errors.UsageError, match="one of A and B must be a version"):
        ts.diff(dest, f"latest@{IMODEL}", f"latest@{IMODEL}")
    with pytest.raises(ts.errors.UsageError) as error:
        ts.diff(dest, "https://a.blob.core.windows.net/c?sv=1&sig=secret")
    assert "secret" not in str(error.value) + error.value.hint
    assert error.value.result.to_dict()["error"] == "UsageError"
