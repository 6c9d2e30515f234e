"""Mirror job against the simulator and a local folder: resolve, list, plan, transfer, publish, clean up."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.builders import IMODEL, export, glb, make_stored_blobs, md5_base64, read_manifest, read_tree, tileset
from tests.support.faults import (
    blob_name,
    call_before,
    error_response,
    flip_last_bit,
    halve_body,
    ignore_range,
    is_api,
    is_blob,
    is_blob_named,
    is_listing,
    is_range_request,
    is_storage,
    truncate_body,
    wait_for,
)
from tests.support.simulator import EXPORT, Simulator, read_latest, verify
from tilesync.demo.fake_service import StoredBlob
from tilesync.demo.loopback_server import FakeRequest
from tilesync.errors import (
    DestinationBusy,
    DestinationError,
    DiskFull,
    ExportReplaced,
    Incomplete,
    NotAuthorised,
    UnsafeName,
)
from tilesync.events import (
    ExportResolved,
    FileFailed,
    LinkRenewed,
    Notice,
    Planned,
    Retried,
    VersionChosen,
    VersionPublished,
    Warned,
)
from tilesync.model import FileStamp, Inventory, Selector
from tilesync.stores.local import publication, writer
from tilesync.stores.local.directory_handles import Entry
from tilesync.stores.local.fs import replace_file_durably, sync_filesystem, write_whole
from tilesync.stores.local.publication import LocalPublication
from tilesync.stores.local.writer import LocalFiles

OTHER = "bbbbbbbb-0000-4000-8000-000000000002"


def stored_files(dest: Path, version: str = EXPORT) -> dict[str, bytes]:
    return read_tree(dest / "versions" / version)


# --- a whole run ---


def test_the_published_tree_is_the_container_byte_for_byte(tmp_path: Path) -> None:
    """Every blob is stored under its own name with its own bytes, and there are no other files."""
    with Simulator(page_size=5) as sim:
        files = sim.offer_export()
        run = sim.mirror(tmp_path)
    assert run.error is None
    assert stored_files(tmp_path) == files
    assert run.stats.listed == run.stats.fetched == run.stats.verified == len(files)
    assert run.stats.transferred_bytes == sum(map(len, files.values()))
    assert len(sim.blob_requests()) == len(files)
    assert len(sim.listing_requests) == -(-len(files) // 5)
    assert {p.name for p in tmp_path.iterdir()} == {
        "tileset.json", "latest.json", "checked.json", "current", "versions", "manifests", ".tilesync"
    }  # fmt: skip


def test_the_manifest_describes_each_file(tmp_path: Path) -> None:
    """Its first line is the record of the service without links, and the counts; each other line is one file."""
    with Simulator() as sim:
        files = sim.offer_export()
        sim.blob("tiles/000.glb").content_encoding = "br"
        sim.blob("tiles/000.glb").content_type = "model/gltf-binary"
        assert sim.mirror(tmp_path).exit_code == 0
        blobs = sim.containers[EXPORT]
    head, rows = read_manifest(tmp_path, EXPORT)
    assert head["version"] == EXPORT
    assert head["export"]["id"] == EXPORT
    assert "_links" not in head["export"]
    assert (head["files"], head["bytes"]) == (len(files), sum(map(len, files.values())))
    assert head["finished"]
    assert head["tilesync"]
    assert rows.keys() == files.keys()
    for name, row in rows.items():
        assert row == {
            "name": name,
            "size": len(files[name]),
            "sha256": hashlib.sha256(files[name]).hexdigest(),
            "md5": hashlib.md5(files[name]).hexdigest(),
            "etag": blobs[name].etag,
            "content_type": blobs[name].content_type,
            "content_encoding": blobs[name].content_encoding or None,
            "last_modified": "2026-03-01T08:30:00Z",
        }


def test_latest_json_and_current_lead_to_the_version(tmp_path: Path) -> None:
    """latest.json has the documented fields, and `current` is a relative symlink to the version."""
    with Simulator() as sim:
        sim.offer_export()
        sim.mirror(tmp_path)
    latest = read_latest(tmp_path)
    assert latest.keys() == {"version", "export", "imodel", "owner", "changeset", "finished", "tileset", "manifest"}
    assert (latest["version"], latest["export"], latest["imodel"]) == (EXPORT, EXPORT, IMODEL)
    assert (tmp_path / latest["tileset"]).is_file()
    assert (tmp_path / latest["manifest"]).is_file()
    assert os.readlink(tmp_path / "current") == f"versions/{EXPORT}"


def test_the_pointer_is_the_root_with_its_uris_rebased(tmp_path: Path) -> None:
    """The pointer is the root document; its relative URIs lead to existing files in the folder of the version."""
    with Simulator() as sim:
        sim.offer_export()
        sim.mirror(tmp_path)
    pointer, root = (
        json.loads((tmp_path / "tileset.json").read_bytes()),
        json.loads(stored_files(tmp_path)["tileset.json"]),
    )
    assert pointer["schemaUri"] == f"versions/{EXPORT}/data/schema.json"
    uris = [child["content"]["uri"] for child in pointer["root"]["children"]]
    assert uris == [f"versions/{EXPORT}/{child['content']['uri']}" for child in root["root"]["children"]]
    assert (tmp_path / uris[0]).is_file()
    for child in pointer["root"]["children"]:
        child["content"]["uri"] = child["content"]["uri"].removeprefix(f"versions/{EXPORT}/")
    pointer["schemaUri"] = "data/schema.json"
    assert pointer == root


def test_files_have_the_last_modified_of_their_blobs(tmp_path: Path) -> None:
    """A file's mtime is the Last-Modified of its blob."""
    with Simulator() as sim:
        sim.offer_export()
        sim.blob("tiles/001.glb").modified = datetime(2025, 5, 5, 5, 5, 5, tzinfo=UTC)
        sim.mirror(tmp_path)
    assert (tmp_path / "versions" / EXPORT / "tiles/001.glb").stat().st_mtime == 1746421505


def test_the_state_is_private(tmp_path: Path) -> None:
    """Only the owner can read .tilesync (0700), and no partial file is left in it."""
    with Simulator() as sim:
        sim.offer_export()
        sim.mirror(tmp_path)
    assert (tmp_path / ".tilesync").stat().st_mode & 0o777 == 0o700
    assert list((tmp_path / ".tilesync/parts").iterdir()) == []


def test_the_state_can_be_elsewhere(tmp_path: Path) -> None:
    """With a separate state folder DEST has no .tilesync, and the next run still needs one request."""
    with Simulator() as sim:
        files = sim.offer_export()
        assert sim.mirror(tmp_path / "d", state_dir=tmp_path / "state").exit_code == 0
        sim.clear_requests()
        assert sim.mirror(tmp_path / "d", state_dir=tmp_path / "state").exit_code == 0
        assert len(sim.requests) == 1
    assert stored_files(tmp_path / "d") == files
    assert not (tmp_path / "d/.tilesync").exists()


def test_an_export_without_md5_is_mirrored(tmp_path: Path) -> None:
    """Without Content-MD5 length and structure are checked, and the manifest still has every SHA-256."""
    with Simulator() as sim:
        files = sim.offer_export(md5=False)
        assert sim.mirror(tmp_path).exit_code == 0
    assert stored_files(tmp_path) == files
    assert all(row["md5"] is None and row["sha256"] for row in read_manifest(tmp_path, EXPORT)[1].values())


def test_folder_placeholders_are_ignored(tmp_path: Path) -> None:
    """Empty blobs that stand for folders, with a slash or with the name of a folder, are not files."""
    with Simulator(page_size=4) as sim:
        files = sim.offer_export()
        sim.containers[EXPORT].update({"tiles": StoredBlob(b""), "tiles/": StoredBlob(b""), "data/": StoredBlob(b"")})
        run = sim.mirror(tmp_path)
    assert run.error is None
    assert stored_files(tmp_path) == files
    assert run.stats.listed == len(files)


def test_a_name_that_is_file_and_folder_stops_before_publishing(tmp_path: Path) -> None:
    """A blob with bytes whose name is a folder of others: exit 8, nothing published."""
    with Simulator(page_size=1) as sim:
        sim.offer_export()
        sim.containers[EXPORT]["tiles"] = StoredBlob(b"bytes")
        run = sim.mirror(tmp_path)
    assert run.exit_code == 8
    assert not (tmp_path / "tileset.json").exists()
    assert not (tmp_path / "manifests").exists()


def test_a_name_listed_twice_stops_before_publishing(tmp_path: Path) -> None:
    """The same name on two pages: exit 3, nothing published; the next run lists again and succeeds."""
    with Simulator(page_size=6) as sim:
        files = sim.offer_export()
        sim.add_fault(
            lambda r: is_listing(r) and r.query.get("marker", "").endswith("!6"),
            lambda _, proceed: _with_entry_of_first_page(proceed()),
        )
        run = sim.mirror(tmp_path)
        assert run.exit_code == 3
        assert "twice" in str(run.error)
        assert not (tmp_path / "tileset.json").exists()
        assert sim.mirror(tmp_path).exit_code == 0
    assert stored_files(tmp_path) == files


def _with_entry_of_first_page(answer: Any) -> Any:
    properties = b"<Properties><Etag>0x1</Etag><Content-Length>0</Content-Length></Properties>"
    entry = b"<Blob><Name>data/empty</Name>" + properties + b"</Blob>"
    return replace(answer, body=answer.body.replace(b"</Blobs>", entry + b"</Blobs>"))


def test_a_container_without_a_root_is_not_published(tmp_path: Path) -> None:
    """Without tileset.json nothing can be streamed: exit 3 and a message about it."""
    with Simulator() as sim:
        sim.offer_export({"a.glb": glb(b"a")})
        run = sim.mirror(tmp_path)
    assert run.exit_code == 3
    assert "tileset.json" in str(run.error)
    assert not (tmp_path / "latest.json").exists()


def test_an_empty_container_is_not_published(tmp_path: Path) -> None:
    """An empty inventory never becomes a version."""
    with Simulator() as sim:
        sim.offer_export({})
        assert sim.mirror(tmp_path).exit_code == 3
    assert not (tmp_path / "tileset.json").exists()


HOSTILE = [
    "../outside", "a/../../outside", "/etc/outside", "a\\..\\outside", "a\x01b", "a//b", "./a", "n" * 256,
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_writes_nothing(tmp_path: Path, name: str) -> None:
    """A name that is unsafe in a folder: exit 8, no file of its page, nothing outside DEST."""
    with Simulator() as sim:
        sim.offer_export()
        sim.containers[EXPORT][name] = StoredBlob(b"outside")
        run = sim.mirror(tmp_path / "in" / "dest")
        assert sim.blob_requests() == []
    assert isinstance(run.error, UnsafeName)
    assert not (tmp_path / "in/dest/tileset.json").exists()
    assert stored_files(tmp_path / "in/dest") == {}
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
    assert [p.name for p in (tmp_path / "in").iterdir()] == ["dest"]


def test_a_symlink_planted_in_the_destination_is_refused(tmp_path: Path) -> None:
    """A symlink where a folder of the version belongs: exit 8, and nothing lands behind it."""
    outside, dest = tmp_path / "outside", tmp_path / "dest"
    outside.mkdir()
    with Simulator() as sim:
        sim.offer_export()
        (dest / "versions" / EXPORT).mkdir(parents=True)
        (dest / "versions" / EXPORT / "tiles").symlink_to(outside)
        run = sim.mirror(dest)
    assert run.exit_code == 8
    assert list(outside.iterdir()) == []
    assert not (dest / "tileset.json").exists()


def test_a_foreign_tileset_is_refused(tmp_path: Path) -> None:
    """A DEST with a tileset.json that tilesync did not write: exit 8, and the file is unchanged."""
    (tmp_path / "tileset.json").write_text("mine")
    with Simulator() as sim:
        sim.offer_export()
        run = sim.mirror(tmp_path)
        assert sim.requests == []
    assert run.exit_code == 8
    assert read_tree(tmp_path) == {"tileset.json": b"mine"}


# --- later runs ---


def test_an_unchanged_run_is_one_request(tmp_path: Path) -> None:
    """Nothing new: one request to the API, none to the storage, exit 0, and no byte of DEST changes but a time."""

    def read_unchanging() -> dict[str, bytes]:
        files = {name: data for name, data in read_tree(tmp_path).items() if not name.startswith(".tilesync")}
        record = json.loads(files["checked.json"])
        assert datetime.fromisoformat(record.pop("checked"))
        return {**files, "checked.json": json.dumps(record).encode()}

    with Simulator() as sim:
        files = sim.offer_export()
        sim.mirror(tmp_path)
        before = read_unchanging()
        sim.clear_requests()
        run = sim.mirror(tmp_path)
        assert [request.path for request in sim.requests] == ["/mesh-export/"]
    assert run.exit_code == 0
    assert (run.stats.listed, run.stats.kept, run.stats.fetched) == (len(files), len(files), 0)
    assert run.events_of(VersionPublished) == []
    assert read_unchanging() == before


def test_a_second_export_is_a_second_version(tmp_path: Path) -> None:
    """A new export becomes a new version and the pointer moves; the old version does not change."""
    with Simulator() as sim:
        first = sim.offer_export()
        sim.mirror(tmp_path)
        second = sim.offer_export(export(15, seed=2), export_id=OTHER, lastModified="2026-03-02T08:30:00Z")
        run = sim.mirror(tmp_path)
    assert run.exit_code == 0
    assert [e.version for e in run.events_of(VersionPublished)] == [OTHER]
    assert stored_files(tmp_path) == first
    assert stored_files(tmp_path, OTHER) == second
    assert read_latest(tmp_path)["version"] == OTHER
    assert os.readlink(tmp_path / "current") == f"versions/{OTHER}"
    assert f"versions/{OTHER}/" in (tmp_path / "tileset.json").read_text()
    assert {p.name for p in (tmp_path / "manifests").iterdir()} == {f"{EXPORT}.jsonl", f"{OTHER}.jsonl"}


def test_while_the_newest_is_unfinished_the_older_one_is_mirrored(tmp_path: Path) -> None:
    """The first Complete row counts; the event says that it is not the newest export."""
    with Simulator() as sim:
        files = sim.offer_export()
        sim.offer_export(export(seed=3), export_id=OTHER, status="InProgress")
        run = sim.mirror(tmp_path)
    (resolved,) = run.events_of(ExportResolved)
    assert (resolved.export, resolved.newest, resolved.behind) == (EXPORT, OTHER, True)
    assert stored_files(tmp_path) == files


def test_a_published_version_is_never_changed(tmp_path: Path) -> None:
    """The same export with other content becomes `<id>-2`; the bytes of the first version do not change."""
    with Simulator() as sim:
        first = sim.offer_export()
        sim.mirror(tmp_path)
        second = {**export(seed=9), "tiles/new.glb": glb(b"new")}
        sim.regenerate(second)
        assert sim.mirror(tmp_path).exit_code == 0
        assert read_latest(tmp_path)["version"] == f"{EXPORT}-2"
        third = export(10, seed=10)
        sim.regenerate(third)
        assert sim.mirror(tmp_path).exit_code == 0
    assert stored_files(tmp_path) == first
    assert stored_files(tmp_path, f"{EXPORT}-2") == second
    assert stored_files(tmp_path, f"{EXPORT}-3") == third
    assert read_latest(tmp_path)["version"] == f"{EXPORT}-3"


def test_a_touched_export_with_the_same_content_is_no_new_version(tmp_path: Path) -> None:
    """Another lastModified for the same blobs: listed and compared, nothing fetched; the run after it needs one
    request.
    """
    with Simulator() as sim:
        files = sim.offer_export()
        sim.mirror(tmp_path)
        sim.regenerate(files)
        sim.clear_requests()
        run = sim.mirror(tmp_path)
        assert (run.exit_code, sim.blob_requests()) == (0, [])
        assert [p.name for p in (tmp_path / "versions").iterdir()] == [EXPORT]
        sim.clear_requests()
        assert sim.mirror(tmp_path).exit_code == 0
        assert len(sim.requests) == 1


def test_an_interrupted_comparison_makes_no_second_version(tmp_path: Path) -> None:
    """If the listing of a touched export fails midway, the next run still compares and fetches nothing."""
    with Simulator(page_size=5) as sim:
        files = sim.offer_export()
        sim.mirror(tmp_path)
        sim.regenerate(files)
        sim.add_fault(lambda r: is_listing(r) and "marker" in r.query, error_response(500, "InternalError"), times=None)
        assert sim.mirror(tmp_path, retry_for=timedelta(seconds=0.2)).exit_code == 6
        sim.faults[0].times = 0
        sim.clear_requests()
        assert sim.mirror(tmp_path).exit_code == 0
        assert sim.blob_requests() == []
    assert [p.name for p in (tmp_path / "versions").iterdir()] == [EXPORT]


def test_verify_then_mirror_repairs(tmp_path: Path) -> None:
    """The next run fetches the damaged files that verify found, and no others; the pointer does not move."""
    with Simulator() as sim:
        files = sim.offer_export()
        sim.mirror(tmp_path)
        folder = tmp_path / "versions" / EXPORT
        (folder / "tiles/003.glb").write_bytes(b"x" * len(files["tiles/003.glb"]))
        (folder / "tiles/004.glb").unlink()
        assert verify(tmp_path).exit_code == 10
        sim.clear_requests()
        run = sim.mirror(tmp_path)
        assert run.exit_code == 0
        assert sorted(blob_name(r) or "" for r in sim.blob_requests()) == ["tiles/003.glb", "tiles/004.glb"]
        assert sim.listing_requests == []
    assert stored_files(tmp_path) == files
    assert verify(tmp_path).exit_code == 0
    assert run.events_of(VersionPublished) == []
    assert (run.stats.fetched, run.stats.kept) == (2, len(files) - 2)


def test_repair_from_a_changed_export_makes_another_version(tmp_path: Path) -> None:
    """If the export was regenerated before the repair, the damaged version stays and a complete one is published."""
    with Simulator() as sim:
        first = sim.offer_export()
        sim.mirror(tmp_path)
        (tmp_path / "versions" / EXPORT / "tiles/004.glb").unlink()
        verify(tmp_path)
        second = export(seed=4)
        sim.containers[EXPORT] = make_stored_blobs(second)
        run = sim.mirror(tmp_path)
        assert run.exit_code == 0
    kept = stored_files(tmp_path)
    assert all(first[name] == data for name, data in kept.items())
    assert stored_files(tmp_path, read_latest(tmp_path)["version"]) == second


def test_a_deleted_version_folder_is_fetched_again(tmp_path: Path) -> None:
    """The files of the current version were deleted: the next run fetches them again."""
    with Simulator() as sim:
        files = sim.offer_export()
        sim.mirror(tmp_path)
        shutil.rmtree(tmp_path / "versions" / EXPORT)
        run = sim.mirror(tmp_path)
    assert run.exit_code == 0
    assert stored_files(tmp_path) == files
    assert verify(tmp_path).exit_code == 0


@pytest.mark.parametrize("lost", ["tileset.json", "current"])
def test_a_lost_pointer_is_restored(tmp_path: Path, lost: str) -> None:
    """The pointer files are restored by an unchanged run, without requests to the storage."""
    with Simulator() as sim:
        sim.offer_export()
        sim.mirror(tmp_path)
        pointer = (tmp_path / "tileset.json").read_bytes()
        (tmp_path / lost).unlink()
        sim.clear_requests()
        assert sim.mirror(tmp_path).exit_code == 0
        assert len(sim.requests) == 1
    assert (tmp_path / "tileset.json").read_bytes() == pointer
    assert (tmp_path / "current/tileset.json").is_file()


def test_another_export_can_be_selected(tmp_path: Path) -> None:
    """--export-id selects an older Complete export, and the newest is named."""
    with Simulator() as sim:
        old = sim.offer_export()
        sim.offer_export(export(seed=8), export_id=OTHER)
        run = sim.mirror(tmp_path, selector=Selector(imodel=IMODEL, export_type="3dtiles", export_id=EXPORT.upper()))
    assert run.exit_code == 0
    assert stored_files(tmp_path) == old
    assert run.events_of(ExportResolved)[0].behind


# --- links ---


def test_an_expired_link_is_renewed_in_mid_run(tmp_path: Path) -> None:
    """Links that live one second, and slow responses: renewed as often as needed, nothing lost."""
    with Simulator(link_lifetime=timedelta(seconds=1), delay_s=0.1, page_size=4) as sim:
        files = sim.offer_export(export(40))
        run = sim.mirror(tmp_path, transfers=4)
    assert run.exit_code == 0
    assert stored_files(tmp_path) == files
    assert run.stats.renewals == len(run.events_of(LinkRenewed)) >= 1


def test_links_that_expire_between_two_pages_keep_the_marker(tmp_path: Path) -> None:
    """A link revoked between pages is renewed, and the listing continues at its marker."""
    with Simulator(page_size=3) as sim:
        files = sim.offer_export()
        sim.run_before_request(3, is_listing, sim.revoke_links)
        run = sim.mirror(tmp_path)
        markers = [request.query.get("marker") for request in sim.listing_requests]
    assert run.exit_code == 0
    assert stored_files(tmp_path) == files
    assert markers.count(None) == 1
    assert markers[2] == markers[3]


def test_a_link_revoked_in_mid_run_is_renewed_once_for_all(tmp_path: Path) -> None:
    """Many concurrent transfers get 403: one API request replaces the link."""
    with Simulator() as sim:
        files = sim.offer_export(export(60))
        everyone, count = threading.Event(), [0]

        def arrive() -> None:
            count[0] += 1
            if count[0] == 16:
                sim.revoke_links()
                everyone.set()
            everyone.wait(5)

        sim.add_fault(is_blob, call_before(arrive), times=16)
        run = sim.mirror(tmp_path, transfers=16)
        assert len(sim.api_requests) == 2 + (run.stats.renewals - 1)
        assert run.stats.renewals == 1
    assert run.exit_code == 0
    assert stored_files(tmp_path) == files


@pytest.mark.parametrize("ahead", [timedelta(hours=-3), timedelta(hours=3)])
def test_a_skewed_clock_does_not_matter(tmp_path: Path, ahead: timedelta) -> None:
    """The server's clock is hours away from ours: its time decides about links, and none is renewed needlessly."""
    with Simulator() as sim:
        sim.clock_offset = ahead
        files = sim.offer_export()
        run = sim.mirror(tmp_path)
        assert len(sim.api_requests) == 1
    assert run.exit_code == 0
    assert stored_files(tmp_path) == files


def test_a_refused_identity_at_the_storage_ends_with_5(tmp_path: Path) -> None:
    """403 for every fresh link: not authorised, after few requests."""
    with Simulator() as sim:
        sim.offer_export()
        sim.add_fault(is_storage, error_response(403, "AuthorizationFailure"), times=None)
        run = sim.mirror(tmp_path)
        assert len(sim.requests) < 20
    assert isinstance(run.error, NotAuthorised)
    assert run.exit_code == 5


def test_a_container_link_is_a_source(tmp_path: Path) -> None:
    """A bare link mirrors its container without any API request; a second run fetches nothing."""
    with Simulator() as sim:
        files = sim.offer_export()
        assert sim.mirror(tmp_path, link=sim.create_link(EXPORT)).exit_code == 0
        assert stored_files(tmp_path) == files
        sim.clear_requests()
        run = sim.mirror(tmp_path, link=sim.create_link(EXPORT).replace("?", "/tileset.json?"))
        assert (run.exit_code, sim.blob_requests(), sim.api_requests) == (0, [], [])
    assert [p.name for p in (tmp_path / "versions").iterdir()] == [EXPORT]


def test_a_dead_container_link_ends_with_5_and_the_next_one_resumes(tmp_path: Path) -> None:
    """A bare link that is revoked cannot be renewed: exit 5; with a fresh link the run continues."""
    with Simulator() as sim:
        files = sim.offer_export()
        sim.run_before_request(8, is_blob, sim.revoke_links)
        run = sim.mirror(tmp_path, link=sim.create_link(EXPORT), transfers=1)
        assert run.exit_code == 5
        assert not (tmp_path / "tileset.json").exists()
        sim.clear_requests()
        assert sim.mirror(tmp_path, link=sim.create_link(EXPORT)).exit_code == 0
        assert len(sim.blob_requests()) == len(files) - 7
    assert stored_files(tmp_path) == files


def test_a_link_command_renews_a_container_link(tmp_path: Path) -> None:
    """With --link-command a revoked bare link is replaced by the output of the command."""
    with Simulator() as sim:
        files = sim.offer_export()
        fresh, secret = sim.create_link(EXPORT), tmp_path / "link"
        stale = sim.create_link(EXPORT)

        def rotate() -> None:
            sim.revoke_links()
            secret.write_text(sim.create_link(EXPORT))

        secret.write_text(fresh)
        sim.run_before_request(5, is_blob, rotate)
        run = sim.mirror(tmp_path / "d", link=stale, link_command=f"cat {secret}", transfers=1)
    assert run.exit_code == 0
    assert run.stats.renewals == 1
    assert stored_files(tmp_path / "d") == files


def test_a_failed_link_command_does_not_start_a_walk(tmp_path: Path) -> None:
    """Without a link a walk would fail as well."""
    with Simulator() as sim:
        sim.offer_export()
        stale = sim.create_link(EXPORT)
        sim.revoke_links()
        run = sim.mirror(tmp_path / "d", link=stale, link_command="false")
    assert isinstance(run.error, NotAuthorised)
    assert "--link-command" in str(run.error)
    assert not [event for event in run.events_of(Notice) if "walking" in event.message]


# --- impossible modification times ---


@pytest.mark.parametrize("inventory", list(Inventory))
@pytest.mark.parametrize("count", [1, 2])
def test_impossible_dates_are_warned_of_once(inventory: Inventory, count: int, tmp_path: Path) -> None:
    """By listing and by walk: the warning counts them, and they are stored as unknown."""
    with Simulator() as sim:
        files = sim.offer_export()
        for name in list(files)[:count]:
            sim.blob(name).modified = datetime(9999, 12, 31, tzinfo=UTC)
        run = sim.mirror(tmp_path, inventory=inventory)
    assert run.exit_code == 0
    (warned,) = run.events_of(Warned)
    assert f"impossible modification time for {count} file{'s' if count > 1 else ''}:" in warned.message
    _, lines = read_manifest(tmp_path, EXPORT)
    assert [lines[name].get("last_modified") for name in list(files)[:count]] == [None] * count


# --- an export that changes during the run ---


def test_an_export_regenerated_once_converges(tmp_path: Path) -> None:
    """After a regeneration during the run it lists and plans again, and publishes the complete new export."""
    with Simulator() as sim:
        sim.offer_export()
        second = {**export(14, seed=5), "0new.glb": glb(b"new")}
        sim.run_before_request(6, is_blob, lambda: sim.regenerate(second))
        run = sim.mirror(tmp_path, transfers=1)
    assert run.exit_code == 0
    assert stored_files(tmp_path) == second
    assert len(run.events_of(Warned)) == 1
    assert run.stats.listed == len(second) == run.stats.fetched + run.stats.kept
    assert verify(tmp_path).exit_code == 0


def test_unchanged_files_are_kept_after_a_regeneration(tmp_path: Path) -> None:
    """Files that the second listing proves unchanged are not fetched again."""
    with Simulator() as sim:
        files = sim.offer_export()
        second = {**files, "tiles/011.glb": glb(b"other")}
        sim.run_before_request(12, is_blob, lambda: sim.regenerate(second))
        run = sim.mirror(tmp_path, transfers=1)
        assert len(sim.blob_requests()) == len(files) + 1
    assert run.exit_code == 0
    assert stored_files(tmp_path) == second


def test_a_changed_old_name_behind_a_new_one_is_fetched_in_the_same_run(tmp_path: Path) -> None:
    """A changed file is fetched after a relisting, though a new name was on an earlier page."""
    with Simulator() as sim:
        files = sim.offer_export()
        second = {**files, "0new.glb": glb(b"new"), "tiles/005.glb": glb(b"changed")}

        def change() -> None:
            sim.page_size = 1
            sim.regenerate(second)

        sim.run_before_request(8, is_blob, change)
        arrived = threading.Event()
        sim.add_fault(is_blob_named("0new.glb"), call_before(arrived.set))
        sim.add_fault(
            lambda r: is_listing(r) and "0new.glb" in sim.containers[EXPORT] and r.query.get("marker") == "2!1",
            wait_for(arrived),
        )
        run = sim.mirror(tmp_path, transfers=1)
    assert run.error is None
    assert stored_files(tmp_path) == second


def test_an_export_regenerated_always_ends_with_7(tmp_path: Path) -> None:
    """Changed three times during the run: ExportReplaced, exit 7, nothing published."""
    with Simulator() as sim:
        sim.offer_export()
        turn = [0]

        def again() -> None:
            turn[0] += 1
            sim.regenerate(export(seed=100 + turn[0]))

        sim.add_fault(is_blob_named("tiles/005.glb"), call_before(again), times=None)
        run = sim.mirror(tmp_path, transfers=1)
        assert len([r for r in sim.listing_requests if "marker" not in r.query]) == 3
    assert isinstance(run.error, ExportReplaced)
    assert run.exit_code == 7
    assert not (tmp_path / "tileset.json").exists()


def test_an_export_that_always_changes_leaves_the_old_version(tmp_path: Path) -> None:
    """While the new export cannot be mirrored, the pointer leads to the old one as before."""
    with Simulator() as sim:
        first = sim.offer_export()
        sim.mirror(tmp_path)
        before = (tmp_path / "tileset.json").read_bytes(), (tmp_path / "latest.json").read_bytes()
        sim.offer_export(export(seed=2), export_id=OTHER)
        sim.add_fault(is_blob, error_response(412, "ConditionNotMet"), times=None)
        run = sim.mirror(tmp_path)
    assert run.exit_code == 7
    assert ((tmp_path / "tileset.json").read_bytes(), (tmp_path / "latest.json").read_bytes()) == before
    assert stored_files(tmp_path) == first


def test_a_container_that_is_gone_ends_with_7(tmp_path: Path) -> None:
    """ContainerNotFound while the service still lists the export: exit 7 after two more plans."""
    with Simulator() as sim:
        sim.offer_export()
        del sim.containers[EXPORT]
        run = sim.mirror(tmp_path)
    assert run.exit_code == 7
    assert "gone" in str(run.error)


def test_an_export_deleted_during_the_run_ends_with_7(tmp_path: Path) -> None:
    """The export vanishes from list and storage: exit 7 at once, without waiting for another."""
    with Simulator() as sim:
        sim.offer_export()
        sim.run_before_request(5, is_blob, sim.delete)
        run = sim.mirror(tmp_path, transfers=1, wait=timedelta(seconds=50))
    assert run.exit_code == 7


def test_an_export_deleted_during_the_run_is_replaced_by_its_successor(tmp_path: Path) -> None:
    """The export vanishes and a newer one is Complete: the same run mirrors that one."""
    with Simulator() as sim:
        sim.offer_export()
        second = export(6, seed=6)

        def change() -> None:
            sim.delete()
            sim.offer_export(second, export_id=OTHER)

        sim.run_before_request(5, is_blob, change)
        run = sim.mirror(tmp_path, transfers=1)
    assert run.exit_code == 0
    assert stored_files(tmp_path, OTHER) == second
    assert read_latest(tmp_path)["version"] == OTHER


def test_a_bare_link_whose_container_changes_ends_with_7_at_once(tmp_path: Path) -> None:
    """A bare link cannot be resolved again: the first change ends the run; the next run succeeds."""
    with Simulator() as sim:
        sim.offer_export()
        second = export(seed=7)
        sim.run_before_request(5, is_blob, lambda: sim.regenerate(second))
        run = sim.mirror(tmp_path, link=sim.create_link(EXPORT), transfers=1)
        assert run.exit_code == 7
        assert len(sim.listing_requests) == 1
        assert sim.mirror(tmp_path, link=sim.create_link(EXPORT)).exit_code == 0
    assert stored_files(tmp_path) == second


# --- files that fail ---


def test_damaged_bytes_publish_nothing(tmp_path: Path) -> None:
    """The same wrong MD5 twice with equal bytes: its own message, exit 3; the other files are kept for the next run."""
    with Simulator() as sim:
        files = sim.offer_export()
        fault = sim.add_fault(is_blob_named("tiles/002.glb"), flip_last_bit, times=None)
        run = sim.mirror(tmp_path)
        assert fault.hits == 2
        assert isinstance(run.error, Incomplete)
        (failure,) = run.events_of(FileFailed)
        assert (failure.name, failure.error) == ("tiles/002.glb", "BlobDamaged")
        assert "the same bytes came twice" in failure.message
        assert (run.stats.failed, run.stats.fetched) == (1, len(files) - 1)
        assert not (tmp_path / "tileset.json").exists()
        assert not (tmp_path / "versions" / EXPORT / "tiles/002.glb").exists()
        fault.times = 0
        sim.clear_requests()
        again = sim.mirror(tmp_path)
        assert [blob_name(r) for r in sim.blob_requests()] == ["tiles/002.glb"]
    assert again.exit_code == 0
    assert (again.stats.fetched, again.stats.kept) == (1, len(files) - 1)
    assert stored_files(tmp_path) == files


def test_bytes_damaged_once_are_fetched_again(tmp_path: Path) -> None:
    """A wrong MD5 once: fetched again, correct, published."""
    with Simulator() as sim:
        files = sim.offer_export()
        sim.add_fault(is_blob_named("tiles/002.glb"), flip_last_bit)
        run = sim.mirror(tmp_path)
    assert run.exit_code == 0
    assert stored_files(tmp_path) == files
    assert len(run.events_of(Retried)) == 1


def test_a_listed_blob_that_is_missing_fails_alone(tmp_path: Path) -> None:
    """404 BlobNotFound: that file failed, all others are stored, exit 3."""
    with Simulator() as sim:
        files = sim.offer_export()
        sim.add_fault(is_blob_named("tiles/007.glb"), error_response(404, "BlobNotFound"))
        run = sim.mirror(tmp_path)
    assert run.exit_code == 3
    assert [failure.error for failure in run.events_of(FileFailed)] == ["BlobMissing"]
    assert len(stored_files(tmp_path)) == len(files) - 1


def test_all_failures_are_counted_and_named(tmp_path: Path) -> None:
    """Every failed file is reported, and the counts add up."""
    names = ("tiles/001.glb", "tiles/004.glb", "data/empty")
    with Simulator() as sim:
        files = sim.offer_export()
        sim.add_fault(is_blob_named(*names), error_response(404, "BlobNotFound"), times=3)
        run = sim.mirror(tmp_path)
    assert {failure.name for failure in run.events_of(FileFailed)} == set(names)
    stats = run.stats
    assert stats.listed == stats.fetched + stats.reused + stats.kept + stats.excluded + stats.failed == len(files)


def test_an_invalid_glb_is_not_published(tmp_path: Path) -> None:
    """Bytes that match their MD5, but are no GLB though a tile references them as .glb: exit 3."""
    with Simulator() as sim:
        sim.offer_export(
            {**export(), "tiles/tileset.json": tileset("bad.glb"), "tiles/bad.glb": b"<html>not found</html>"}
        )
        run = sim.mirror(tmp_path)
    assert run.exit_code == 3
    assert "tiles/bad.glb" in run.events_of(FileFailed)[0].message


def test_a_root_that_is_no_tileset_is_not_published(tmp_path: Path) -> None:
    """A root without a root tile cannot be streamed: exit 3, no pointer."""
    with Simulator() as sim:
        sim.offer_export({**export(), "tileset.json": b"{}"})
        run = sim.mirror(tmp_path)
    assert run.exit_code == 3
    assert not (tmp_path / "tileset.json").exists()
    assert not (tmp_path / "latest.json").exists()


# --- disk space ---


def test_an_export_that_does_not_fit_is_refused_before_its_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first page needs more than the free space: exit 8, no blob requested; with space the next run continues."""
    monkeypatch.setattr(LocalFiles, "free_bytes", lambda _: 1000)
    with Simulator() as sim:
        files = sim.offer_export()
        run = sim.mirror(tmp_path)
        assert isinstance(run.error, DiskFull)
        assert run.exit_code == 8
        assert sim.blob_requests() == []
        monkeypatch.undo()
        assert sim.mirror(tmp_path).exit_code == 0
    assert stored_files(tmp_path) == files


def test_free_space_is_checked_page_by_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later page that does not fit ends the run with 8, and fetched files are kept."""
    files = export(30)
    total = sum(map(len, files.values()))
    monkeypatch.setattr(LocalFiles, "free_bytes", lambda _: total // 2)
    with Simulator(page_size=4) as sim:
        sim.offer_export(files)
        fetched = threading.Event()
        sim.add_fault(is_blob, call_before(fetched.set))
        sim.add_fault(lambda r: is_listing(r) and r.query.get("marker") == "2!4", wait_for(fetched))
        monkeypatch.setattr(LocalFiles, "free_bytes", lambda _: len(files["tileset.json"]) + 2500)
        run = sim.mirror(tmp_path)
        assert run.exit_code == 8
        assert not (tmp_path / "tileset.json").exists()
        monkeypatch.undo()
        assert sim.mirror(tmp_path).exit_code == 0
    assert stored_files(tmp_path) == files


def test_a_disk_that_fills_up_ends_with_8_and_is_resumable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC during the run: exit 8; files placed before are not fetched again."""
    write_one, written = write_whole, [0]

    def full(*args: Any) -> FileStamp:
        written[0] += 1
        if written[0] > 6:
            raise OSError(28, "No space left on device")
        return write_one(*args)

    monkeypatch.setattr(writer, "write_whole", full)
    with Simulator() as sim:
        files = sim.offer_export()
        run = sim.mirror(tmp_path, transfers=1)
        assert isinstance(run.error, DiskFull)
        monkeypatch.undo()
        sim.clear_requests()
        assert sim.mirror(tmp_path).exit_code == 0
        assert len(sim.blob_requests()) <= len(files) - 6
    assert stored_files(tmp_path) == files


# --- a crash between two steps of publishing ---


@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("second", [False, True])
def test_a_crash_between_two_steps_of_publishing_is_repaired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, second: bool
) -> None:
    """Stopped after the manifest, the pointer or latest.json: the next run publishes the same, without a fetch."""

    class Killed(BaseException):
        pass

    with Simulator() as sim:
        files = sim.offer_export()
        if second:
            sim.mirror(tmp_path)
            files = sim.offer_export(export(seed=2), export_id=OTHER)
        done = [0]

        def stopping(temporary: Entry, final: Entry, data: Iterable[bytes]) -> None:
            if done[0] == step - 1:
                raise Killed
            done[0] += 1
            replace_file_durably(temporary, final, data)

        def relink(*_: object) -> None:
            raise Killed

        monkeypatch.setattr(publication, "replace_file_durably", stopping)
        if step == 3:
            monkeypatch.setattr(LocalPublication, "_update_current_link", relink)
        with pytest.raises(Killed):
            sim.mirror(tmp_path)
        monkeypatch.undo()
        sim.clear_requests()
        run = sim.mirror(tmp_path)
        assert run.error is None, run.error
        assert sim.blob_requests() == []
    version = OTHER if second else EXPORT
    assert read_latest(tmp_path)["version"] == version
    assert stored_files(tmp_path, version) == files
    assert os.readlink(tmp_path / "current") == f"versions/{version}"
    assert verify(tmp_path).exit_code == 0


def test_publishing_has_a_fixed_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is in place at the sync; then come manifest, pointer, latest.json, symlink."""
    done: list[str] = []

    def recording(name: str, work: Any) -> Any:
        def recorded(*args: Any, **how: Any) -> Any:
            names = [
                path.name for path in tmp_path.iterdir() if path.name not in {".tilesync", "versions", "manifests"}
            ]
            done.append(f"{name} {sorted(names)}")
            return work(*args, **how)

        return recorded

    with Simulator() as sim:
        files = sim.offer_export()

        def checked_sync(folder: Path) -> None:
            assert stored_files(tmp_path) == files
            assert not (tmp_path / "manifests" / f"{EXPORT}.jsonl").exists()
            sync_filesystem(folder)

        monkeypatch.setattr(publication, "sync_filesystem", recording("barrier", checked_sync))
        monkeypatch.setattr(publication, "replace_file_durably", recording("place", replace_file_durably))
        monkeypatch.setattr(
            LocalPublication, "_update_current_link", recording("relink", LocalPublication._update_current_link)
        )
        assert sim.mirror(tmp_path).exit_code == 0
    assert done == [
        "barrier []",
        "place []",
        "place ['tileset.json']",
        "relink ['latest.json', 'tileset.json']",
    ]


def test_a_lost_latest_json_is_restored(tmp_path: Path) -> None:
    """Without latest.json the catalog still knows this destination, and an unchanged run restores the file."""
    with Simulator() as sim:
        sim.offer_export()
        sim.mirror(tmp_path)
        (tmp_path / "latest.json").unlink()
        run = sim.mirror(tmp_path)
    assert run.error is None
    assert read_latest(tmp_path)["version"] == EXPORT


def test_a_second_run_on_a_busy_destination_ends_with_9(tmp_path: Path) -> None:
    """While one run has the lock of DEST the second ends at once with 9, and the first is not disturbed."""
    with Simulator() as sim:
        files = sim.offer_export()
        release, inside = threading.Event(), threading.Event()
        sim.add_fault(is_blob_named("tileset.json"), call_before(inside.set, lambda: release.wait(10)))
        runs: list[Any] = []
        first = threading.Thread(target=lambda: runs.append(sim.mirror(tmp_path)))
        first.start()
        assert inside.wait(10)
        second = sim.mirror(tmp_path)
        release.set()
        first.join()
    assert isinstance(second.error, DestinationBusy)
    assert runs[0].exit_code == 0
    assert stored_files(tmp_path) == files


# --- properties ---


def _inject_faults(sim: Simulator, dice: random.Random) -> None:
    """Add random faults: any response of the storage, and some of the API, may be one of them."""
    effects = [
        error_response(503, "ServerBusy", Retry_After="0"),
        error_response(500, "InternalError"),
        truncate_body(40),
        truncate_body(-1),
        ignore_range,
        flip_last_bit,
    ]

    def unlucky(_: FakeRequest) -> bool:
        return dice.random() < 0.12

    for effect in effects:
        sim.add_fault(lambda r: is_blob(r) and unlucky(r), effect, times=4, optional=True)
    sim.add_fault(lambda r: is_listing(r) and unlucky(r), halve_body, times=2, optional=True)
    sim.add_fault(
        lambda r: is_listing(r) and unlucky(r), error_response(500, "OperationTimedOut"), times=2, optional=True
    )
    sim.add_fault(lambda r: is_api(r) and unlucky(r), error_response(502), times=2, optional=True)
    sim.add_fault(lambda r: is_storage(r) and unlucky(r), call_before(sim.revoke_links), times=1, optional=True)


@settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10**6), page_size=st.integers(1, 9), md5=st.booleans(), regenerated=st.booleans())
def test_a_run_under_random_faults_converges(seed: int, page_size: int, md5: bool, regenerated: bool) -> None:
    """After any faults: runs until exit 0 give the exact tree, and no run before publishes anything."""
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder, Simulator(page_size=page_size) as sim:
        dest = Path(folder)
        files = sim.offer_export(export(20, seed=seed), md5=True)
        if not md5:
            sim.regenerate(files, md5=False)
            sim.faults.clear()
        _inject_faults(sim, dice)
        if not md5:
            sim.faults = [fault for fault in sim.faults if fault.effect is not flip_last_bit]
        final = files
        if regenerated:
            final = export(18, seed=seed + 1)
            sim.add_fault(is_blob, call_before(lambda: sim.regenerate(final, md5=md5)), skip=7, optional=True)
        for _ in range(8):
            run = sim.mirror(dest, retry_for=timedelta(seconds=5))
            if run.exit_code == 0:
                break
            assert not (dest / "tileset.json").exists()
        assert run.error is None, run.error
        sim.faults.clear()
        assert sim.mirror(dest).exit_code == 0
        assert stored_files(dest, read_latest(dest)["version"]) == {
            n: b.data for n, b in sim.containers[EXPORT].items()
        }
        assert verify(dest).exit_code == 0


@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(tiles=st.integers(0, 12), seed=st.integers(0, 100), md5=st.booleans(), page_size=st.integers(1, 20))
def test_an_applied_plan_replans_to_nothing(tiles: int, seed: int, md5: bool, page_size: int) -> None:
    """A dry run after a run keeps everything; also after a touch of lastModified."""
    with tempfile.TemporaryDirectory() as folder, Simulator(page_size=page_size) as sim:
        dest = Path(folder)
        files = sim.offer_export(export(tiles, seed=seed), md5=md5)
        plan = sim.dry_run(dest)
        assert {event.name for event in plan.events_of(Planned)} == set(files)
        run = sim.mirror(dest)
        assert (run.stats.fetched, run.stats.listed) == (plan.stats.fetched, plan.stats.listed)
        for again in (sim.dry_run(dest), sim.mirror(dest)):
            assert (again.exit_code, again.stats.fetched, again.stats.kept) == (0, 0, len(files))
        sim.regenerate(files, md5=md5)
        for again in (sim.dry_run(dest), sim.mirror(dest)):
            assert (again.exit_code, again.stats.fetched, again.stats.kept) == (0, 0, len(files))
        assert [event.version for event in again.events_of(VersionChosen)][-1] == EXPORT


def test_a_md5_that_matches_keeps_a_file_whose_etag_changed(tmp_path: Path) -> None:
    """A file uploaded again with the same bytes is kept by its MD5 when the run plans again."""
    with Simulator() as sim:
        files = sim.offer_export()
        second = make_stored_blobs(files)
        for name, item in second.items():
            item.etag = f"0xNEW{abs(hash(name)):x}"
        sim.run_before_request(10, is_blob, lambda: sim.containers.update({EXPORT: second}))
        run = sim.mirror(tmp_path, transfers=1)
        assert len(sim.blob_requests()) == len(files) + 1
    assert run.exit_code == 0
    assert stored_files(tmp_path) == files
    assert md5_base64(files["tileset.json"]) == second["tileset.json"].md5


def test_ranges_are_requested_only_for_partial_files(tmp_path: Path) -> None:
    """No Range at offset 0: a run without broken bodies sends no range."""
    with Simulator() as sim:
        sim.offer_export()
        sim.mirror(tmp_path)
        assert not [request for request in sim.requests if is_range_request(request)]


def test_a_destination_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """DEST is a file: exit 8, and the file is unchanged."""
    (tmp_path / "d").write_text("mine")
    with Simulator() as sim:
        sim.offer_export()
        run = sim.mirror(tmp_path / "d")
    assert isinstance(run.error, DestinationError)
    assert (tmp_path / "d").read_text() == "mine"
