"""Copies of mirrors with unpacked files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.builders import read_manifest
from tests.support.gzip_exports import BIG, DECODED, LARGE, gz_names, make_gzip_export, mirror_decoded, run_sha256sum
from tests.support.simulator import (
    EXPORT,
    Simulator,
    read_version,
    run_program,
    verify,
)
from tilesync.model import Layout


def copy_mirror(source: Path, dest: Path, *options: str, exit_code: int = 0) -> None:
    ended = run_program("mirror", str(source), str(dest), *options, env={"TILESYNC_API_URL": "http://127.0.0.1:9"})
    assert ended.exit_code == exit_code, ended.stderr


def test_a_copy_of_a_decoded_mirror(tmp_path: Path) -> None:
    """A copy of a decoded mirror has the same files and mode; the manifest proves the unpacked bytes."""
    files, plain = make_gzip_export()
    source = tmp_path / "source"
    with Simulator() as sim:
        sim.offer_export(files)
        assert mirror_decoded(sim, source).exit_code == 0
    for dest in (tmp_path / "one", tmp_path / "two"):
        copy_mirror(source, dest)
        assert read_version(dest) == plain
        head, rows = read_manifest(dest, EXPORT)
        assert (head["content"], head["bytes"]) == ("decoded", sum(map(len, plain.values())))
        assert {row["sha256"] for row in rows.values()} == {
            r["sha256"] for r in read_manifest(source, EXPORT)[1].values()
        }
        assert all("stored" not in row for row in rows.values())
        assert verify(dest).exit_code == 0
        assert run_sha256sum(dest) == 0
        copy_mirror(source, dest)
        assert [each.name for each in (dest / "versions").iterdir()] == [EXPORT]
        source = dest
    (source / "versions" / EXPORT / LARGE).write_bytes(plain[LARGE][:-1] + b"!")
    copy_mirror(source, tmp_path / "three", exit_code=3)


@pytest.mark.parametrize("layout", [Layout.VERSIONED, Layout.FLAT])
def test_unpacked_files_are_repaired_from_a_copy(tmp_path: Path, layout: Layout) -> None:
    """Lost unpacked files are repaired from a copy; the others stay unchanged."""
    files, plain = make_gzip_export()
    first, dest = tmp_path / "first", tmp_path / "dest"
    with Simulator() as sim:
        sim.offer_export(files)
        assert mirror_decoded(sim, first).exit_code == 0
        assert mirror_decoded(sim, dest, layout=layout).exit_code == 0
    copy_mirror(first, tmp_path / "copy")
    there = dest / "versions" / EXPORT if layout is Layout.VERSIONED else dest
    (there / BIG).unlink()
    inode_before = (there / LARGE).stat().st_ino
    assert verify(dest).exit_code == 10
    flat = ("--layout", "flat") if layout is Layout.FLAT else ()
    copy_mirror(tmp_path / "copy", dest, *flat)
    assert (there / BIG).read_bytes() == plain[BIG]
    assert (there / LARGE).stat().st_ino == inode_before
    assert verify(dest).exit_code == 0
    copy_mirror(tmp_path / "copy", dest, *flat)
    with Simulator() as sim:
        sim.offer_export(files)
        night = mirror_decoded(sim, dest, layout=layout)
    assert (night.exit_code, night.stats.fetched) == (0, 0)


def test_unpacked_files_that_are_there_are_not_copied(tmp_path: Path) -> None:
    """Files that are already there unpacked are not copied, although only they identify a mirror of a bare link."""
    files, plain = make_gzip_export()
    with Simulator() as sim:
        sim.offer_export(files)
        for name in ("a", "b"):
            assert run_program("mirror", sim.create_link(EXPORT), str(tmp_path / name), *DECODED).exit_code == 0
    (version,) = (each.name for each in (tmp_path / "b/versions").iterdir())
    copy_mirror(tmp_path / "a", tmp_path / "b")
    assert [each.name for each in (tmp_path / "b/versions").iterdir()] == [version]
    assert read_version(tmp_path / "b", version) == plain


def test_a_stored_copy_is_unpacked_on_the_way(tmp_path: Path) -> None:
    """A stored mirror can be copied into a decoded one, and a second run transfers nothing."""
    files, plain = make_gzip_export()
    with Simulator() as sim:
        sim.offer_export(files)
        assert sim.mirror(tmp_path / "source").exit_code == 0
    copy_mirror(tmp_path / "source", tmp_path / "d", *DECODED)
    copy_mirror(tmp_path / "source", tmp_path / "d", *DECODED)
    assert read_version(tmp_path / "d") == plain
    head, rows = read_manifest(tmp_path / "d", EXPORT)
    assert head["content"] == "decoded"
    assert {name for name, row in rows.items() if "stored" in row} == gz_names(files)
    assert [each.name for each in (tmp_path / "d/versions").iterdir()] == [EXPORT]
    assert verify(tmp_path / "d").exit_code == 0
