"""Test `--content decoded`: gzip payloads are stored unpacked, so that any web server can serve them."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import IMODEL, export, glb, read_manifest, tileset
from tests.support.city_editions import small_city
from tests.support.commandline import run_tilesync
from tests.support.faults import blob_name, call_before, is_blob, is_blob_named
from tests.support.gzip_exports import (
    BIG,
    DECODED,
    LARGE,
    gz_names,
    gzip_bytes,
    make_gzip_export,
    mirror_decoded,
    run_sha256sum,
)
from tests.support.simulator import (
    EXPORT,
    OTHER_EXPORT,
    Simulator,
    read_latest,
    read_version,
    run_program,
    verify,
)
from tests.support.viewer_walk import closure as closure_of
from tests.support.viewers import CAMERA_PATH, Browser, view_mirror
from tests.support.worker_processes import TILES, record_worker_pids, wait_for_slow_batches
from tilesync.api.rows import make_version_info
from tilesync.app import commands, shared
from tilesync.app.requests import Target
from tilesync.errors import Incomplete
from tilesync.events import Finding, Planned
from tilesync.jobs.versions.ownership import OwnershipStatus
from tilesync.model import Content, Inventory, Layout
from tilesync.stores.local.gunzip import GunzipWriter

SECOND = f"{EXPORT}-2"


def test_files_are_stored_unpacked_and_recorded_so(tmp_path: Path) -> None:
    """Every gzip payload is stored unpacked with the date of its blob; the folder verifies, and the
    second run has nothing to do.
    """
    files, plain = make_gzip_export()
    with Simulator() as sim:
        sim.offer_export(files)
        sim.blob("tiles/002.glb").content_encoding = "gzip"
        sim.blob("tiles/001.glb").content_encoding = "gzip"  # which is not true
        first = sim.mirror_program(tmp_path, *DECODED)
        assert (first.exit_code, first.last_line["fetched"], first.last_line["version"]) == (0, len(files), EXPORT), (
            first.stderr
        )
        assert read_version(tmp_path) == plain
        sim.clear_requests()
        again = sim.mirror_program(tmp_path, env={"TILESYNC_CONTENT": "decoded"})
        assert (again.exit_code, again.last_line["kept"], len(sim.blob_requests()), len(sim.listing_requests)) == (
            0,
            len(files),
            0,
            0,
        )
    head, rows = read_manifest(tmp_path, EXPORT)
    assert (head["content"], head["files"], head["bytes"]) == ("decoded", len(files), sum(map(len, plain.values())))
    assert {name for name, row in rows.items() if "stored" in row} == gz_names(files)
    for name, row in rows.items():
        assert row["size"] == len(plain[name])
        assert row["etag"].startswith("0x8D")
        stored = row.get("stored", row)
        assert stored["size"] == len(files[name])
        assert stored["content_encoding"] == ("gzip" if name in {"tiles/001.glb", "tiles/002.glb"} else None)
        assert (tmp_path / "versions" / EXPORT / name).stat().st_mtime == datetime(
            2026, 3, 1, 8, 30, tzinfo=UTC
        ).timestamp()
    assert rows["tiles/002.glb"]["content_encoding"] is None
    assert json.loads((tmp_path / "tileset.json").read_bytes())["root"]["children"][1]["content"]["uri"].endswith(BIG)
    assert verify(tmp_path).exit_code == 0
    assert verify(tmp_path, quick=True).exit_code == 0
    assert run_sha256sum(tmp_path) == 0
    assert list((tmp_path / ".tilesync/parts").iterdir()) == []
    (listed,) = commands.list_versions(Target(tmp_path), lambda event: None)[0]
    assert {"content": "decoded", "bytes": head["bytes"]}.items() <= make_version_info(
        listed, OwnershipStatus(None, None)
    ).to_dict().items()


def test_a_folder_with_gzip_files_has_a_hint_about_web_servers(tmp_path: Path) -> None:
    """The hint about gzip files comes once at the end, with suffixes and count; not without gzip, nor if unpacked."""
    with Simulator() as sim:
        files, plain = make_gzip_export()
        sim.offer_export(files)
        run = sim.mirror_program(tmp_path / "stored")
        assert (run.exit_code, run.last_line["gzip_files"] >= len(gz_names(files))) == (0, True)
        people = run_tilesync("mirror", IMODEL, tmp_path / "again", sim=sim)
        last = people.stderr.splitlines()[-1]
        assert "are stored as gzip: the web server must send `Content-Encoding: gzip`" in last
        assert "glb" in last
        assert f"tilesync doctor {tmp_path / 'again'} --public-url" in last
        quiet = run_tilesync("mirror", IMODEL, tmp_path / "again", sim=sim)
        decoded = sim.mirror_program(tmp_path / "decoded", *DECODED)
        assert ("gzip" in quiet.stderr, decoded.last_line["gzip_files"]) == (False, 0)
        sim.offer_export(plain, export_id=OTHER_EXPORT)
        assert sim.mirror_program(tmp_path / "plain").last_line["gzip_files"] == 0


def test_only_files_that_really_are_gzip_are_counted(tmp_path: Path) -> None:
    """If the listing has Content-Encoding, only files that really are gzip count."""
    with Simulator() as sim:
        files = {
            "tileset.json": tileset("a.glb", "b.glb", "c.bin"),
            "a.glb": glb(b"a"),
            "b.glb": gzip_bytes(glb(b"b" * 99)),
        }
        sim.offer_export(files | {"c.bin": b"plain"})
        for name in ("b.glb", "c.bin"):
            sim.blob(name).content_encoding = "gzip"
        run = sim.mirror_program(tmp_path)
        assert (run.exit_code, run.last_line["gzip_files"]) == (0, 1), run.stderr


def test_worker_processes_unpack_small_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes unpack files, and read them for `verify`."""
    monkeypatch.setattr(shared, "count_cores", lambda: 2)
    wait_for_slow_batches(monkeypatch)
    plain, seen = export(TILES), list[int]()
    files = {name: gzip_bytes(data) if data else data for name, data in plain.items()}
    with Simulator() as sim:
        sim.offer_export(files)
        record_worker_pids(sim, seen)
        assert mirror_decoded(sim, tmp_path).exit_code == 0
        assert len(sim.blob_requests()) == len(files)
    assert len(seen) == 2
    assert read_version(tmp_path) == plain
    _, rows = read_manifest(tmp_path, EXPORT)
    assert {name for name, row in rows.items() if "stored" in row} == gz_names(files)
    assert verify(tmp_path).exit_code == 0
    victim = tmp_path / "versions" / EXPORT / "tiles/300.glb"
    victim.write_bytes(files["tiles/300.glb"])
    assert [each.name for each in verify(tmp_path).events_of(Finding)] == ["tiles/300.glb"]


@pytest.mark.parametrize("wrong", [b"not what was said", gzip_bytes(glb(b"other"))[:-1] + b"\0"])
def test_bytes_are_verified_as_they_are_stored(tmp_path: Path, wrong: bytes) -> None:
    """A blob whose stored bytes do not match the container fails, and no part of it is stored."""
    files, _ = make_gzip_export()
    with Simulator() as sim:
        sim.offer_export(files)
        there = sim.blob("tiles/003.glb")
        there.data = wrong + bytes(max(0, len(there.data) - len(wrong)))
        run = mirror_decoded(sim, tmp_path)
        assert isinstance(run.error, Incomplete)
    assert "tiles/003.glb" not in read_version(tmp_path)
    assert not (tmp_path / "tileset.json").exists()


def start_mirror(sim: Simulator, dest: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "tilesync", "mirror", IMODEL, str(dest), "--transfers", "8", "--json", *DECODED]
    inherited = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    env = {**inherited, "TILESYNC_API_URL": sim.url, "TILESYNC_TOKEN": sim.token}
    return subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_half_a_large_file_survives_a_kill(tmp_path: Path) -> None:
    """A partial file has the packed bytes, is continued, and is unpacked when it is complete."""
    files, plain = make_gzip_export()
    with Simulator() as sim:
        sim.offer_export(files)
        stuck, release = threading.Event(), threading.Event()

        def half_then_silence(_: Any, proceed: Any) -> Any:
            answer = proceed()
            answer.sent_bytes = 3_500_000
            return answer

        sim.add_fault(is_blob_named(LARGE), half_then_silence)
        sim.add_fault(is_blob_named(LARGE), call_before(stuck.set, lambda: release.wait(30)))
        running = start_mirror(sim, tmp_path)
        assert stuck.wait(20)
        running.send_signal(signal.SIGKILL)
        running.communicate()
        release.set()
        assert LARGE not in read_version(tmp_path)
        sim.faults.clear()
        sim.clear_requests()
        assert sim.mirror_program(tmp_path, *DECODED).exit_code == 0
        (asked,) = sim.range_headers(LARGE)
        assert asked is not None
        assert int(asked.removeprefix("bytes=").rstrip("-")) >= 2_000_000
    assert read_version(tmp_path) == plain
    assert verify(tmp_path).exit_code == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_kills_at_random_moments_leave_no_partial_files(tmp_path: Path, seed: int) -> None:
    """At each kill, every file under a final name is unpacked and complete; the last run succeeds."""
    dice = random.Random(seed)
    files, plain = make_gzip_export(60, seed=seed)
    with Simulator(delay_s=0.05, page_size=20) as sim:
        sim.offer_export(files)
        for _ in range(3):
            ready = threading.Event()
            sim.faults.clear()
            sim.run_before_request(1, is_blob, ready.set).optional = True
            running = start_mirror(sim, tmp_path)
            while not ready.wait(0.05) and running.poll() is None:
                continue  # it may have nothing left to ask for
            try:
                running.wait(dice.uniform(0.1, 0.6))
            except subprocess.TimeoutExpired:
                running.send_signal(signal.SIGKILL)
            running.communicate()
            assert read_version(tmp_path).items() <= plain.items()
        sim.faults.clear()
        sim.delay_s = 0
        assert mirror_decoded(sim, tmp_path).exit_code == 0
    assert read_version(tmp_path) == plain
    assert verify(tmp_path).exit_code == 0


def test_a_lost_state_is_rebuilt(tmp_path: Path) -> None:
    """Without a catalog, the manifest proves all files; of an unfinished version only files without gzip stay."""
    files, plain = make_gzip_export()
    with Simulator() as sim:
        sim.offer_export(files)
        assert mirror_decoded(sim, tmp_path).exit_code == 0
        shutil.rmtree(tmp_path / ".tilesync")
        sim.clear_requests()
        assert mirror_decoded(sim, tmp_path).exit_code == 0
        assert sim.blob_requests() == []
        shutil.rmtree(tmp_path / ".tilesync")
        for leader in ("tileset.json", "latest.json", "current"):
            (tmp_path / leader).unlink()
        shutil.rmtree(tmp_path / "manifests")
        assert mirror_decoded(sim, tmp_path).exit_code == 0
        asked = {blob_name(request) for request in sim.blob_requests()}
        assert asked == gz_names(files)
    assert read_version(tmp_path) == plain
    assert verify(tmp_path).exit_code == 0


def test_packed_files_of_a_lost_version_are_not_reused(tmp_path: Path) -> None:
    """Packed files of an unfinished run are not reused for a decoded version."""
    files, plain = make_gzip_export()
    with Simulator() as sim:
        sim.offer_export(files)
        assert sim.mirror(tmp_path).exit_code == 0
        for lost in (".tilesync", "manifests"):
            shutil.rmtree(tmp_path / lost)
        for leader in ("tileset.json", "latest.json", "current"):
            (tmp_path / leader).unlink()
        assert mirror_decoded(sim, tmp_path).exit_code == 0
    assert read_version(tmp_path) == plain


@pytest.mark.parametrize("name", ["tiles/004.glb", LARGE])
@pytest.mark.parametrize("how", ["gone", "changed", "packed"])
def test_a_damaged_file_is_repaired(tmp_path: Path, name: str, how: str) -> None:
    """The next run fetches, checks and unpacks the files that `verify` found damaged."""
    files, plain = make_gzip_export()
    with Simulator() as sim:
        sim.offer_export(files)
        assert mirror_decoded(sim, tmp_path).exit_code == 0
        path = tmp_path / "versions" / EXPORT / name
        if how == "gone":
            path.unlink()
        else:
            path.write_bytes(files[name] if how == "packed" else plain[name][:-1] + b"!")
        result = verify(tmp_path)
        assert [(each.name, result.exit_code) for each in result.events_of(Finding)] == [(name, 10)]
        sim.clear_requests()
        assert mirror_decoded(sim, tmp_path).exit_code == 0
        assert {blob_name(request) for request in sim.blob_requests()} == {name}
    assert read_version(tmp_path) == plain
    assert verify(tmp_path).exit_code == 0


def test_both_contents_in_one_destination(tmp_path: Path) -> None:
    """Stored and decoded are two versions of an export; they share files, and nothing is fetched twice."""
    files, plain = make_gzip_export()
    with Simulator() as sim:
        sim.offer_export(files)
        assert sim.mirror(tmp_path).exit_code == 0
        sim.clear_requests()
        run = mirror_decoded(sim, tmp_path)
        assert (run.exit_code, run.stats.fetched, run.stats.reused) == (0, 0, len(files))
        assert sim.blob_requests() == []
        assert read_latest(tmp_path)["version"] == SECOND
        assert (read_version(tmp_path), read_version(tmp_path, SECOND)) == (files, plain)
        for name in files:
            one, other = (os.lstat(tmp_path / "versions" / each / name) for each in (EXPORT, SECOND))
            assert (one.st_ino == other.st_ino) == (name not in gz_names(files)), name
        sim.clear_requests()
        for content, version in ((Content.STORED, EXPORT), (Content.DECODED, SECOND)):
            run = sim.mirror(tmp_path, content=content)
            assert (run.exit_code, run.stats.kept, read_latest(tmp_path)["version"]) == (0, len(files), version)
        assert sim.blob_requests() + sim.listing_requests == []
        assert verify(tmp_path, every=True).exit_code == 0
        assert [run_sha256sum(tmp_path, each) for each in (EXPORT, SECOND)] == [0, 0]


def test_unpacked_files_are_no_source_for_stored_ones(tmp_path: Path) -> None:
    """From decoded to stored, gzip files are fetched, since they cannot be packed the same way; others are shared."""
    files, plain = make_gzip_export()
    with Simulator() as sim:
        sim.offer_export(files)
        assert mirror_decoded(sim, tmp_path).exit_code == 0
        sim.clear_requests()
        run = sim.mirror(tmp_path)
        assert (run.exit_code, run.stats.fetched) == (0, len(gz_names(files)))
        assert {blob_name(request) for request in sim.blob_requests()} == gz_names(files)
    assert (read_version(tmp_path), read_version(tmp_path, SECOND)) == (plain, files)
    assert verify(tmp_path, every=True).exit_code == 0


@pytest.mark.parametrize("md5", [True, False])
def test_a_second_export_shares_unpacked_files(tmp_path: Path, md5: bool) -> None:
    """Unchanged unpacked files are linked from version to version, also if only their bytes can be compared."""
    files, plain = make_gzip_export()
    more, more_plain = {**files, "tiles/000.glb": glb(b"new")}, {**plain, "tiles/000.glb": glb(b"new")}
    with Simulator() as sim:
        sim.offer_export(files, md5=md5)
        assert mirror_decoded(sim, tmp_path).exit_code == 0
        sim.offer_export(more, export_id=OTHER_EXPORT, md5=md5, lastModified="2026-03-02T08:30:00Z")
        run = mirror_decoded(sim, tmp_path)
        assert (run.exit_code, run.stats.fetched) == (0, 1 if md5 else len(files))
    assert read_version(tmp_path, OTHER_EXPORT) == more_plain
    for name in gz_names(files):
        one, other = (os.lstat(tmp_path / "versions" / each / name) for each in (EXPORT, OTHER_EXPORT))
        assert one.st_ino == other.st_ino, name
    assert verify(tmp_path, every=True).exit_code == 0


def test_an_export_that_changed_in_name_only(tmp_path: Path) -> None:
    """An export with a new date and an unchanged listing keeps its version."""
    files, _ = make_gzip_export()
    with Simulator() as sim:
        sim.offer_export(files)
        assert mirror_decoded(sim, tmp_path).exit_code == 0
        sim.regenerate(files)
        sim.clear_requests()
        run = mirror_decoded(sim, tmp_path)
        assert (run.exit_code, run.stats.kept, sim.blob_requests()) == (0, len(files), [])
    assert [each.name for each in (tmp_path / "versions").iterdir()] == [EXPORT]


@pytest.mark.parametrize("first", [Content.STORED, Content.DECODED])
def test_an_unfinished_version_keeps_its_content_mode(tmp_path: Path, first: Content) -> None:
    """A run with other content starts another version; each is continued with its own content mode."""
    other = Content.DECODED if first is Content.STORED else Content.STORED
    files, plain = make_gzip_export()
    with Simulator() as sim:
        sim.offer_export(files)
        fault = sim.add_fault(is_blob_named("tiles/004.glb"), lambda _, proceed: _broken(proceed()), times=None)
        assert sim.mirror(tmp_path, content=first).exit_code == 3
        sim.faults.remove(fault)
        assert sim.mirror(tmp_path, content=other).exit_code == 0
        assert read_latest(tmp_path)["version"] == SECOND
        assert sim.mirror(tmp_path, content=first).exit_code == 0
        assert read_latest(tmp_path)["version"] == EXPORT
    result = {Content.STORED: files, Content.DECODED: plain}
    assert (read_version(tmp_path), read_version(tmp_path, SECOND)) == (result[first], result[other])
    assert verify(tmp_path, every=True).exit_code == 0


def _broken(answer: Any) -> Any:
    answer.body = answer.body[:-1] + bytes([answer.body[-1] ^ 1])
    return answer


@pytest.mark.parametrize("before", [Content.STORED, Content.DECODED])
def test_the_flat_layout(tmp_path: Path, before: Content) -> None:
    """In the flat layout the files are unpacked at the container's paths; deleted blobs can be removed."""
    files, plain = make_gzip_export()
    fewer = {name: data for name, data in files.items() if name != "tiles/005.glb"}
    fewer["tiles/tileset.json"] = gzip_bytes(tileset(*(f"{n:03d}.glb" for n in range(12) if n != 5)))
    with Simulator() as sim:
        sim.offer_export(files)
        assert sim.mirror(tmp_path, layout=Layout.FLAT, content=before).exit_code == 0
        flat = {name: (tmp_path / name).read_bytes() for name in files}
        assert flat == (files if before is Content.STORED else plain)
        assert mirror_decoded(sim, tmp_path, layout=Layout.FLAT).exit_code == 0
        assert {name: (tmp_path / name).read_bytes() for name in files} == plain
        assert verify(tmp_path).exit_code == 0
        sim.offer_export(fewer, export_id=OTHER_EXPORT, lastModified="2026-03-02T08:30:00Z")
        ended = sim.mirror_program(tmp_path, *DECODED, "--layout", "flat", "--delete")
        assert (ended.exit_code, ended.last_line["deleted"]) == (0, 1), ended.stderr
    assert not (tmp_path / "tiles/005.glb").exists()
    assert (tmp_path / LARGE).read_bytes() == plain[LARGE]
    assert verify(tmp_path).exit_code == 0


def test_a_walk(tmp_path: Path) -> None:
    """With --inventory walk files are unpacked too, and a run without changes transfers nothing."""
    files, plain = make_gzip_export()
    with Simulator() as sim:
        sim.offer_export(files)
        assert mirror_decoded(sim, tmp_path, inventory=Inventory.WALK).exit_code == 0
        stored = read_version(tmp_path)
        assert stored.items() <= plain.items()
        assert len(stored) == len(plain) - 2
        sim.regenerate(files)
        assert mirror_decoded(sim, tmp_path, inventory=Inventory.WALK).exit_code == 0
    assert [each.name for each in (tmp_path / "versions").iterdir()] == [EXPORT]
    assert verify(tmp_path).exit_code == 0


def test_all_exports_and_the_plan(tmp_path: Path) -> None:
    """A history has one content mode; a plan shows the result of each."""
    files, plain = make_gzip_export()
    other, other_plain = make_gzip_export(9, seed=1)
    with Simulator() as sim:
        sim.offer_export(files)
        sim.offer_export(other, export_id=OTHER_EXPORT, lastModified="2026-03-02T08:30:00Z")
        assert sim.mirror_program(tmp_path, "--all-exports", *DECODED).exit_code == 0
        assert (read_version(tmp_path), read_version(tmp_path, OTHER_EXPORT)) == (plain, other_plain)
        sim.clear_requests()
        assert sim.mirror_program(tmp_path, "--all-exports", *DECODED).exit_code == 0
        assert sim.blob_requests() == []
        same = sim.dry_run(tmp_path, content=Content.DECODED)
        assert (same.exit_code, same.stats.kept, same.stats.fetched) == (0, len(other), 0)
        stored = sim.dry_run(tmp_path)
        assert (stored.exit_code, stored.stats.fetched) == (0, len(gz_names(other)))
        actions = {each.name: each.action for each in stored.events_of(Planned)}
        assert all(actions[name] == "fetch" for name in gz_names(other))
    assert not (tmp_path / "versions" / f"{OTHER_EXPORT}-2").exists()


def test_decoded_content_needs_a_folder(tmp_path: Path) -> None:
    """--content decoded into a store is a usage error: a store sends the encoding of each file."""
    for dest in ("s3://bucket/prefix", "az://account/container"):
        ended = run_program("mirror", IMODEL, dest, *DECODED, env={"TILESYNC_TOKEN": "t", "HOME": str(tmp_path)})
        assert (ended.exit_code, ended.last_line["error"]) == (2, "UsageError")
        assert "encoding" in ended.last_line["message"]


def test_a_disk_that_fills_while_unpacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk while unpacking: nothing partial is left, and stored files are not fetched again."""
    files, plain = make_gzip_export()
    real = GunzipWriter.write_next

    def full(self: GunzipWriter) -> bool:
        if not real(self) and self.size == len(plain[LARGE]):
            raise OSError(errno.ENOSPC, "no space left")
        return False

    with Simulator() as sim:
        sim.offer_export(files)
        monkeypatch.setattr(GunzipWriter, "write_next", full)
        assert mirror_decoded(sim, tmp_path).exit_code == 8
        monkeypatch.undo()
        assert LARGE not in read_version(tmp_path)
        assert [p for p in (tmp_path / ".tilesync/parts").iterdir() if p.name.endswith("unpacked")] == []
        sim.clear_requests()
        assert mirror_decoded(sim, tmp_path).exit_code == 0
        assert sim.blob_requests(LARGE) == []
    assert read_version(tmp_path) == plain


@pytest.mark.parametrize("viewer", ["cesium", "three"])
def test_a_viewer_streams_unpacked_files(browser: Browser, tmp_path: Path, viewer: str) -> None:
    """Viewers cannot read a gzipped city from a plain web server, but a decoded one."""
    with Simulator() as sim:
        sim.offer_export({name: gzip_bytes(data) for name, data in small_city().items()})
        assert sim.mirror(tmp_path / "stored").exit_code == 0
        assert mirror_decoded(sim, tmp_path / "decoded").exit_code == 0
    assert view_mirror(browser, viewer, tmp_path / "stored", CAMERA_PATH[:1]).loaded == 0
    closure = closure_of(tmp_path / "decoded")
    flight = view_mirror(browser, viewer, tmp_path / "decoded", CAMERA_PATH)
    assert flight.problems(closure) == []
    assert len(flight.requested_names) >= 0.9 * len(closure)
    assert any(0.01 < share < 0.99 for share in flight.drawn_shares())
