"""Mirror by walk: tilesets and their references are the inventory, with the guarantees of a listing."""

from __future__ import annotations

import gzip
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import glb, read_manifest, referenced_export, tileset
from tests.support.faults import (
    call_before,
    error_response,
    is_blob,
    is_blob_named,
    is_listing,
    is_storage,
    truncate_body,
)
from tests.support.simulator import EXPORT, Simulator, read_latest, read_version, verify
from tilesync.demo.fake_service import StoredBlob
from tilesync.errors import ExportReplaced, Incomplete, NotAuthorised
from tilesync.events import DiagnosticReported, FileFailed, Notice, Warned
from tilesync.model import Inventory

DENIED = error_response(403, "AuthorizationPermissionMismatch")


def test_a_walk_finds_all_referenced_files(tmp_path: Path) -> None:
    """Without a listing all referenced files arrive, each fetched once; an orphan is never seen."""
    with Simulator() as sim:
        files = sim.offer_export(referenced_export(orphan=b"nobody asks for this"))
        run = sim.mirror(tmp_path, inventory=Inventory.WALK)
        assert not sim.listing_requests
        fetched = [
            request.path.rpartition(f"{EXPORT}/")[2] for request in sim.blob_requests() if not revalidation(request)
        ]
    assert run.error is None
    del files["orphan"]
    assert read_version(tmp_path) == files
    assert len(fetched) == len(set(fetched)) == len(files)
    head, rows = read_manifest(tmp_path, EXPORT)
    assert head["inventory"] == "walk"
    assert (head["referenced"], head["missing"], head["orphans"]) == (len(files), 0, 0)
    assert rows["tileset.json"]["etag"]
    assert (run.stats.listed, run.stats.fetched, run.stats.verified) == (len(files),) * 3
    assert verify(tmp_path).exit_code == 0


def revalidation(request: Any) -> bool:
    return request.headers.get("if-none-match") is not None


@pytest.mark.parametrize("lifetime", [timedelta(hours=1), timedelta(seconds=1)])
def test_a_denied_listing_is_walked(tmp_path: Path, lifetime: timedelta) -> None:
    """If only listing is refused, also with a fresh link, the run reports it and walks."""
    with Simulator(link_lifetime=lifetime) as sim:
        files = sim.offer_export(referenced_export())
        denied = sim.add_fault(is_listing, DENIED, times=None)
        run = sim.mirror(tmp_path)
    assert run.error is None
    assert denied.hits == 2
    assert read_version(tmp_path) == files
    assert any("walking" in notice.message for notice in run.events_of(Notice))


def test_a_denied_listing_is_an_error_with_inventory_list(tmp_path: Path) -> None:
    """`--inventory list` never walks."""
    with Simulator() as sim:
        sim.offer_export(referenced_export())
        sim.add_fault(is_listing, DENIED, times=None)
        run = sim.mirror(tmp_path, inventory=Inventory.LIST)
        assert not sim.blob_requests()
    assert run.exit_code == 5


def test_nothing_is_walked_if_everything_is_denied(tmp_path: Path) -> None:
    """A dead identity is exit 5, with the refused listing as the reason."""
    with Simulator() as sim:
        sim.offer_export(referenced_export())
        sim.add_fault(is_storage, DENIED, times=None)
        run = sim.mirror(tmp_path)
    assert isinstance(run.error, NotAuthorised)
    assert "listed" in str(run.error)


def test_a_link_without_sas_is_walked_at_once(tmp_path: Path) -> None:
    """A bare CDN link is never used for a listing."""
    with Simulator() as sim:
        files = sim.offer_export(referenced_export())
        link = sim.create_link(EXPORT).replace("sig=", "Signature=")
        sim.add_fault(lambda request: True, call_before(lambda: None), times=None)
        sim._find_auth_error = lambda container, query: None  # type: ignore[method-assign]  # a CDN checks its own signature
        run = sim.mirror(tmp_path, link=link)
        assert not sim.listing_requests
    assert run.error is None
    assert read_version(tmp_path) == files


def test_a_denied_listing_through_a_bare_link(tmp_path: Path) -> None:
    """A SAS that can read but not list, and cannot be renewed: the run walks, since the tileset is readable."""
    with Simulator() as sim:
        files = sim.offer_export(referenced_export())
        sim.add_fault(is_listing, DENIED, times=None)
        run = sim.mirror(tmp_path, link=sim.create_link(EXPORT))
    assert run.error is None
    assert read_version(tmp_path) == files


def test_an_interrupted_walk_continues(tmp_path: Path) -> None:
    """The second run requests no stored file again, except for the tilesets, which must be unchanged."""
    with Simulator() as sim:
        files = sim.offer_export(referenced_export(30))
        bad = sim.add_fault(is_blob_named("tiles/029.glb"), error_response(400), times=None)
        first = sim.mirror(tmp_path, inventory=Inventory.WALK)
        assert first.exit_code == 3
        assert [failed.name for failed in first.events_of(FileFailed)] == ["tiles/029.glb"]
        bad.times = bad.hits
        sim.clear_requests()
        second = sim.mirror(tmp_path, inventory=Inventory.WALK)
        plain = [request for request in sim.blob_requests() if not revalidation(request)]
    assert second.error is None
    assert [request.path.rpartition("/")[2] for request in plain] == ["029.glb"]
    assert read_version(tmp_path) == files
    assert (second.stats.fetched, second.stats.kept) == (1, len(files) - 1)


def test_a_broken_body_is_continued_under_its_first_etag(tmp_path: Path) -> None:
    """The request for the missing range has If-Match with the ETag of the first response."""
    with Simulator() as sim:
        big = glb(bytes(300_000))
        sim.offer_export({"tileset.json": tileset("a.glb"), "a.glb": big})
        sim.add_fault(is_blob_named("a.glb"), truncate_body(200_000))
        run = sim.mirror(tmp_path, inventory=Inventory.WALK)
        _, again = sim.blob_requests("a.glb")
        assert again.headers["if-match"] == f'"{sim.blob("a.glb").etag}"'
        assert again.headers["range"] == "bytes=200000-"
    assert run.error is None
    assert read_version(tmp_path)["a.glb"] == big


def weak(answer: Any) -> Any:
    for header in ("ETag",):
        if header in answer.headers:
            answer.headers[header] = "W/" + answer.headers[header]
    return answer


def test_a_weak_etag_is_never_sent(tmp_path: Path) -> None:
    """A body that breaks is fetched from its start, and unchanged files are compared by their bytes."""
    with Simulator() as sim:
        files = sim.offer_export({"tileset.json": tileset("a.glb"), "a.glb": glb(bytes(300_000))}, md5=False)
        sim.add_fault(is_blob_named("a.glb"), lambda request, proceed: weak(truncate_body(200_000)(request, proceed)))
        sim.add_fault(is_blob, lambda request, proceed: weak(proceed()), times=None)
        run = sim.mirror(tmp_path, inventory=Inventory.WALK)
        requested = sim.blob_requests()
    assert run.error is None
    assert read_version(tmp_path) == files
    assert not any(
        request.headers.get(name) for request in requested for name in ("if-match", "if-none-match", "range")
    )
    assert len([request for request in requested if request.path.endswith("tileset.json")]) == 2


@pytest.mark.parametrize("name", ["tileset.json", "tiles/tileset.json"])
def test_a_tileset_that_changes_during_the_walk_is_detected(tmp_path: Path, name: str) -> None:
    """Every tileset is requested again before publishing: after a change the run walks again, and ends complete."""
    with Simulator() as sim:
        sim.offer_export(referenced_export())
        second = {
            **referenced_export(),
            name: json.dumps({**json.loads(referenced_export()[name]), "extras": "new"}).encode(),
        }
        sim.run_before_request(1, revalidated(name), lambda: sim.regenerate(second))
        run = sim.mirror(tmp_path, inventory=Inventory.WALK)
    assert run.error is None
    assert read_version(tmp_path) == second
    assert any("changed during the run" in warning.message for warning in run.events_of(Warned))


def revalidated(name: str) -> Any:
    return lambda request: is_blob_named(name)(request) and revalidation(request)


def test_a_bare_link_whose_tileset_changes_ends_with_7(tmp_path: Path) -> None:
    """Nothing is published, since there is no newer link."""
    with Simulator() as sim:
        sim.offer_export(referenced_export())
        second = {**referenced_export(), "tileset.json": tileset("tiles/tileset.json")}
        sim.run_before_request(1, revalidated("tileset.json"), lambda: sim.regenerate(second))
        run = sim.mirror(tmp_path, link=sim.create_link(EXPORT), inventory=Inventory.WALK)
    assert isinstance(run.error, ExportReplaced)
    assert not (tmp_path / "tileset.json").exists()


def test_an_unchanged_run_by_link_transfers_nothing(tmp_path: Path) -> None:
    """Each stored file is requested once, conditionally; no body arrives, and no version is made."""
    with Simulator() as sim:
        files = sim.offer_export(referenced_export())
        assert sim.mirror(tmp_path, link=sim.create_link(EXPORT), inventory=Inventory.WALK).error is None
        sim.clear_requests()
        run = sim.mirror(tmp_path, link=sim.create_link(EXPORT), inventory=Inventory.WALK)
        requested = sim.blob_requests()
    assert run.error is None
    assert len(requested) == len(files)
    assert all(revalidation(request) for request in requested)
    assert (run.stats.transferred_bytes, run.stats.kept, run.stats.listed) == (0, len(files), len(files))
    assert [path.name for path in (tmp_path / "versions").iterdir()] == [EXPORT]


def test_a_changed_content_by_link_makes_a_new_version(tmp_path: Path) -> None:
    """One GLB changed since the last run: a new version is made, and the old one stays unchanged."""
    with Simulator() as sim:
        files = sim.offer_export(referenced_export())
        assert sim.mirror(tmp_path, link=sim.create_link(EXPORT), inventory=Inventory.WALK).error is None
        changed = {**files, "tiles/003.glb": glb(b"changed")}
        sim.regenerate(changed)
        run = sim.mirror(tmp_path, link=sim.create_link(EXPORT), inventory=Inventory.WALK)
    assert run.error is None
    assert read_latest(tmp_path)["version"] == f"{EXPORT}-2"
    assert read_version(tmp_path) == files
    assert read_version(tmp_path, f"{EXPORT}-2") == changed


def test_a_referenced_file_not_in_the_container_is_missing(tmp_path: Path) -> None:
    """Exit 3 and nothing published; the next run requests the file again, and publishes when it has arrived."""
    with Simulator() as sim:
        files = referenced_export()
        late = files.pop("tiles/005.glb")
        sim.offer_export(files)
        first = sim.mirror(tmp_path, inventory=Inventory.WALK)
        assert isinstance(first.error, Incomplete)
        assert first.stats.completeness.missing == 1
        assert first.stats.failed == 0
        (missing,) = first.events_of(FileFailed)
        assert missing.name == "tiles/005.glb"
        assert "tiles/tileset.json" in missing.message
        assert not (tmp_path / "tileset.json").exists()
        sim.containers[EXPORT]["tiles/005.glb"] = StoredBlob(late)
        second = sim.mirror(tmp_path, inventory=Inventory.WALK)
    assert second.error is None
    assert read_version(tmp_path) == {**files, "tiles/005.glb": late}


def test_missing_files_are_published_on_request_and_recorded(tmp_path: Path) -> None:
    """--allow-missing: the counts include missing files, and verify reports them without failing."""
    with Simulator() as sim:
        files = referenced_export()
        del files["tiles/005.glb"]
        sim.offer_export(files)
        run = sim.mirror(tmp_path, inventory=Inventory.WALK, allow_missing=True)
    assert run.error is None
    assert read_version(tmp_path) == files
    head, _ = read_manifest(tmp_path, EXPORT)
    assert (head["missing"], head["missing_names"], head["files"]) == (1, ["tiles/005.glb"], len(files))
    assert run.stats.listed == len(files)
    assert [diagnostic.name for diagnostic in run.events_of(DiagnosticReported) if diagnostic.problem == "missing"] == [
        "tiles/005.glb"
    ]
    audit = verify(tmp_path)
    assert audit.exit_code == 0
    assert audit.stats.completeness == run.stats.completeness


def test_a_container_without_a_root_is_no_export(tmp_path: Path) -> None:
    """A walk without tileset.json fails with exit 3."""
    with Simulator() as sim:
        sim.offer_export({"other.json": b"{}"})
        run = sim.mirror(tmp_path, inventory=Inventory.WALK)
    assert run.exit_code == 3


def test_unstorable_names_are_missing(tmp_path: Path) -> None:
    """A line break, a NUL, a backslash: never requested, and never counted as complete."""
    with Simulator() as sim:
        sim.offer_export(
            {"tileset.json": tileset("a%00b.glb", "y%0Az.glb", "x%5Cy.glb", "ok.glb"), "ok.glb": glb(b"ok")}
        )
        run = sim.mirror(tmp_path, inventory=Inventory.WALK)
        again = sim.mirror(tmp_path, inventory=Inventory.WALK, allow_missing=True)
        requested = {request.path.rpartition("/")[2] for request in sim.blob_requests()}
    assert run.exit_code == 3
    assert run.stats.completeness.missing == 3
    assert requested == {"tileset.json", "ok.glb"}
    assert again.error is None
    assert set(read_version(tmp_path)) == {"tileset.json", "ok.glb"}
    head, _ = read_manifest(tmp_path, EXPORT)
    assert (head["missing"], head["missing_names"], len(head["unheld"])) == (3, [], 3)
    audit = verify(tmp_path)
    assert audit.error is None
    assert len([event for event in audit.events_of(Warned) if event.message.startswith("already missing when")]) == 3


def test_nothing_outside_the_container_is_requested(tmp_path: Path) -> None:
    """Other hosts and containers, `..` beyond the top, other schemes: reported, never requested with the signature."""
    uris = ["https://127.0.0.1:1/x.glb", "//elsewhere.invalid/x.glb", "../other/x.glb", "%2e%2e/%2e%2e/etc/passwd",
            "file:///etc/passwd", "ftp://h/x", "..\\..\\x.glb", "ok.glb"]  # fmt: skip
    with Simulator() as sim:
        sim.offer_export({"tileset.json": tileset(*uris), "ok.glb": glb(b"ok")})
        sim.containers["other"] = {"x.glb": StoredBlob(glb(b"secret"))}
        refused = sim.mirror(tmp_path, inventory=Inventory.WALK)
        run = sim.mirror(tmp_path, inventory=Inventory.WALK, allow_missing=True)
        requested = {request.path for request in sim.blob_requests()}
    assert (refused.exit_code, run.exit_code) == (3, 0)
    assert requested == {f"/{EXPORT}/tileset.json", f"/{EXPORT}/ok.glb"}
    assert run.stats.completeness.unfollowed == len(uris) - 1
    (message,) = [
        diagnostic.message for diagnostic in run.events_of(DiagnosticReported) if diagnostic.problem == "leads away"
    ]
    assert message.startswith(f"{len(uris) - 1} URIs lead elsewhere: the first, https://127.0.0.1:1/x.glb ")


def test_an_absolute_url_into_the_same_container_is_followed(tmp_path: Path) -> None:
    """By its name, through our own link; the absolute URL is reported, and refused unless missing files are allowed."""
    with Simulator() as sim:
        home = f"{sim.url}/{EXPORT}"
        sim.offer_export({"tileset.json": tileset(f"{home}/sub/a%20b.glb?sig=stolen"), "sub/a b.glb": glb(b"a")})
        refused = sim.mirror(tmp_path, inventory=Inventory.WALK)
        run = sim.mirror(tmp_path, inventory=Inventory.WALK, allow_missing=True)
    assert (refused.exit_code, run.exit_code) == (3, 0)
    assert set(read_version(tmp_path)) == {"tileset.json", "sub/a b.glb"}
    assert any(diagnostic.problem == "absolute URL" for diagnostic in run.events_of(DiagnosticReported))
    assert "stolen" not in json.dumps([str(event) for event in run.events])


def test_gzip_tilesets_are_walked(tmp_path: Path) -> None:
    """A root stored as gzip is read, stored unchanged, and decoded for the pointer."""
    with Simulator() as sim:
        packed = gzip.compress(tileset("a.glb"), mtime=0)
        sim.offer_export({"tileset.json": packed, "a.glb": glb(b"a")})
        run = sim.mirror(tmp_path, inventory=Inventory.WALK)
    assert run.error is None
    assert read_version(tmp_path)["tileset.json"] == packed
    assert json.loads((tmp_path / "tileset.json").read_bytes())["root"]["children"][0]["content"]["uri"].endswith(
        "a.glb"
    )


def test_a_cycle_ends_and_is_reported(tmp_path: Path) -> None:
    """Tilesets that reference each other: every file once, a warning, no error."""
    with Simulator() as sim:
        files = sim.offer_export({"tileset.json": tileset("b.json"), "b.json": tileset("tileset.json", "b.json")})
        run = sim.mirror(tmp_path, inventory=Inventory.WALK)
    assert run.error is None
    assert read_version(tmp_path) == files
    assert sorted(r.name for r in run.events_of(DiagnosticReported) if r.problem == "cycle") == ["b.json", "b.json"]


def test_links_expire_during_a_walk(tmp_path: Path) -> None:
    """Links of half a second are renewed as often as needed, also between the levels of the walk."""
    with Simulator(link_lifetime=timedelta(seconds=0.5), delay_s=0.05) as sim:
        files = sim.offer_export(referenced_export(60))
        run = sim.mirror(tmp_path, inventory=Inventory.WALK, transfers=4)
    assert run.error is None
    assert read_version(tmp_path) == files
    assert run.stats.renewals


def test_a_dry_run_by_walk_writes_nothing(tmp_path: Path) -> None:
    """--dry-run reports the files that the tilesets reference."""
    with Simulator() as sim:
        files = sim.offer_export(referenced_export())
        run = sim.dry_run(tmp_path / "dest", inventory=Inventory.WALK)
    assert run.error is None
    assert run.stats.fetched == len(files)
    assert not (tmp_path / "dest").exists()


def test_a_listing_after_a_walk_adds_the_orphans(tmp_path: Path) -> None:
    """Started by walk, continued by listing: stored files are kept, and orphans are fetched too."""
    with Simulator() as sim:
        files = sim.offer_export(referenced_export(12, orphan=b"x"))
        bad = sim.add_fault(is_blob_named("tiles/011.glb"), error_response(400), times=None)
        assert sim.mirror(tmp_path, inventory=Inventory.WALK).exit_code == 3
        bad.times = bad.hits
        run = sim.mirror(tmp_path, inventory=Inventory.LIST)
    assert run.error is None
    assert read_version(tmp_path) == files
    assert run.stats.fetched == 2
    assert run.stats.completeness.orphans == 1


def test_too_long_a_name_is_refused(tmp_path: Path) -> None:
    """A name longer than Azure allows is not requested, and reported as unsafe."""
    with Simulator() as sim:
        name = "/".join(["d" * 200] * 30) + "/a.glb"
        sim.offer_export({"tileset.json": tileset(name), name: glb(b"a")})
        run = sim.mirror(tmp_path, inventory=Inventory.WALK)
    assert isinstance(run.error, Incomplete)
    (failed,) = run.events_of(FileFailed)
    assert "its name is unsafe: it is longer than the 1,024 characters that Azure allows" in failed.message


def test_a_large_file_is_continued_by_the_next_run(tmp_path: Path) -> None:
    """The next run requests the missing range of a partial blob, pinned to the ETag of the new first response."""
    with Simulator() as sim:
        big = glb(bytes(3_000_000))
        sim.offer_export({"tileset.json": tileset("a.glb"), "a.glb": big})
        sim.add_fault(is_blob_named("a.glb"), truncate_body(2_000_000))
        sim.add_fault(is_blob_named("a.glb"), error_response(400))
        assert sim.mirror(tmp_path, inventory=Inventory.WALK).exit_code == 3
        sim.clear_requests()
        run = sim.mirror(tmp_path, inventory=Inventory.WALK)
        first, second = sim.blob_requests("a.glb")
    assert run.error is None
    assert first.headers.get("range") is None
    assert second.headers["range"].startswith("bytes=")
    assert int(second.headers["range"][6:-1]) >= 1_000_000
    assert read_version(tmp_path)["a.glb"] == big


def test_files_are_salvaged_when_the_catalog_is_lost(tmp_path: Path) -> None:
    """Existing files with the MD5 of the first response are kept, with their references; only the rest is fetched."""
    with Simulator() as sim:
        files = sim.offer_export(referenced_export(10))
        bad = sim.add_fault(is_blob_named("tiles/009.glb"), error_response(400), times=None)
        assert sim.mirror(tmp_path, inventory=Inventory.WALK).exit_code == 3
        bad.times = bad.hits
        for path in (tmp_path / ".tilesync").glob("catalog.sqlite3*"):
            path.unlink()
        run = sim.mirror(tmp_path, inventory=Inventory.WALK)
    assert run.error is None
    assert read_version(tmp_path) == files
    assert (run.stats.fetched, run.stats.kept) == (1, len(files) - 1)


def test_a_file_that_appeared_makes_a_new_version(tmp_path: Path) -> None:
    """By link, the next run also requests missing files: still missing is unchanged, an appeared one makes a new
    version.
    """
    with Simulator() as sim:
        files = referenced_export()
        late = files.pop("tiles/005.glb")
        sim.offer_export(files)
        options = {"link": sim.create_link(EXPORT), "inventory": Inventory.WALK, "allow_missing": True}
        assert sim.mirror(tmp_path, **options).error is None
        same = sim.mirror(tmp_path, **options)
        assert (same.error, read_latest(tmp_path)["version"]) == (None, EXPORT)
        sim.containers[EXPORT]["tiles/005.glb"] = StoredBlob(late)
        assert sim.mirror(tmp_path, **options).error is None
    assert read_latest(tmp_path)["version"] == f"{EXPORT}-2"
    assert read_version(tmp_path, f"{EXPORT}-2") == {**files, "tiles/005.glb": late}
