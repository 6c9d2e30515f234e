"""Package as a destination: its version, its manifest, and the modes that are refused."""

from __future__ import annotations

import hashlib
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.packages import ENDINGS, VERSION, with_manifest, write_package, write_zip
from tilesync.core.manifest import read_header, read_line
from tilesync.errors import DamagedPackage, DestinationError, UnsafeName, UsageError
from tilesync.events import Event, Warned
from tilesync.model import Layout, StoredFile, Version
from tilesync.stores.opening import Mode, ReadOnlyDestination
from tilesync.stores.packages.formats import MANIFEST_ENTRY
from tilesync.stores.packages.readers.destination import open_package_read_only

FILES = {"tileset.json": b"{}", "tiles/0.glb": b"x" * 1000, "tiles/1.glb": b""}

each_ending = pytest.mark.parametrize("ending", ENDINGS)


def ignore(event: Event) -> None:
    """Ignore an event."""


def read_version(destination: ReadOnlyDestination) -> tuple[Version, list[StoredFile]]:
    """Read the manifest of the one version."""
    (name,) = destination.publication.manifest_names()
    header, *lines = destination.publication.manifest(name)
    return read_header(header, name=name), [read_line(line) for line in lines]


@each_ending
def test_publication_of_a_package(tmp_path: Path, ending: str) -> None:
    """The version of a package is the current one, with the facts of its manifest."""
    packed = with_manifest(FILES)
    with open_package_read_only(write_package(tmp_path / f"a.{ending}", packed), Mode.READ, ignore) as opened:
        publication = opened.publication
        version, stored = read_version(opened)
        latest = publication.latest()
        assert latest is not None
        assert (version.name, latest["version"], latest["imodel"], latest["tileset"]) == (
            VERSION,
            VERSION,
            "i1",
            "tileset.json",
        )
        assert [(file.blob.name, file.size) for file in stored] == [(name, len(data)) for name, data in FILES.items()]
        assert b"".join(publication.manifest_chunks(VERSION)) == packed[MANIFEST_ENTRY]
        assert (publication.owner(), publication.is_vacant(), publication.last_success()) == ("i1", False, None)
        assert (publication.retired_names(), publication.read_sidecar(version)) == (set(), None)
        assert (publication.prefix(version), publication.is_complete(version)) == ("", True)
        assert not publication.has_staged_files(version)
        digest = hashlib.sha256(FILES["tileset.json"]).hexdigest()
        assert publication.pointer_digest() == digest
        assert publication.points_at(version, digest)
        assert not publication.points_at(version, "0" * 64)
        assert (opened.layout, opened.catalog, opened.is_busy) == (Layout.FLAT, None, False)
        for read in (publication.manifest, publication.manifest_chunks):
            with pytest.raises(DestinationError, match="has no version e2"):
                list(read("e2"))


@each_ending
def test_a_package_of_another_program(tmp_path: Path, ending: str) -> None:
    """Without a manifest one is made from the directory, and a warning says what proves the files."""
    warnings = list[Event]()
    path = write_package(tmp_path / f"my bridge.{ending}", FILES)
    with open_package_read_only(path, Mode.READ, warnings.append) as opened:
        version, stored = read_version(opened)
        assert version.name.startswith("my-bridge-")
        assert (version.summary.files, version.summary.bytes) == (3, 1002)
        assert [(file.blob.name, file.size, file.sha256) for file in stored] == [
            (name, len(data), b"") for name, data in FILES.items()
        ]
        assert len({file.blob.etag for file in stored}) == 3
        assert opened.publication.owner() is None
        lines = b"".join(opened.publication.manifest_chunks(version.name)).splitlines()
        assert json.loads(lines[0])["proof"] == "none"
    (warning,) = warnings
    assert isinstance(warning, Warned)
    proof = "the CRC-32 of each file" if ending in {"zip", "3tz"} else "the size of each file"
    assert proof in warning.message


def test_links_of_a_foreign_package(tmp_path: Path) -> None:
    """Links in a tar file are left out, and a warning names them."""
    path, warnings = write_package(tmp_path / "a.tar", FILES), list[Event]()
    link = tarfile.TarInfo("tiles/link.glb")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(path, "a") as package:
        package.addfile(link)
    with open_package_read_only(path, Mode.READ, warnings.append) as opened:
        assert read_version(opened)[0].summary.files == len(FILES)
        assert opened.publication.latest() is not None
    assert [each.message for each in warnings if isinstance(each, Warned)][1:] == [
        f"links and devices in the package {path} are left out: 'tiles/link.glb'"
    ]


def find_name(path: Path) -> str:
    with open_package_read_only(path, Mode.READ, ignore) as opened:
        return opened.publication.manifest_names()[0]


@each_ending
def test_identity_of_foreign_packages(tmp_path: Path, ending: str) -> None:
    """The name of the version changes with the content, and in a Zip file only with it."""
    one = find_name(write_package(tmp_path / f"a.{ending}", FILES))
    other = find_name(write_package(tmp_path / f"a.{ending}", {**FILES, "tiles/0.glb": b"y" * 1000}))
    again = find_name(write_package(tmp_path / f"a.{ending}", FILES))
    assert one != other
    assert ending not in {"zip", "3tz"} or one == again


def test_compression_does_not_change_the_identity(tmp_path: Path) -> None:
    """A version is named after its files, not after the way in which they are packed."""
    path = tmp_path / "a.zip"
    names = {find_name(write_zip(path, FILES, method=method)) for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)}
    assert len(names) == 1


def test_a_folder_in_the_package(tmp_path: Path) -> None:
    """If the root tileset is in a folder, the error says where."""
    path = write_zip(tmp_path / "a.zip", {f"city/{name}": data for name, data in FILES.items()})
    with open_package_read_only(path, Mode.READ, ignore) as opened, pytest.raises(DamagedPackage) as raised:
        opened.publication.latest()
    assert "city/tileset.json" in raised.value.hint


@pytest.mark.parametrize(
    "manifest", [b"", b"{}", b"\xff", b'{"version": "e1"}', b"[]", with_manifest(FILES, version="..")[MANIFEST_ENTRY]]
)
def test_manifests_that_are_not_valid(tmp_path: Path, manifest: bytes) -> None:
    """A manifest that tilesync did not write is an error that names it."""
    path = write_zip(tmp_path / "a.zip", {MANIFEST_ENTRY: manifest, **FILES})
    with (
        open_package_read_only(path, Mode.READ, ignore) as opened,
        pytest.raises(DamagedPackage, match="tilesync-manifest"),
    ):
        opened.publication.latest()


@pytest.mark.parametrize("mode", [Mode.WRITE, Mode.PLAN])
@pytest.mark.parametrize("exists", [True, False])
def test_modes_that_write_are_refused(tmp_path: Path, mode: Mode, exists: bool) -> None:
    """Nothing is mirrored into a package, and the hint names `tilesync pack`."""
    path = tmp_path / "a.3tz"
    if exists:
        write_package(path, FILES)
    with pytest.raises(UsageError) as raised, open_package_read_only(path, mode, ignore):
        pytest.fail("it was opened")
    assert "tilesync pack" in raised.value.hint


def test_a_missing_package(tmp_path: Path) -> None:
    """A package that does not exist is an error."""
    with (
        pytest.raises(DestinationError, match="does not exist"),
        open_package_read_only(tmp_path / "a.3tz", Mode.READ, ignore),
    ):
        pytest.fail("it was opened")


def test_names_that_no_package_stores(tmp_path: Path) -> None:
    """The check of names refuses what no package can have."""
    with open_package_read_only(write_package(tmp_path / "a.zip", FILES), Mode.READ, ignore) as opened:
        opened.check_names(["a/b"])
        with pytest.raises(UnsafeName):
            opened.check_names(["a/../b"])


@each_ending
def test_a_package_without_a_version_is_not_vacant(tmp_path: Path, ending: str) -> None:
    """A server asks first whether there is a version, and then learns what is wrong with the package."""
    path = write_package(tmp_path / f"a.{ending}", {"tiles/0.glb": b"x"})
    with (
        open_package_read_only(path, Mode.READ, ignore) as opened,
        pytest.raises(DamagedPackage, match="at its top"),
    ):
        opened.publication.is_vacant()
