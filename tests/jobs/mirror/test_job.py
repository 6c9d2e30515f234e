"""Mirror job against the simulator and a local folder: resolve, list, plan, transfer, publish, clean up."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import tempfile
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from tests.support.builders import IMODEL, export, glb, make_stored_blobs, read_manifest, read_tree
from tests.support.examples import examples
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
    is_storage,
    truncate_body,
    wait_for,
)
from tests.support.simulator import EXPORT, OTHER_EXPORT, Simulator, read_latest, read_version, verify
from tilesync.demo.loopback_server import FakeRequest
from tilesync.errors import (
    DestinationBusy,
    DestinationError,
    ExportReplaced,
)
from tilesync.events import (
    ExportResolved,
    VersionPublished,
    Warned,
)
from tilesync.model import Selector

# --- a whole run ---


def test_the_published_tree_is_the_container_byte_for_byte(tmp_path: Path) -> None:
    """Every blob is stored under its own name with its own bytes, and there are no other files."""
    with Simulator(page_size=5) as sim:
        files = sim.offer_export()
        run = sim.mirror(tmp_path)
    assert run.error is None
    assert read_version(tmp_path) == files
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
    assert read_version(tmp_path / "d") == files
    assert not (tmp_path / "d/.tilesync").exists()


def test_an_export_without_md5_is_mirrored(tmp_path: Path) -> None:
    """Without Content-MD5 length and structure are checked, and the manifest still has every SHA-256."""
    with Simulator() as sim:
        files = sim.offer_export(md5=False)
        assert sim.mirror(tmp_path).exit_code == 0
    assert read_version(tmp_path) == files
    assert all(row["md5"] is None and row["sha256"] for row in read_manifest(tmp_path, EXPORT)[1].values())


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


def test_a_second_export_is_a_second_version(tmp_path: Path) -> None:
    """A new export becomes a new version and the pointer moves; the old version does not change."""
    with Simulator() as sim:
        first = sim.offer_export()
        sim.mirror(tmp_path)
        second = sim.offer_export(export(15, seed=2), export_id=OTHER_EXPORT, lastModified="2026-03-02T08:30:00Z")
        run = sim.mirror(tmp_path)
    assert run.exit_code == 0
    assert [e.version for e in run.events_of(VersionPublished)] == [OTHER_EXPORT]
    assert read_version(tmp_path) == first
    assert read_version(tmp_path, OTHER_EXPORT) == second
    assert read_latest(tmp_path)["version"] == OTHER_EXPORT
    assert os.readlink(tmp_path / "current") == f"versions/{OTHER_EXPORT}"
    assert f"versions/{OTHER_EXPORT}/" in (tmp_path / "tileset.json").read_text()
    assert {p.name for p in (tmp_path / "manifests").iterdir()} == {f"{EXPORT}.jsonl", f"{OTHER_EXPORT}.jsonl"}


def test_while_the_newest_is_unfinished_the_older_one_is_mirrored(tmp_path: Path) -> None:
    """The first Complete row counts; the event says that it is not the newest export."""
    with Simulator() as sim:
        files = sim.offer_export()
        sim.offer_export(export(seed=3), export_id=OTHER_EXPORT, status="InProgress")
        run = sim.mirror(tmp_path)
    (resolved,) = run.events_of(ExportResolved)
    assert (resolved.export, resolved.newest, resolved.behind) == (EXPORT, OTHER_EXPORT, True)
    assert read_version(tmp_path) == files


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
    assert read_version(tmp_path) == first
    assert read_version(tmp_path, f"{EXPORT}-2") == second
    assert read_version(tmp_path, f"{EXPORT}-3") == third
    assert read_latest(tmp_path)["version"] == f"{EXPORT}-3"


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
    assert read_version(tmp_path) == files
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
    before = read_version(tmp_path)
    assert all(first[name] == data for name, data in before.items())
    assert read_version(tmp_path, read_latest(tmp_path)["version"]) == second


def test_a_deleted_version_folder_is_fetched_again(tmp_path: Path) -> None:
    """The files of the current version were deleted: the next run fetches them again."""
    with Simulator() as sim:
        files = sim.offer_export()
        sim.mirror(tmp_path)
        shutil.rmtree(tmp_path / "versions" / EXPORT)
        run = sim.mirror(tmp_path)
    assert run.exit_code == 0
    assert read_version(tmp_path) == files
    assert verify(tmp_path).exit_code == 0


def test_another_export_can_be_selected(tmp_path: Path) -> None:
    """--export-id selects an older Complete export, and the newest is named."""
    with Simulator() as sim:
        old = sim.offer_export()
        sim.offer_export(export(seed=8), export_id=OTHER_EXPORT)
        run = sim.mirror(tmp_path, selector=Selector(imodel=IMODEL, export_type="3dtiles", export_id=EXPORT.upper()))
    assert run.exit_code == 0
    assert read_version(tmp_path) == old
    assert run.events_of(ExportResolved)[0].behind


# --- an export that changes during the run ---


def test_an_export_regenerated_once_converges(tmp_path: Path) -> None:
    """After a regeneration during the run it lists and plans again, and publishes the complete new export."""
    with Simulator() as sim:
        sim.offer_export()
        second = {**export(14, seed=5), "0new.glb": glb(b"new")}
        sim.run_before_request(6, is_blob, lambda: sim.regenerate(second))
        run = sim.mirror(tmp_path, transfers=1)
    assert run.exit_code == 0
    assert read_version(tmp_path) == second
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
    assert read_version(tmp_path) == second


def test_a_changed_file_after_a_new_name_is_fetched_too(tmp_path: Path) -> None:
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
    assert read_version(tmp_path) == second


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
        sim.offer_export(export(seed=2), export_id=OTHER_EXPORT)
        sim.add_fault(is_blob, error_response(412, "ConditionNotMet"), times=None)
        run = sim.mirror(tmp_path)
    assert run.exit_code == 7
    assert ((tmp_path / "tileset.json").read_bytes(), (tmp_path / "latest.json").read_bytes()) == before
    assert read_version(tmp_path) == first


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
            sim.offer_export(second, export_id=OTHER_EXPORT)

        sim.run_before_request(5, is_blob, change)
        run = sim.mirror(tmp_path, transfers=1)
    assert run.exit_code == 0
    assert read_version(tmp_path, OTHER_EXPORT) == second
    assert read_latest(tmp_path)["version"] == OTHER_EXPORT


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
    assert read_version(tmp_path) == second


# --- files that fail ---


def test_a_root_that_is_no_tileset_is_not_published(tmp_path: Path) -> None:
    """A root without a root tile cannot be streamed: exit 3, no pointer."""
    with Simulator() as sim:
        sim.offer_export({**export(), "tileset.json": b"{}"})
        run = sim.mirror(tmp_path)
    assert run.exit_code == 3
    assert not (tmp_path / "tileset.json").exists()
    assert not (tmp_path / "latest.json").exists()


# --- a crash between two steps of publishing ---


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
    assert read_version(tmp_path) == files


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


@pytest.mark.scale
@examples(5, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
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
        assert read_version(dest, read_latest(dest)["version"]) == {
            n: b.data for n, b in sim.containers[EXPORT].items()
        }
        assert verify(dest).exit_code == 0


def test_a_destination_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """DEST is a file: exit 8, and the file is unchanged."""
    (tmp_path / "d").write_text("mine")
    with Simulator() as sim:
        sim.offer_export()
        run = sim.mirror(tmp_path / "d")
    assert isinstance(run.error, DestinationError)
    assert (tmp_path / "d").read_text() == "mine"
