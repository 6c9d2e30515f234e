"""Publication: only a complete, sound version of a plausible size becomes the current one."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import export, glb, read_manifest, read_tree, tileset
from tests.support.faults import (
    error_response,
    is_blob_named,
)
from tests.support.simulator import EXPORT, OTHER_EXPORT, Simulator, read_latest, read_version, verify
from tilesync.demo.fake_service import StoredBlob
from tilesync.errors import (
    Incomplete,
    VerifyFailed,
)
from tilesync.events import (
    DiagnosticReported,
    FileFailed,
    Finding,
    Planned,
    Warned,
)
from tilesync.model import Completeness
from tilesync.stores.local import publication
from tilesync.stores.local.directory_handles import Entry
from tilesync.stores.local.fs import replace_file_durably, sync_filesystem
from tilesync.stores.local.publication import LocalPublication


def textured(uri: str) -> bytes:
    """Return a GLB whose image is a separate file."""
    document = json.dumps({"asset": {"version": "2.0"}, "images": [{"uri": uri}]}).encode()
    document += b" " * (-len(document) % 4)
    return struct.pack("<4sIIII", b"glTF", 2, 20 + len(document), len(document), 0x4E4F534A) + document


def test_missing_references_stop_publication(tmp_path: Path) -> None:
    """Exit 3: each missing name with its referrer, in tilesets and in GLBs; stored files are kept."""
    with Simulator() as sim:
        sim.offer_export({"tileset.json": tileset("a.glb", "sub/b.glb", "gone.glb"), "a.glb": glb(b"a"),
                  "sub/b.glb": textured("../textures/wall.png")})  # fmt: skip
        run = sim.mirror(tmp_path)
        assert isinstance(run.error, Incomplete)
        assert "--allow-missing" in run.error.hint
        assert {failed.name: failed.message for failed in run.events_of(FileFailed)} == {
            "gone.glb": "gone.glb is not there; tileset.json refers to it (content)",
            "textures/wall.png": "textures/wall.png is not there; sub/b.glb refers to it (image)",
        }
        assert run.stats.completeness == Completeness(referenced=5, missing=2)
        assert (run.stats.listed, run.stats.fetched, run.stats.failed) == (3, 3, 0)
        assert not (tmp_path / "tileset.json").exists()
        sim.containers[EXPORT]["gone.glb"] = StoredBlob(glb(b"gone"))
        sim.containers[EXPORT]["textures/wall.png"] = StoredBlob(b"\x89PNG")
        again = sim.mirror(tmp_path)
    assert again.error is None
    assert (again.stats.fetched, again.stats.kept) == (2, 3)


def test_allow_missing_publishes(tmp_path: Path) -> None:
    """Missing files are in manifest and counts; an unchanged run and an audit report them, with exit 0."""
    with Simulator() as sim:
        sim.offer_export({"tileset.json": tileset("a.glb", "gone.glb"), "a.glb": glb(b"a"), "orphan.txt": b"x"})
        run = sim.mirror(tmp_path, allow_missing=True)
        assert run.error is None
        result = Completeness(referenced=3, missing=1, orphans=1)
        assert run.stats.completeness == result
        night = sim.mirror(tmp_path)
        assert night.error is None
        assert night.stats.completeness == result
    head, _ = read_manifest(tmp_path, EXPORT)
    assert head["missing_names"] == ["gone.glb"]
    assert {name: head[name] for name in ("referenced", "missing", "orphans", "unfollowed")} == {
        "referenced": 3, "missing": 1, "orphans": 1, "unfollowed": 0}  # fmt: skip
    audit = verify(tmp_path)
    assert audit.error is None
    assert audit.stats.completeness == result
    assert any("gone.glb" in warning.message for warning in audit.events_of(Warned))


def test_known_missing_file_does_not_prevent_repair(tmp_path: Path) -> None:
    """A version published with a missing file is repaired without --allow-missing."""
    with Simulator() as sim:
        sim.offer_export({"tileset.json": tileset("a.glb", "gone.glb"), "a.glb": glb(b"a")})
        assert sim.mirror(tmp_path, allow_missing=True).error is None
        (tmp_path / "versions" / EXPORT / "a.glb").write_bytes(b"bad")
        assert verify(tmp_path).exit_code == 10
        healed = sim.mirror(tmp_path)
    assert healed.error is None
    assert healed.stats.fetched == 1
    assert verify(tmp_path).error is None


def test_orphans_are_mirrored_and_counted(tmp_path: Path) -> None:
    """Orphans, and files that only orphans refer to, are copied and are no error."""
    with Simulator() as sim:
        files = sim.offer_export({"tileset.json": tileset("a.glb"), "a.glb": glb(b"a"),
                          "old/tileset.json": tileset("b.glb", "never.glb"), "old/b.glb": glb(b"b")})  # fmt: skip
        run = sim.mirror(tmp_path)
    assert run.error is None
    assert read_tree(tmp_path / "versions" / EXPORT) == files
    assert run.stats.completeness == Completeness(referenced=2, orphans=2)


def test_the_counts_add_up(tmp_path: Path) -> None:
    """Listed = referenced - missing + orphans."""
    with Simulator() as sim:
        sim.offer_export(export())
        run = sim.mirror(tmp_path)
    result = run.stats.completeness
    assert run.stats.listed == result.referenced - result.missing + result.orphans
    assert result.orphans == 1


def test_references_survive_an_interruption(tmp_path: Path) -> None:
    """References from a first run count in the second, which does not read those files again."""
    with Simulator() as sim:
        sim.offer_export({"tileset.json": tileset("a.glb", "b.glb", "gone.glb"), "a.glb": textured("a.png"),
                  "b.glb": glb(b"b"), "a.png": b"\x89PNG"})  # fmt: skip
        bad = sim.add_fault(is_blob_named("b.glb"), error_response(400), times=None)
        assert sim.mirror(tmp_path).exit_code == 3
        bad.times = bad.hits
        sim.clear_requests()
        run = sim.mirror(tmp_path, allow_missing=True)
        assert [request.path.rpartition("/")[2] for request in sim.blob_requests()] == ["b.glb"]
    assert run.error is None
    assert run.stats.completeness == Completeness(referenced=5, missing=1)


def test_references_survive_loss_of_the_catalog(tmp_path: Path) -> None:
    """References are read from the files again, so a rebuilt version can be repaired."""
    with Simulator() as sim:
        sim.offer_export({"tileset.json": tileset("a.glb", "b.glb"), "a.glb": textured("a.png"), "b.glb": glb(b"b"),
                  "a.png": b"\x89PNG"})  # fmt: skip
        assert sim.mirror(tmp_path).error is None
        for path in (tmp_path / ".tilesync").glob("catalog.sqlite3*"):
            path.unlink()
        (tmp_path / "versions" / EXPORT / "b.glb").unlink()
        run = sim.mirror(tmp_path)
    assert run.error is None
    assert run.stats.completeness == Completeness(referenced=4)


def test_audit_names_a_referrer(tmp_path: Path) -> None:
    """A missing or damaged file is reported with a tileset or GLB that refers to it."""
    with Simulator() as sim:
        sim.offer_export({"tileset.json": tileset("sub/tileset.json"), "sub/tileset.json": tileset("a.glb", "b.glb"),
                  "sub/a.glb": textured("a.png"), "sub/a.png": b"\x89PNG", "sub/b.glb": glb(b"b")})  # fmt: skip
        assert sim.mirror(tmp_path).error is None
    version = tmp_path / "versions" / EXPORT / "sub"
    (version / "a.png").unlink()
    (version / "b.glb").write_bytes(glb(b"c"))
    audit = verify(tmp_path)
    assert isinstance(audit.error, VerifyFailed)
    assert [(f.name, f.problem, f.asked_by) for f in audit.events_of(Finding)] == [
        ("sub/a.png", "missing", "sub/a.glb"),
        ("sub/b.glb", "content", "sub/tileset.json"),
    ]


def test_audit_finds_a_file_missing_in_the_manifest(tmp_path: Path) -> None:
    """If the manifest lacks a file, the tilesets still refer to it, and the audit reports it."""
    with Simulator() as sim:
        sim.offer_export({"tileset.json": tileset("a.glb", "b.glb"), "a.glb": glb(b"a"), "b.glb": glb(b"b")})
        assert sim.mirror(tmp_path).error is None
    path = tmp_path / "manifests" / f"{EXPORT}.jsonl"
    head, *rows = path.read_text().splitlines()
    rows = [row for row in rows if "b.glb" not in row]
    head = json.dumps({**json.loads(head), "files": 2})
    path.write_text("\n".join([head, *rows]) + "\n")
    (tmp_path / "versions" / EXPORT / "b.glb").unlink()
    audit = verify(tmp_path)
    assert [(f.name, f.problem, f.asked_by) for f in audit.events_of(Finding)] == [("b.glb", "missing", "tileset.json")]


def test_trailing_bytes_and_unknown_contents_are_warnings(tmp_path: Path) -> None:
    """Bytes after a GLB, an empty content and an unknown format are published, with one warning per problem."""
    with Simulator() as sim:
        sim.offer_export({"tileset.json": tileset("a.glb", "empty.b3dm", "odd.xyz"), "a.glb": glb(b"a") + b"\0\0\0\0",
                  "empty.b3dm": b"", "odd.xyz": b"<xyz>"})  # fmt: skip
        run = sim.mirror(tmp_path)
    assert run.error is None
    assert {diagnostic.problem for diagnostic in run.events_of(DiagnosticReported)} == {
        "trailing bytes",
        "empty content",
        "unknown content",
    }
    assert len(run.events_of(Warned)) == 3


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.b3dm", struct.pack("<4s6I", b"b3dm", 1, 100, 0, 0, 0, 0) + b"x" * 40),
        ("a.glb", glb(b"a")[:-2]),
        ("a.glb", b"<html>not found</html>"),
        ("a.json", tileset("x.glb")[:-3]),
        ("a.subtree", struct.pack("<4sIQQ", b"subt", 1, 200, 0)),
    ],
)
def test_truncated_file_fails(tmp_path: Path, name: str, data: bytes) -> None:
    """A file cut off by its own header, or no glTF despite its name: exit 3, even if the MD5 matches."""
    with Simulator() as sim:
        sim.offer_export({"tileset.json": tileset(name), name: data})
        run = sim.mirror(tmp_path)
    assert run.exit_code == 3
    assert [failed.error for failed in run.events_of(FileFailed)] == ["BlobDamaged"]


def test_pointer_changes_only_the_uris(tmp_path: Path) -> None:
    """Number format, order and spaces of the root document stay as the exporter wrote them."""
    root = (
        b'{ "asset" : {"version":"1.1"},\n "geometricError": 1.500e+02, "schemaUri":"s.json",'
        b'\t"root":{"transform":[1.0,0,-0.0,1E3],"content":{"uri":"a.glb"}} , "extras":{"uri":"mine"}}'
    )
    with Simulator() as sim:
        sim.offer_export({"tileset.json": root, "a.glb": glb(b"a"), "s.json": b'{"classes":{}}'})
        run = sim.mirror(tmp_path)
    assert run.error is None
    prefix = f"versions/{EXPORT}/".encode()
    expected = root.replace(b'"s.json"', b'"' + prefix + b's.json"').replace(b'"a.glb"', b'"' + prefix + b'a.glb"')
    assert (tmp_path / "tileset.json").read_bytes() == expected
    assert read_latest(tmp_path)["tileset"] == f"versions/{EXPORT}/tileset.json"
    assert hashlib.sha256((tmp_path / "versions" / EXPORT / "tileset.json").read_bytes()).digest()


def test_root_without_a_tile_is_not_published(tmp_path: Path) -> None:
    """JSON without a root tile is reported, with exit 3."""
    with Simulator() as sim:
        sim.offer_export({"tileset.json": b'{"asset": {"version": "1.1"}}'})
        run = sim.mirror(tmp_path)
    assert run.exit_code == 3
    assert not (tmp_path / "tileset.json").exists()


def test_dry_run_has_no_completeness(tmp_path: Path) -> None:
    """A dry run fetches nothing, so it counts no references."""
    with Simulator() as sim:
        sim.offer_export(export())
        run = sim.dry_run(tmp_path / "dest")
        assert not sim.blob_requests()
    assert run.events_of(Planned)
    assert run.stats.completeness == Completeness()


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
            files = sim.offer_export(export(seed=2), export_id=OTHER_EXPORT)
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
    version = OTHER_EXPORT if second else EXPORT
    assert read_latest(tmp_path)["version"] == version
    assert read_version(tmp_path, version) == files
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
            assert read_version(tmp_path) == files
            assert not (tmp_path / "manifests" / f"{EXPORT}.jsonl").exists()
            sync_filesystem(folder)

        monkeypatch.setattr(publication, "sync_filesystem", recording("barrier", checked_sync))
        monkeypatch.setattr(publication, "replace_file_durably", recording("place", replace_file_durably))
        monkeypatch.setattr(
            LocalPublication, "_update_current_link", recording("relink", LocalPublication._update_current_link)
        )
        assert sim.mirror(tmp_path).exit_code == 0
    assert done == [
        "barrier []",  # while the files are checked
        "barrier []",
        "place []",
        "place ['tileset.json']",
        "relink ['latest.json', 'tileset.json']",
    ]
