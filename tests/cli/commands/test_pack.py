"""Test `tilesync pack`: each format, its messages, and packages that are equal bit by bit."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest

import tilesync as ts
from tests.support.builders import IMODEL, glb, tileset
from tests.support.commandline import FINISHED_FIELDS, run_tilesync, start_tilesync
from tests.support.package_readers import read_package
from tests.support.packages import ENDINGS
from tests.support.simulator import EXPORT, OTHER_EXPORT, Simulator
from tests.support.small_disk import mounted_small_disk
from tests.support.tile_server import mirror_files
from tilesync.stores.packages.formats import INDEX_ENTRY, MANIFEST_ENTRY

PACK_FIELDS = FINISHED_FIELDS | {"files", "package", "format", "package_bytes"}


@pytest.fixture
def mirror(service: Simulator, tmp_path: Path) -> Path:
    """Mirror one export into a folder."""
    assert run_tilesync("mirror", IMODEL, tmp_path / "mirror", sim=service).exit_code == 0
    return tmp_path / "mirror"


@pytest.mark.parametrize("ending", ENDINGS)
def test_package_has_the_manifest_and_every_file(mirror: Path, service: Simulator, ending: str, tmp_path: Path) -> None:
    """The first entry is the manifest, the second the root tileset; all files follow, with their bytes."""
    out = tmp_path / f"city.{ending}"
    done = run_tilesync("pack", mirror, out, "--json")
    last = done.last_line
    assert last.keys() == PACK_FIELDS
    expected = {name: stored.data for name, stored in service.containers[EXPORT].items()}
    assert last["package"] == str(out)
    assert (last["exit"], last["version"], last["format"]) == (0, EXPORT, ending)
    assert last["files"] == last["listed"] == last["verified"] == len(expected)
    assert last["bytes"] == sum(map(len, expected.values()))
    assert last["package_bytes"] == out.stat().st_size
    assert done.lines_of_kind("packed") == [
        {key: last[key] for key in ("version", "package", "format", "files", "bytes", "package_bytes")}
        | {"kind": "packed"}
    ]
    entries = read_package(out)
    assert list(entries)[:2] == [MANIFEST_ENTRY, "tileset.json"]
    assert entries.pop(MANIFEST_ENTRY) == (mirror / "manifests" / f"{EXPORT}.jsonl").read_bytes()
    if ending == "3tz":
        assert list(entries)[-1] == INDEX_ENTRY
        del entries[INDEX_ENTRY]
    assert entries == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, "mirror"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_packages_of_one_version_are_equal(mirror: Path, ending: str, tmp_path: Path) -> None:
    """Another day, another user environment, other permissions, and another place of the mirror change no byte."""
    assert run_tilesync("pack", mirror, tmp_path / f"a.{ending}").exit_code == 0
    shutil.copytree(mirror, tmp_path / "copy", symlinks=True)
    for path in (tmp_path / "copy").rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(0o600)
            os.utime(path, (1, 1))
    before = os.umask(0o077)
    try:
        run_tilesync(
            "pack", tmp_path / "copy", tmp_path / f"b.{ending}", TZ="Asia/Tokyo", USER="other", SOURCE_DATE_EPOCH="5"
        )
    finally:
        os.umask(before)
    assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


def test_permissions_follow_the_umask(mirror: Path, tmp_path: Path) -> None:
    """Everybody can read a package, unless the umask says otherwise."""
    run_tilesync("pack", mirror, tmp_path / "a.zip")
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "a.zip").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("compression", ["deflate", "zstd"])
def test_compressed_packages_are_smaller_and_equal(mirror: Path, compression: str, tmp_path: Path) -> None:
    """--compress makes a .3tz file smaller; packed again, it has the same bytes."""
    run_tilesync("pack", mirror, tmp_path / "plain.3tz")
    for name in ("a.3tz", "b.3tz"):
        assert run_tilesync("pack", mirror, tmp_path / name, "--compress", compression).exit_code == 0
    packed = (tmp_path / "a.3tz").read_bytes()
    assert packed == (tmp_path / "b.3tz").read_bytes()
    assert len(packed) < (tmp_path / "plain.3tz").stat().st_size
    refused = run_tilesync("pack", mirror, tmp_path / "a.tar", "--compress", compression, "--json")
    refused.assert_failed(2, "UsageError")


def test_versions_are_chosen_by_name_prefix_and_current(mirror: Path, service: Simulator, tmp_path: Path) -> None:
    """Without a version it is the current one; a prefix chooses another; an unknown one lists what there is."""
    service.offer_changed_export(OTHER_EXPORT, 2)
    run_tilesync("mirror", IMODEL, mirror, sim=service)
    packed = [
        run_tilesync("pack", mirror, *version, tmp_path / f"{number}.tar", "--json").last_line["version"]
        for number, version in enumerate([[], ["current"], [EXPORT[:8]], [OTHER_EXPORT]])
    ]
    assert packed == [OTHER_EXPORT, OTHER_EXPORT, EXPORT, OTHER_EXPORT]
    unknown = run_tilesync("pack", mirror, "nothing", tmp_path / "x.tar", "--json").assert_failed(2, "UsageError")
    assert EXPORT in unknown["hint"]
    assert not (tmp_path / "x.tar").exists()


def test_flat_layout_is_packed(service: Simulator, tmp_path: Path) -> None:
    """A package of a flat destination has the same bytes as that of a versioned one but for its manifest's times."""
    assert run_tilesync("mirror", IMODEL, tmp_path / "flat", "--layout", "flat", sim=service).exit_code == 0
    assert run_tilesync("pack", tmp_path / "flat", tmp_path / "a.zip").exit_code == 0
    entries = read_package(tmp_path / "a.zip")
    del entries[MANIFEST_ENTRY]
    assert entries == {name: stored.data for name, stored in service.containers[EXPORT].items()}
    inside = run_tilesync("pack", tmp_path / "flat", tmp_path / "flat/a.zip", "--json")
    assert "is inside DEST" in inside.assert_failed(2, "UsageError")["message"]


def test_package_is_packed_into_each_format(mirror: Path, tmp_path: Path) -> None:
    """DEST may be a package: packed into another format, it has the bytes that the mirror itself gives."""
    for ending in ENDINGS:
        assert run_tilesync("pack", mirror, tmp_path / f"a.{ending}").exit_code == 0
    for source, ending in pairwise([*ENDINGS, ENDINGS[0]]):
        out = tmp_path / f"b.{ending}"
        assert run_tilesync("pack", tmp_path / f"a.{source}", out).exit_code == 0
        assert out.read_bytes() == (tmp_path / f"a.{ending}").read_bytes()
    itself = run_tilesync("pack", out, out, "--overwrite", "--json").assert_failed(2, "UsageError")
    assert "is DEST itself" in itself["message"]


def test_damaged_version_is_not_packed(mirror: Path, tmp_path: Path) -> None:
    """Each bad file is a finding, exit 3; nothing remains, and an older package stays."""
    (tmp_path / "old.3tz").write_bytes(b"old")
    folder = mirror / "versions" / EXPORT
    (folder / "tiles/001.glb").unlink()
    (folder / "tiles/002.glb").write_bytes(b"bad")
    for name in ("new.3tz", "old.3tz"):
        done = run_tilesync("pack", mirror, tmp_path / name, "--overwrite", "--json")
        failed = done.assert_failed(3, "PackFailed")
        assert "tilesync verify" in failed["hint"]
        found = {line["name"]: line["problem"] for line in done.lines_of_kind("finding")}
        assert found == {"tiles/001.glb": "missing", "tiles/002.glb": "size"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mirror", "old.3tz"]
    assert (tmp_path / "old.3tz").read_bytes() == b"old"


def test_bad_arguments_have_clear_errors(mirror: Path, tmp_path: Path) -> None:
    """An ending that is no format, a file that exists, a folder that is no destination, and DEST itself."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.zip").write_bytes(b"old")
    for arguments, code, error, message in (
        ((mirror, tmp_path / "a.rar"), 2, "UsageError", "ends with .3tz, .3dtiles, .tar or .zip"),
        ((mirror, tmp_path / "a.zip"), 2, "UsageError", "exists"),
        ((mirror, mirror / "versions/a.zip"), 2, "UsageError", "is inside DEST"),
        ((mirror, mirror / "a.zip"), 2, "UsageError", "is inside DEST"),
        ((mirror, mirror / "new/a.zip"), 2, "UsageError", "is inside DEST"),
        ((mirror, tmp_path / "nowhere/a.zip"), 2, "UsageError", "no folder"),
        ((tmp_path / "empty", tmp_path / "b.zip"), 8, "DestinationError", "no finished version"),
        ((mirror, "current", "more", tmp_path / "b.zip"), 2, "UsageError", "too many arguments"),
        ((mirror, "", tmp_path / "b.zip"), 2, "UsageError", "an argument is empty"),
    ):
        failed = run_tilesync("pack", *arguments, "--json").assert_failed(code, error)
        assert message in failed["message"], failed
    assert (tmp_path / "a.zip").read_bytes() == b"old"
    dash = run_tilesync("pack", mirror, "-", "--json").assert_failed(2, "UsageError")
    assert "a package cannot go to standard output" in dash["message"]
    assert "/dev/stdout" not in dash["message"]
    missing = run_tilesync("pack", mirror, "--json").assert_failed(2, "UsageError")
    assert missing["message"] == "OUT is missing"


def test_dest_can_be_a_variable(mirror: Path, tmp_path: Path) -> None:
    """With TILESYNC_DEST a single argument is OUT; with more arguments the first one is DEST."""
    only = run_tilesync("pack", tmp_path / "a.tar", "--json", TILESYNC_DEST=str(mirror))
    assert only.last_line["package"] == str(tmp_path / "a.tar")
    assert only.last_line["dest"] == str(mirror)
    both = run_tilesync("pack", mirror, tmp_path / "b.tar", "--json", TILESYNC_DEST="/nonexistent")
    assert both.last_line["dest"] == str(mirror)


def test_warnings_name_what_other_readers_refuse(mirror: Path, tmp_path: Path) -> None:
    """The test export has an empty file and a name that is not ASCII: a .3tz file is written, with two warnings."""
    done = run_tilesync("pack", mirror, tmp_path / "a.3tz", "--json")
    messages = [line["message"] for line in done.lines_of_kind("warning")]
    assert [message for message in messages if "is empty" in message or "not ASCII" in message] == messages
    assert len(messages) == 2
    assert "all proven" in run_tilesync("pack", mirror, tmp_path / "a.zip").stderr


def test_full_disk_leaves_nothing(mirror: Path, service: Simulator, tmp_path: Path) -> None:
    """A disk without room is refused before, and one that fills up in the middle leaves no file: exit 8."""
    service.offer_export({"tileset.json": b'{"root":{}}', "a.glb": glb(os.urandom(3 << 20))}, export_id=OTHER_EXPORT)
    assert run_tilesync("mirror", IMODEL, tmp_path / "large", sim=service).exit_code in {0, 3}
    with mounted_small_disk(tmp_path / "disk") as disk:
        assert run_tilesync("pack", mirror, disk / "fits.tar").exit_code == 0
        before = run_tilesync("pack", tmp_path / "large", disk / "a.tar", "--json").assert_failed(8, "DiskFull")
        assert "the package needs 3." in before["message"]
        compressed = ("pack", tmp_path / "large", disk / "a.zip", "--compress", "deflate", "--json")
        assert "No space left" in run_tilesync(*compressed).assert_failed(8, "DiskFull")["message"]
        assert [path.name for path in disk.iterdir()] == ["fits.tar"]


@pytest.fixture(scope="module")
def larger_mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mirror an export of 30 MB, which takes a moment to pack. The tests only read it."""
    tiles = {f"tiles/{number:04d}.glb": glb(b"tile" * 5000) for number in range(1500)}
    return mirror_files(tmp_path_factory.mktemp("larger") / "mirror", {"tileset.json": tileset(*tiles), **tiles})


def stop_in_the_middle(mirror: Path, out: Path, number: int) -> tuple[int, str]:
    """Send a signal to a run that has written more than 1 MB; return its exit code and its messages.

    A run that ends before the signal arrives is repeated.
    """
    temporary = out.with_name(f".{out.name}.part")
    for _ in range(20):
        running = start_tilesync("pack", mirror, out, "--overwrite")
        deadline = time.monotonic() + 60
        while running.poll() is None and time.monotonic() < deadline:
            if temporary.exists() and temporary.stat().st_size > 1 << 20:
                break
            time.sleep(0.002)
        running.send_signal(number)
        _, messages = running.communicate(timeout=60)
        if running.returncode != 0:
            return running.returncode, messages
        out.unlink()
    pytest.fail("each run ended before the signal")


@pytest.mark.parametrize("ending", ["3tz", "3dtiles"])
def test_killed_run_is_repeated_cleanly(larger_mirror: Path, ending: str, tmp_path: Path) -> None:
    """After a SIGKILL in the middle, the next run writes the right package and leaves no temporary file."""
    out = tmp_path / f"a.{ending}"
    assert stop_in_the_middle(larger_mirror, out, signal.SIGKILL)[0] == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == [f".a.{ending}.part"]
    again = run_tilesync("pack", larger_mirror, out, "--json").last_line
    assert again["exit"] == 0
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    assert len(read_package(out)) == again["files"] + (2 if ending == "3tz" else 1)
    assert run_tilesync("verify", out).exit_code == 0


def test_interrupted_run_leaves_nothing(larger_mirror: Path, tmp_path: Path) -> None:
    """Ctrl-C ends the run with 130, and removes the temporary file."""
    code, messages = stop_in_the_middle(larger_mirror, tmp_path / "a.zip", signal.SIGINT)
    assert code == 130
    assert "OUT was not changed; run the same command again: it begins anew" in messages
    assert list(tmp_path.iterdir()) == []


def test_python_api_packs(mirror: Path, tmp_path: Path) -> None:
    """`ts.pack` returns the facts of the package; a bad version is a PackFailed with the findings."""
    packed = ts.pack(mirror, tmp_path / "a.tar", version=EXPORT[:6])
    assert (packed.version, packed.format, packed.package) == (EXPORT, "tar", str(tmp_path / "a.tar"))
    assert packed.package_bytes == (tmp_path / "a.tar").stat().st_size
    assert packed.files == packed.stats.verified
    assert packed.to_dict()["files"] == packed.files
    digest = hashlib.sha256((tmp_path / "a.tar").read_bytes()).hexdigest()
    ts.pack(mirror, str(tmp_path / "a.tar"), overwrite=True)
    assert hashlib.sha256((tmp_path / "a.tar").read_bytes()).hexdigest() == digest
    (mirror / "versions" / EXPORT / "tiles/001.glb").unlink()
    with pytest.raises(ts.errors.PackFailed) as error:
        ts.pack(mirror, tmp_path / "b.tar")
    assert [each.name for each in error.value.result.failures] == ["tiles/001.glb"]
