"""Audit of a package: entries that its manifest does not list."""

from __future__ import annotations

import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.packages import ENDINGS, VERSION, with_manifest, write_package
from tilesync.events import Finding
from tilesync.stores.packages.readers.audit import PackageAudit
from tilesync.stores.packages.readers.opening import PackageReference, open_package
from tilesync.stores.packages.readers.publication import PackagePublication

FILES = {"tileset.json": b"{}", "tiles/0.glb": b"x", "tiles/1.glb": b"y"}

each_ending = pytest.mark.parametrize("ending", ENDINGS)


def audit(path: Path) -> list[Finding]:
    with closing(open_package(PackageReference(path))) as package:
        publication = PackagePublication(package, lambda event: None)
        (version,) = publication.manifest_names()
        return list(PackageAudit(package, publication).find_problems(version))


@each_ending
def test_a_good_package(tmp_path: Path, ending: str) -> None:
    """A package of exactly the files of its manifest has no findings; nor has one without a manifest."""
    assert audit(write_package(tmp_path / f"a.{ending}", with_manifest(FILES))) == []
    assert audit(write_package(tmp_path / f"b.{ending}", FILES)) == []


@each_ending
def test_entries_that_the_manifest_does_not_list(tmp_path: Path, ending: str) -> None:
    """Every entry that the manifest does not list is a finding."""
    path = write_package(tmp_path / f"a.{ending}", {**with_manifest(FILES), "b.glb": b"", "tiles/2.glb": b"z"})
    assert audit(path) == [
        Finding(name, "unlisted", "is in the package, but not in its manifest", version=VERSION)
        for name in ("b.glb", "tiles/2.glb")
    ]


def test_links_are_findings(tmp_path: Path) -> None:
    """A link in a tar file of tilesync is a finding."""
    path = write_package(tmp_path / "a.tar", with_manifest(FILES))
    info = tarfile.TarInfo("link")
    info.type = tarfile.SYMTYPE
    with tarfile.open(path, "a") as package:
        package.addfile(info)
    (finding,) = audit(path)
    assert (finding.name, finding.problem) == ("link", "unlisted")


def test_a_damaged_structure_is_a_finding(tmp_path: Path) -> None:
    """A fault of the structure is a finding about the package, as is a fault of its index."""
    path = write_package(tmp_path / "a.zip", with_manifest(FILES))
    path = path.rename(tmp_path / "a.3tz")
    (finding,) = audit(path)
    assert (finding.name, finding.problem) == ("a.3tz", "package")
    assert "has no @3dtilesIndex1@" in finding.message
