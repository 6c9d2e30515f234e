"""Test packages on the command line: mirrored, verified and listed as a folder is, and refused where they must be."""

from __future__ import annotations

import json
import os
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import IMODEL, export, glb, read_manifest, read_tree, tileset
from tests.support.commandline import CommandResult, run_tilesync, start_tilesync
from tests.support.killed_runs import kill_when_stored
from tests.support.package_readers import write_with_3d_tiles_tools
from tests.support.packages import ENDINGS, pack_folder, write_package
from tests.support.samples import sample_folder
from tests.support.simulator import EXPORT, Simulator, read_latest, verify
from tilesync.stores.packages.formats import MANIFEST_ENTRY

FILE_COUNT = 35
"""Files of the export with 30 tiles."""

each_ending = pytest.mark.parametrize("ending", ENDINGS)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a mirror of an export: an empty file, a name to be quoted, some files without MD5."""
    dest = tmp_path_factory.mktemp("source") / "source"
    with Simulator() as sim:
        sim.offer_export(export(30), displayName="Bridge")
        sim.blob("tiles/001.glb").md5 = ""
        assert sim.mirror(dest).error is None
    return dest


def run_json(*arguments: object, exit_code: int = 0) -> CommandResult:
    """Run a command with --json, and assert its exit code."""
    result = run_tilesync(*arguments, "--json")
    assert result.exit_code == exit_code, (result.stdout, result.stderr)
    assert "Traceback" not in result.stderr
    return result


def read_facts(dest: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the manifest of the version without times and program version."""
    head, rows = read_manifest(dest, EXPORT)
    return {key: value for key, value in head.items() if key not in {"finished", "tilesync"}}, rows


# --- packages of tilesync ---


@each_ending
def test_a_mirror_from_a_package_is_that_from_the_folder(source: Path, tmp_path: Path, ending: str) -> None:
    """Bytes, version and the facts of the manifest are the same, and the next run has nothing to do."""
    package, dest = pack_folder(source, tmp_path / f"bridge.{ending}"), tmp_path / "dest"
    last = run_json("mirror", package, dest).last_line
    assert (last["fetched"], last["version"], last["imodel"], last["published"]) == (FILE_COUNT, EXPORT, IMODEL, True)
    assert read_tree(dest / "versions") == read_tree(source / "versions")
    assert read_facts(dest) == read_facts(source)
    assert verify(dest).error is None
    assert (dest / "tileset.json").read_bytes() == (source / "tileset.json").read_bytes()
    again = run_json("mirror", package, dest).last_line
    assert (again["fetched"], again["kept"], again["published"]) == (0, FILE_COUNT, False)
    assert "nothing to do" in run_json("mirror", source, dest).stderr


@each_ending
def test_a_package_is_verified_and_listed(source: Path, tmp_path: Path, ending: str) -> None:
    """A good package verifies, in full and quickly; its version and its SHA-256 are listed."""
    package = pack_folder(source, tmp_path / f"bridge.{ending}")
    assert run_json("verify", package).last_line["verified"] == FILE_COUNT
    assert run_json("verify", package, "--quick").last_line["verified"] == FILE_COUNT
    assert run_json("verify", package, "--all").last_line["verified"] == FILE_COUNT
    (row,) = run_json("versions", package).lines_of_kind("version")
    assert (row["version"], row["current"], row["files"], row["state"]) == (EXPORT, True, FILE_COUNT, "held")
    sums = run_tilesync("versions", package, "--sha256sums", EXPORT)
    assert sums.stdout == run_tilesync("versions", source, "--sha256sums", EXPORT).stdout


def test_unchanged_files_are_linked(source: Path, tmp_path: Path) -> None:
    """A newer version from a package shares its unchanged files with the older one."""
    dest, newer = tmp_path / "dest", tmp_path / "newer"
    run_json("mirror", pack_folder(source, tmp_path / "old.3tz"), dest)
    with Simulator() as sim:
        sim.offer_export({**export(30), "tiles/003.glb": glb(b"new")}, export_id="11111111-0000-0000-0000-000000000002")
        assert sim.mirror(newer).error is None
    last = run_json("mirror", pack_folder(newer, tmp_path / "new.3tz"), dest).last_line
    assert (last["fetched"], last["reused"]) == (1, FILE_COUNT - 1)
    assert read_tree(dest / "versions" / last["version"]) == read_tree(newer / "versions" / last["version"])
    names = [dest / "versions" / version / "tiles/004.glb" for version in (EXPORT, last["version"])]
    assert names[0].samefile(names[1])


def test_a_killed_mirror_is_continued(tmp_path: Path) -> None:
    """After a kill, files that arrived from a package are kept, and the mirror is complete in the end."""
    source, dest = tmp_path / "source", tmp_path / "dest"
    with Simulator() as sim:
        sim.offer_export({**export(60), "tiles/big.glb": glb(random.Random(5).randbytes(4_000_000))})
        assert sim.mirror(source).error is None
    package = pack_folder(source, tmp_path / "bridge.zip", method=zipfile.ZIP_DEFLATED)
    running = start_tilesync("mirror", package, dest, "--bwlimit", "500k", "--transfers", "4")
    stored_count = kill_when_stored(running, dest, count=20)
    last = run_json("mirror", package, dest).last_line
    assert (last["kept"], last["fetched"]) == (stored_count, last["listed"] - stored_count)
    assert read_tree(dest / "versions") == read_tree(source / "versions")
    assert verify(dest).error is None


def test_a_package_is_named_by_its_path_or_its_name(source: Path, tmp_path: Path) -> None:
    """A package is found by its name alone, by a path, and below the home folder."""
    pack_folder(source, tmp_path / "bridge.3TZ".lower())
    for number, text in enumerate(("bridge.3tz", "./bridge.3tz", "~/bridge.3tz", str(tmp_path / "bridge.3tz"))):
        result = run_tilesync("mirror", text, f"dest{number}", cwd=tmp_path, HOME=str(tmp_path))
        assert result.exit_code == 0, result.stderr


# --- packages of other programs ---


@each_ending
def test_a_foreign_package(source: Path, tmp_path: Path, ending: str) -> None:
    """A package without a manifest is verified as far as possible, and mirrored with SHA-256 of its own."""
    package, dest = pack_folder(source, tmp_path / f"city.{ending}", foreign=True), tmp_path / "dest"
    verified = run_json("verify", package)
    assert verified.last_line["verified"] == FILE_COUNT
    assert any("no SHA-256 proves" in line["message"] for line in verified.lines_of_kind("warning"))
    last = run_json("mirror", package, dest).last_line
    assert (last["fetched"], last["published"], last["imodel"]) == (FILE_COUNT, True, None)
    version = read_latest(dest)["version"]
    assert version.startswith("city-")
    assert read_tree(dest / "versions" / version) == read_tree(source / "versions" / EXPORT)
    assert {row["sha256"] for row in read_manifest(dest, version)[1].values()} == {
        row["sha256"] for row in read_manifest(source, EXPORT)[1].values()
    }
    assert verify(dest).error is None
    again = run_json("mirror", package, dest).last_line
    assert (again["fetched"], again["published"]) == (0, False)
    (row,) = run_json("versions", package).lines_of_kind("version")
    assert (row["version"], row["files"]) == (version, FILE_COUNT)


def test_samples(tmp_path: Path) -> None:
    """Real tilesets are verified and mirrored from packages, each in another format."""
    folders = sorted(path for path in sample_folder().iterdir() if (path / "tileset.json").exists())
    for number, folder in enumerate(folders):
        files, ending = read_tree(folder), ENDINGS[number % len(ENDINGS)]
        package = write_package(tmp_path / f"{folder.name}.{ending}", files)
        is_damaged = folder.name == "TilesetOfTilesetsWithError"
        run_json("verify", package, exit_code=10 if is_damaged else 0)
        if not is_damaged:
            assert run_tilesync("mirror", package, tmp_path / folder.name).exit_code == 0
            version = read_latest(tmp_path / folder.name)["version"]
            assert read_tree(tmp_path / folder.name / "versions" / version) == files


@pytest.mark.parametrize("ending", ["3tz", "3dtiles"])
def test_packages_of_3d_tiles_tools(tmp_path: Path, ending: str) -> None:
    """A package that 3d-tiles-tools wrote is verified in every respect, and mirrored."""
    folder, package = tmp_path / "folder", tmp_path / f"bridge.{ending}"
    tiles = {f"tiles/{number}.glb": glb(bytes([number]) * 500) for number in range(20)}
    files = {"tileset.json": tileset(*tiles), **tiles}
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    write_with_3d_tiles_tools(folder, package)
    assert run_json("verify", package).last_line["verified"] == len(files)
    last = run_json("mirror", package, tmp_path / "dest").last_line
    assert read_tree(tmp_path / "dest/versions" / last["version"]) == files


# --- bad packages ---


@each_ending
def test_a_damaged_file_is_found(source: Path, tmp_path: Path, ending: str) -> None:
    """A changed byte of a file is a finding with its name, and a mirror of it is not published."""
    package = pack_folder(source, tmp_path / f"bridge.{ending}")
    data = package.read_bytes()
    tile = (source / "versions" / EXPORT / "tiles/003.glb").read_bytes()
    package.write_bytes(data.replace(tile, tile[:-1] + b"?"))
    result = run_json("verify", package, exit_code=10)
    (finding,) = result.lines_of_kind("finding")
    assert (finding["name"], finding["problem"]) == ("tiles/003.glb", "content")
    assert "copy the package again" in result.last_line["hint"]
    assert run_json("verify", package, "--quick").exit_code == 0
    run_json("mirror", package, tmp_path / "dest", exit_code=3)
    assert not (tmp_path / "dest/latest.json").exists()


def test_a_damaged_file_of_a_foreign_package_is_found(source: Path, tmp_path: Path) -> None:
    """The CRC-32 of a Zip file shows a changed byte, without a manifest too."""
    package = pack_folder(source, tmp_path / "city.zip", foreign=True)
    tile = (source / "versions" / EXPORT / "tiles/003.glb").read_bytes()
    package.write_bytes(package.read_bytes().replace(tile, tile[:-1] + b"?"))
    (finding,) = run_json("verify", package, exit_code=10).lines_of_kind("finding")
    assert "CRC-32" in finding["message"]
    run_json("mirror", package, tmp_path / "dest", exit_code=3)


@each_ending
def test_a_missing_and_an_additional_file(source: Path, tmp_path: Path, ending: str) -> None:
    """A file that the manifest lists and the package lacks is a finding, as is one that it does not list."""
    files = {name.removeprefix(f"{EXPORT}/"): data for name, data in read_tree(source / "versions").items()}
    del files["tiles/003.glb"]
    manifest = (source / "manifests" / f"{EXPORT}.jsonl").read_bytes()
    package = write_package(tmp_path / f"bridge.{ending}", {MANIFEST_ENTRY: manifest, **files, "notes.txt": b"hello"})
    findings = run_json("verify", package, exit_code=10).lines_of_kind("finding")
    assert {(each["name"], each["problem"]) for each in findings} == {
        ("tiles/003.glb", "missing"),
        ("notes.txt", "unlisted"),
    }


@each_ending
@pytest.mark.parametrize("command", ["versions", "verify", "mirror"])
def test_a_package_that_is_cut_off(source: Path, tmp_path: Path, ending: str, command: str) -> None:
    """A package that is cut off is refused with what to do: exit 8, and 10 if it was to be verified."""
    package = pack_folder(source, tmp_path / f"bridge.{ending}")
    os.truncate(package, package.stat().st_size // 2)
    arguments = [package, *([tmp_path / "dest"] if command == "mirror" else [])]
    exit_code = {"verify": 10}.get(command, 8)
    last = run_json(command, *arguments, exit_code=exit_code).last_line
    assert "cut off" in last["message"]
    assert "copy it again" in last["hint"]


@each_ending
def test_another_file_with_the_name_of_a_package(tmp_path: Path, ending: str) -> None:
    """A file that only has the name of a package is called so."""
    path = tmp_path / f"a.{ending}"
    path.write_bytes(json.dumps({"asset": {"version": "1.1"}}).encode() * 100)
    assert "as the ending of its name says" in run_json("versions", path, exit_code=8).last_line["message"]
    assert run_json("verify", path, exit_code=10).last_line["error"] == "VerifyFailed"


def test_nothing_is_written_into_a_package(source: Path, tmp_path: Path) -> None:
    """A package as DEST is refused, whether it exists or not, with the command that makes one."""
    package = pack_folder(source, tmp_path / "bridge.3tz")
    before = package.read_bytes()
    for arguments in (
        ("mirror", source, package),
        ("mirror", source, package, "-n"),
        ("mirror", source, tmp_path / "new.3tz"),
        ("mirror", package, package),
        ("rollback", package),
    ):
        assert "tilesync pack" in run_json(*arguments, exit_code=2).last_line["hint"]
    assert package.read_bytes() == before
    assert not (tmp_path / "new.3tz").exists()


def test_a_missing_package(tmp_path: Path) -> None:
    """A package that does not exist is an error that says so."""
    for text in ("none.3tz", str(tmp_path / "none.tar")):
        last = run_json("mirror", text, tmp_path / "dest", exit_code=2).last_line
        assert "does not exist" in last["message"]
    assert "does not exist" in run_json("verify", tmp_path / "none.tar", exit_code=8).last_line["message"]
