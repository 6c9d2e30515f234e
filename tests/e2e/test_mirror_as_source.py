"""Test a mirror as SOURCE: the copy has the same files and manifests."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import IMODEL, export, glb, read_manifest, read_tree, tileset
from tests.support.faults import error_response, is_blob_named
from tests.support.fork_server import run_forked
from tests.support.killed_runs import kill_when_stored
from tests.support.sequential_exports import FIRST, SECOND, THIRD, mirror_each
from tests.support.simulator import EXPORT, OTHER_EXPORT, Simulator, read_latest, rollback, verify
from tilesync.model import Globs, Inventory

BIG = "tiles/big.glb"


def copy_environment(**more: str) -> dict[str, str]:
    """Return an environment without an identity, and with an API address that does not respond."""
    inherited = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    return {**inherited, "TILESYNC_API_URL": "http://127.0.0.1:9", **more}


def start_copy(source: object, dest: object, *options: object) -> subprocess.Popen[str]:
    """Start a copy."""
    command = [sys.executable, "-m", "tilesync", "mirror", *map(str, (source, dest, "--json", *options))]
    return subprocess.Popen(command, env=copy_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run_copy(source: object, dest: object, *options: object, exit_code: int = 0, **more: str) -> dict[str, Any]:
    """Copy a mirror; return the last line, with `stderr` and all `lines`."""
    done = run_forked(["mirror", *map(str, (source, dest, "--json", *options))], copy_environment(**more))
    last: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, last["exit"]) == (exit_code, exit_code), (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return {**last, "stderr": done.stderr, "lines": done.stdout}


def read_manifest_without_times(dest: Path, version: str = EXPORT) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a manifest without times and program version."""
    head, rows = read_manifest(dest, version)
    return {key: value for key, value in head.items() if key not in {"finished", "tilesync"}}, rows


def assert_same_versions(one: Path, other: Path, *versions: str) -> bool:
    """Assert that two folders have the same files and manifests of these versions."""
    for version in versions or (EXPORT,):
        assert read_tree(other / "versions" / version) == read_tree(one / "versions" / version)
        assert read_manifest_without_times(other, version) == read_manifest_without_times(one, version)
    assert verify(other, every=True).error is None
    return True


def rewrite_manifest_header(folder: Path, version: str, **changes: Any) -> None:
    """Change the header of a manifest."""
    path = folder / f"manifests/{version}.jsonl"
    head, rest = path.read_text(encoding="utf-8").split("\n", 1)
    path.write_text(json.dumps({**json.loads(head), **changes}) + "\n" + rest, encoding="utf-8")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Make a mirror of an export: an empty file, a name to be quoted, a large file, some files without MD5."""
    with Simulator() as sim:
        files = {**export(30), BIG: glb(random.Random(4).randbytes(3_000_000))}
        sim.offer_export(files, displayName="Bridge")
        for name in (BIG, "tiles/001.glb"):
            sim.blob(name).md5 = ""
        assert sim.mirror(tmp_path / "source").error is None
    return tmp_path / "source"


def make_source_with_history(tmp_path: Path) -> Path:
    """Make a mirror with two versions of one export and one of another."""
    with Simulator() as sim:
        dest = tmp_path / "source"
        sim.offer_export(export(6), lastModified="2026-03-01T08:30:00Z")
        assert sim.mirror(dest).error is None
        sim.regenerate(export(6) | {"tiles/003.glb": glb(b"new")})
        assert sim.mirror(dest).error is None
        sim.offer_export(export(7), export_id=OTHER_EXPORT, lastModified="2026-03-02T08:30:00Z")
        assert sim.mirror(dest).error is None
    assert set(os.listdir(dest / "versions")) == {EXPORT, f"{EXPORT}-2", OTHER_EXPORT}
    return dest


# --- one version ---


def test_a_copy_is_the_same(source: Path, tmp_path: Path) -> None:
    """A copy has the same bytes, file times and manifest; the source is only read."""
    before = {path: path.lstat() for path in source.rglob("*")}
    for folder, _, names in os.walk(source):
        for name in names:
            Path(folder, name).chmod(0o444)
        Path(folder).chmod(0o555)
    dest = tmp_path / "dest"
    last = run_copy(source, dest)
    for folder, _, _ in os.walk(source):
        Path(folder).chmod(0o755)
    assert {path: path.lstat().st_mtime_ns for path in source.rglob("*")} == {
        path: result.st_mtime_ns for path, result in before.items()
    }
    assert assert_same_versions(source, dest)
    assert read_latest(dest).items() - {("finished", read_latest(dest)["finished"])} <= read_latest(source).items()
    assert (dest / "tileset.json").read_bytes() == (source / "tileset.json").read_bytes()
    for path in read_tree(dest / "versions"):
        assert (dest / "versions" / path).stat().st_mtime == (source / "versions" / path).stat().st_mtime
    files = len(read_tree(dest / "versions"))
    assert (last["kind"], last["imodel"], last["version"], last["newest"]) == ("finished", IMODEL, EXPORT, EXPORT)
    assert (last["listed"], last["fetched"], last["verified"], last["failed"]) == (files, files, files, 0)
    assert (last["behind"], last["published"], last["retries"]) == (False, True, 0)


def test_a_stored_version_is_not_copied_again(source: Path, tmp_path: Path) -> None:
    """A version that is already stored is not read again."""
    run_copy(source, tmp_path / "dest")
    shutil.rmtree(source / "versions")
    last = run_copy(source, tmp_path / "dest")
    assert "nothing to do" in last["stderr"]
    assert (last["fetched"], last["kept"], last["published"]) == (0, last["listed"], False)


def test_a_copy_of_a_copy_is_the_same(source: Path, tmp_path: Path) -> None:
    """A copy of a copy is the same, also through the flat layout."""
    run_copy(source, tmp_path / "flat", "--layout", "flat")
    flat = {name: data for name, data in read_tree(tmp_path / "flat").items() if not name.startswith(".tilesync/")}
    assert flat == read_tree(source / "versions" / EXPORT)
    assert verify(tmp_path / "flat").error is None
    run_copy(tmp_path / "flat", tmp_path / "other", "--layout", "flat")
    run_copy(tmp_path / "other", tmp_path / "dest")
    assert assert_same_versions(source, tmp_path / "dest")
    assert "nothing to do" in run_copy(tmp_path / "flat", tmp_path / "dest")["stderr"]


def test_a_bare_name_is_a_folder_if_it_contains_manifests(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name alone is enough, also from TILESYNC_SOURCE; any other bare name is an iModel id."""
    monkeypatch.chdir(tmp_path)
    run_copy("source", "a")
    run_copy(f"{source}{os.sep}", "b")
    run_copy("./source", "c")
    run_copy("~/source", "d", HOME=str(tmp_path))
    (tmp_path / "empty").mkdir()
    (tmp_path / IMODEL).mkdir()
    assert run_copy(IMODEL, "e", exit_code=5)["error"] == "NotAuthorised"
    assert run_copy("empty", "e", exit_code=2)["error"] == "UsageError"
    assert run_copy("./empty", "e", exit_code=4)["error"] == "NoExport"
    assert all(assert_same_versions(source, tmp_path / name) for name in "abcd")


def test_a_copy_keeps_the_inventory_mode(tmp_path: Path) -> None:
    """A copy keeps the inventory mode of its source in the manifest."""
    with Simulator() as sim:
        sim.offer_export(export(5))
        assert sim.mirror(tmp_path / "source", inventory=Inventory.WALK).error is None
    run_copy(tmp_path / "source", tmp_path / "dest")
    assert assert_same_versions(tmp_path / "source", tmp_path / "dest")
    assert read_manifest_without_times(tmp_path / "dest")[0]["inventory"] == "walk"
    assert "nothing to do" in run_copy(tmp_path / "source", tmp_path / "dest")["stderr"]


def test_the_plan(source: Path, tmp_path: Path) -> None:
    """A dry run prints what would be copied, and writes nothing."""
    last = run_copy(source, tmp_path / "dest", "-n")
    assert (last["fetched"], last["published"]) == (len(read_tree(source / "versions")), False)
    assert not (tmp_path / "dest").exists()
    run_copy(source, tmp_path / "dest")
    assert run_copy(source, tmp_path / "dest", "-n")["kept"] == last["fetched"]


# --- several versions ---


def test_a_version_keeps_its_name(tmp_path: Path) -> None:
    """The second version of an export keeps its name in the copy, also without the first."""
    source = make_source_with_history(tmp_path)
    run_copy(source, tmp_path / "dest", "--export-id", EXPORT)
    assert os.listdir(tmp_path / "dest/versions") == [f"{EXPORT}-2"]
    assert assert_same_versions(source, tmp_path / "dest", f"{EXPORT}-2")
    run_copy(source, tmp_path / "dest")
    assert read_latest(tmp_path / "dest")["version"] == OTHER_EXPORT


@pytest.mark.parametrize("modified", [True, False])
def test_every_version_is_copied_once(tmp_path: Path, modified: bool) -> None:
    """Every version is copied once, under its name, also without export times."""
    source = make_source_with_history(tmp_path)
    versions = (EXPORT, f"{EXPORT}-2", OTHER_EXPORT)
    for day, version in enumerate(() if modified else versions, start=1):
        record = {"id": version.removesuffix("-2")}
        rewrite_manifest_header(source, version, export=record, modified="", finished=f"2026-03-0{day}T00:00:00Z")
    plan = run_copy(source, tmp_path / "dest", "--all-exports", "-n")
    last = run_copy(source, tmp_path / "dest", "--all-exports")
    assert assert_same_versions(source, tmp_path / "dest", *versions)
    assert (last["version"], last["published"]) == (OTHER_EXPORT, True)
    assert last["reused"] > 0
    assert (plan["fetched"], plan["reused"]) == (last["fetched"], last["reused"])
    again = run_copy(source, tmp_path / "dest", "--all-exports")
    assert (again["fetched"], again["reused"], again["published"]) == (0, 0, False)
    assert set(os.listdir(tmp_path / "dest/versions")) == set(versions)


def test_versions_under_other_names_are_recognised_by_content(tmp_path: Path) -> None:
    """If a name is taken by another version, the next one is used; a second copy adds nothing."""
    source, dest = make_source_with_history(tmp_path), tmp_path / "dest"
    with Simulator() as sim:
        sim.offer_export(read_tree(source / f"versions/{EXPORT}-2"), lastModified="2026-02-01T08:30:00Z")
        assert sim.mirror(dest).error is None
    for _ in range(2):
        run_copy(source, dest, "--all-exports")
        assert set(os.listdir(dest / "versions")) == {EXPORT, f"{EXPORT}-2", OTHER_EXPORT}
        assert read_tree(dest / f"versions/{EXPORT}") == read_tree(source / f"versions/{EXPORT}-2")
        assert read_tree(dest / f"versions/{EXPORT}-2") == read_tree(source / f"versions/{EXPORT}")


def test_a_pinned_pointer_is_followed(tmp_path: Path) -> None:
    """A rollback in the source is repeated in the copy by the next run, and so is the way forward."""
    source, dest = make_source_with_history(tmp_path), tmp_path / "dest"
    run_copy(source, dest)
    assert rollback(source, EXPORT).error is None
    last = run_copy(source, dest)
    assert (read_latest(dest)["version"], last["newest"], last["behind"]) == (EXPORT, OTHER_EXPORT, True)
    assert rollback(source, latest=True).error is None
    run_copy(source, dest)
    assert read_latest(dest)["version"] == OTHER_EXPORT


def test_files_of_another_version_are_hard_linked(tmp_path: Path) -> None:
    """Files that another version has are hard-linked, by SHA-256 if there is no MD5."""
    source, dest = make_source_with_history(tmp_path), tmp_path / "dest"
    with Simulator() as sim:
        sim.offer_export(export(6), export_id="c" * 8, md5=False)
        assert sim.mirror(dest).error is None
    last = run_copy(source, dest, "--export-id", EXPORT)
    assert (last["fetched"], last["reused"]) == (1, last["listed"] - 1)
    assert verify(dest, every=True).error is None


# --- filters, and what is missing ---


def test_a_copy_keeps_the_filters_of_its_source(tmp_path: Path) -> None:
    """Files excluded in the source are not missing; more exclusions make a new version."""
    source, dest = tmp_path / "source", tmp_path / "dest"
    with Simulator() as sim:
        sim.offer_export(export(8))
        assert sim.mirror(source, globs=Globs(exclude=("data/*",))).error is None
    run_copy(source, dest)
    assert assert_same_versions(source, dest)
    last = run_copy(source, dest, "--exclude", "00*.glb")
    assert (last["excluded"], last["version"], last["missing"]) == (8, f"{EXPORT}-2", 0)
    assert read_manifest_without_times(dest, f"{EXPORT}-2")[0]["exclude"] == ["00*.glb", "data/*"]
    assert run_copy(source, dest)["fetched"] == 0
    assert run_copy(source, dest, "--exclude", "00*.glb")["fetched"] == 0
    assert run_copy(source, dest, "--all-exports")["fetched"] == 0


def test_known_missing_files_may_stay_missing_in_a_copy(tmp_path: Path) -> None:
    """A version with known missing files is copied; one more missing file is an error."""
    source, dest = tmp_path / "source", tmp_path / "dest"
    with Simulator() as sim:
        files = {**export(4), "tileset.json": tileset("tiles/tileset.json", "gone.glb", "%zz", "also.glb")}
        sim.offer_export(files)
        assert sim.mirror(source, allow_missing=True).error is None
    assert read_manifest_without_times(source)[0]["missing"] > 2
    run_copy(source, dest)
    assert assert_same_versions(source, dest)
    names = read_manifest_without_times(source)[0]["missing_names"]
    rewrite_manifest_header(source, EXPORT, missing_names=[name for name in names if name != "gone.glb"])
    last = run_copy(source, tmp_path / "other", exit_code=3)
    assert "1 file that the tilesets refer to is not in the container" in last["message"]
    assert "gone.glb" in last["lines"]
    run_copy(source, tmp_path / "other", "--allow-missing")


# --- damage ---


@pytest.mark.parametrize("name", [BIG, "tiles/001.glb", "data/schema.json"])
@pytest.mark.parametrize("damage", ["changed", "shorter", "gone", "folder"])
def test_a_damaged_file_fails_the_copy(source: Path, tmp_path: Path, name: str, damage: str) -> None:
    """A damaged file is named, nothing is published, with a hint; after the repair only that file is fetched."""
    path = source / "versions" / EXPORT / name
    data = path.read_bytes()
    path.unlink()
    if damage == "changed":
        path.write_bytes(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])
    elif damage == "shorter":
        path.write_bytes(data[:-1])
    elif damage == "folder":
        path.mkdir()
    last = run_copy(source, tmp_path / "dest", exit_code=3)
    assert (last["error"], last["failed"], last["published"]) == ("Incomplete", 1, False)
    assert f"tilesync verify {source}" in last["hint"]
    assert name in last["stderr"]
    assert not (tmp_path / "dest/tileset.json").exists()
    if damage == "folder":
        path.rmdir()
    path.write_bytes(data)
    again = run_copy(source, tmp_path / "dest")
    assert (again["fetched"], again["kept"]) == (1, last["listed"] - 1)
    assert read_tree(tmp_path / "dest/versions") == read_tree(source / "versions")


def test_no_md5_is_needed_to_see_a_changed_file(source: Path, tmp_path: Path) -> None:
    """A valid file with other content is detected by its SHA-256."""
    path = source / "versions" / EXPORT / "tiles/001.glb"
    size = path.stat().st_size
    other = glb(b"x" * (size - len(glb(b""))))
    path.write_bytes(other)
    last = run_copy(source, tmp_path / "dest", exit_code=3)
    assert "its SHA-256 is not the one that the manifest states" in last["lines"]


@pytest.mark.parametrize(
    ("name", "dest", "options"),
    [("s", "s3://bucket/x", ()), ("h", "az://account1/box", ("--azure-endpoint", "http://127.0.0.1:9/{account}"))],
)
def test_a_store_url_is_not_taken_for_a_folder(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, dest: str, options: tuple[str, ...]
) -> None:
    """A store URL that starts like the name of a folder is no folder: the error asks for credentials."""
    source.rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    last = run_copy(name, dest, *options, exit_code=5, AWS_EC2_METADATA_DISABLED="true", HOME=str(tmp_path))
    assert last["error"] == "NotAuthorised"


@pytest.mark.parametrize("pinned", [False, True])
def test_a_source_with_a_damaged_current_version_is_refused(tmp_path: Path, *, pinned: bool) -> None:
    """If the pointer names a version without a manifest, no other version is copied instead, unless asked for."""
    source = mirror_each(tmp_path / "source", FIRST, SECOND, THIRD)
    if pinned:
        assert rollback(source).error is None
    (source / f"manifests/{SECOND if pinned else THIRD}.jsonl").unlink()
    assert "whose manifest is missing" in run_copy(source, tmp_path / "dest", exit_code=3)["message"]
    assert not (tmp_path / "dest/latest.json").exists()
    run_copy(source, tmp_path / "dest", "--export-id", FIRST)
    assert json.loads((tmp_path / "dest/latest.json").read_text())["version"] == FIRST


def test_a_damaged_destination_is_repaired_from_a_copy(source: Path, tmp_path: Path) -> None:
    """Files that verify finds damaged are fetched from the given copy, and no others."""
    dest = tmp_path / "dest"
    run_copy(source, dest)
    for name in ("tiles/001.glb", BIG):
        path = dest / "versions" / EXPORT / name
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert verify(dest).exit_code == 10
    assert run_copy(source, dest)["fetched"] == 2
    assert assert_same_versions(source, dest)


# --- interrupted ---


def test_a_killed_copy_is_continued(tmp_path: Path) -> None:
    """After a kill, stored files are not read again, and the copy is complete in the end."""
    with Simulator() as sim:
        sim.offer_export({**export(60), BIG: glb(random.Random(5).randbytes(4_000_000))})
        assert sim.mirror(tmp_path / "source").error is None
    dest = tmp_path / "dest"
    running = start_copy(tmp_path / "source", dest, "--bwlimit", "500k", "--transfers", "4")
    stored_count = kill_when_stored(running, dest, count=20)
    last = run_copy(tmp_path / "source", dest)
    assert (last["kept"], last["fetched"]) == (stored_count, last["listed"] - stored_count)
    assert last["bytes"] < 4_100_000
    assert assert_same_versions(tmp_path / "source", dest)


@pytest.mark.parametrize("first", ["service", "copy"])
def test_a_copy_and_the_service_continue_each_others_versions(tmp_path: Path, first: str) -> None:
    """A copy and a mirror from the service continue each other's version: they list again and keep stored files."""
    source, dest = tmp_path / "source", tmp_path / "dest"
    with Simulator(page_size=10) as sim:
        files = sim.offer_export(export(40))
        assert sim.mirror(source).error is None
        if first == "service":
            broken = sim.add_fault(is_blob_named("tiles/001.glb"), error_response(400), times=None)
            assert sim.mirror(dest).exit_code == 3
            broken.times = broken.hits
            last = run_copy(source, dest)
            assert (last["fetched"], last["kept"]) == (1, len(files) - 1)
        else:
            path = source / f"versions/{EXPORT}/tiles/001.glb"
            path.unlink()
            run_copy(source, dest, exit_code=3)
            path.write_bytes(files["tiles/001.glb"])
            sim.clear_requests()
            assert sim.mirror(dest).error is None
            assert len(sim.blob_requests()) == 1
    assert assert_same_versions(source, dest)


def test_an_unfinished_copy_is_continued_as_the_same_version(tmp_path: Path) -> None:
    """An unfinished copy is continued as the same version of the export."""
    source, dest = make_source_with_history(tmp_path), tmp_path / "dest"
    path = source / f"versions/{EXPORT}-2/tiles/003.glb"
    data = path.read_bytes()
    path.unlink()
    run_copy(source, dest, "--all-exports", exit_code=3)
    assert {path.stem for path in (dest / "manifests").iterdir()} == {EXPORT, OTHER_EXPORT}
    path.write_bytes(data)
    last = run_copy(source, dest, "--all-exports")
    assert (last["fetched"], last["reused"]) == (1, 0)
    assert assert_same_versions(source, dest, EXPORT, f"{EXPORT}-2", OTHER_EXPORT)


# --- the request ---


def test_source_and_destination_must_be_separate_folders(source: Path, tmp_path: Path) -> None:
    """SOURCE and DEST as the same folder, or one inside the other, are refused before any write."""
    link = tmp_path / "link"
    link.symlink_to(source, target_is_directory=True)
    before = read_tree(source)
    pairs: list[tuple[object, object]] = [
        (source, source), (source, link), (link, source), (source, source / "new/one"), (source, link / "new"),
        (source / "versions", source), (source, tmp_path), (f"{source}/../source", source),
    ]  # fmt: skip
    for one, other in pairs:
        for options in ((), ("-n",)):
            assert run_copy(one, other, *options, exit_code=2)["error"] == "UsageError"
    assert run_copy(source, tmp_path / "d", "--state-dir", source / "state", exit_code=2)["error"] == "UsageError"
    assert read_tree(source) == before
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    "options",
    [["--cdn"], ["--link-command", "x"], ["--tile-version", "1"], ["--itwinjs", "5"], ["--inventory", "walk"]],
)
def test_options_without_effect_on_a_copy_are_refused(source: Path, tmp_path: Path, options: list[str]) -> None:
    """An option without effect on a copy is a usage error that names it."""
    assert options[0] in run_copy(source, tmp_path / "dest", *options, exit_code=2)["message"]


def test_a_missing_source_folder(tmp_path: Path) -> None:
    """A missing path is a usage error; a text that may be a link is not repeated."""
    assert "does not exist" in run_copy("./nowhere", tmp_path / "d", exit_code=2)["message"]
    for secret in ("host/container?sig=secret", "./a?sig=secret", "a/b&sig=secret"):
        assert "secret" not in str(run_copy(secret, tmp_path / "d", exit_code=2))
    assert not (tmp_path / "d").exists()


def test_a_changeset_and_an_export(tmp_path: Path) -> None:
    """The selection options select stored versions; no match is exit 4."""
    source = make_source_with_history(tmp_path)
    changeset = read_manifest_without_times(source)[0]["changeset"]
    assert run_copy(source, tmp_path / "a", "--changeset-id", changeset)["version"] == f"{EXPORT}-2"
    assert run_copy(source, tmp_path / "b", "--export-id", f"{EXPORT}-2")["version"] == f"{EXPORT}-2"
    last = run_copy(source, tmp_path / "c", "--export-id", "nothing", exit_code=4)
    assert (last["error"], "tilesync versions" in last["hint"]) == ("NoExport", True)


def test_a_copy_sends_no_request_to_the_service(source: Path, tmp_path: Path) -> None:
    """A copy sends no request to the service, even with an identity."""
    with Simulator() as sim:
        sim.offer_export()
        run_copy(source, tmp_path / "dest", TILESYNC_API_URL=sim.url, TILESYNC_TOKEN=sim.token)
        assert sim.requests == []
        sim.offer_export(export(3), export_id=OTHER_EXPORT)
        assert sim.mirror(tmp_path / "dest", allow_shrink=True).error is None
    assert set(os.listdir(tmp_path / "dest/versions")) == {EXPORT, OTHER_EXPORT}
