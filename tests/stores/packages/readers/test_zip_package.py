"""Zip packages: found by their own index or by a built one, whoever wrote them."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

from tests.support import packages
from tests.support.packages import write_zip
from tilesync.errors import DamagedPackage
from tilesync.stores.packages.readers import name_index
from tilesync.stores.packages.readers import package as package_module
from tilesync.stores.packages.readers.opening import PackageReference, open_package
from tilesync.stores.packages.readers.package_input import PackageInput
from tilesync.stores.packages.readers.zip_package import ZipPackage

FILES = {f"tiles/{number}.glb": bytes([number]) * number for number in range(50)} | {"tileset.json": b"{}"}


def open_zip(path: Path) -> ZipPackage:
    package = open_package(PackageReference(path))
    assert isinstance(package, ZipPackage)
    return package


def read(package: ZipPackage, name: str) -> bytes | None:
    entry = package.find(name)
    return b"".join(package.chunks(entry)) if entry is not None else None


def test_the_index_of_a_3tz_is_used(tmp_path: Path) -> None:
    """A .3tz file is searched by its own index, and none is built."""
    with closing(open_zip(write_zip(tmp_path / "a.3tz", FILES, index=True))) as package:
        assert {name: read(package, name) for name in FILES} == FILES
        assert read(package, "none") is None
        assert package.describe_index() is None


@pytest.mark.parametrize("ending", ["zip", "3tz"])
def test_a_package_without_index_gets_one(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For other packages an index is built, in a temporary file that no folder shows."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    with closing(open_zip(write_zip(tmp_path / f"a.{ending}", FILES))) as package:
        assert {name: read(package, name) for name in FILES} == FILES
        assert package.describe_index() is not None
        assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="processes cannot share a file without a name")
def test_another_reader_uses_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another reader searches the index that was built, and builds its own if that one is closed."""
    path = write_zip(tmp_path / "a.zip", FILES)
    with closing(open_zip(path)) as package:
        package.prepare_search()
        index = package.describe_index()
        with monkeypatch.context() as patched:
            patched.setattr(package_module, "build_index_file", lambda places: pytest.fail("it was built again"))
            with closing(ZipPackage(PackageInput(path), index, has_own_index=False)) as other:
                assert {name: read(other, name) for name in FILES} == FILES
    with closing(ZipPackage(PackageInput(path), index, has_own_index=False)) as other:
        assert {name: read(other, name) for name in FILES} == FILES


@pytest.mark.parametrize("index", [True, False])
def test_names_with_one_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: bool) -> None:
    """Among names with the same hash, the header decides."""
    for module in (packages, name_index):
        monkeypatch.setattr(module, "hash_index_name", lambda name: b"same" * 4)
    with closing(open_zip(write_zip(tmp_path / "a.3tz", FILES, index=index))) as package:
        assert {name: read(package, name) for name in FILES} == FILES
        assert read(package, "none") is None


def test_entries_with_sizes_behind_them(tmp_path: Path) -> None:
    """An entry that was streamed has its sizes in the directory only, which is enough for a .zip."""
    path = tmp_path / "a.zip"

    class Pipe(io.FileIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError

        def seek(self, *_: object) -> int:
            raise OSError

    with Pipe(path, "w") as pipe, zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as package:
        for name, data in FILES.items():
            package.writestr(name, data)
    with closing(open_zip(path)) as opened:
        assert {name: read(opened, name) for name in FILES} == FILES
    as_3tz = path.rename(tmp_path / "a.3tz")
    with closing(open_zip(as_3tz)) as opened:
        assert {name: read(opened, name) for name in FILES} == FILES


def test_foreign_extras(tmp_path: Path) -> None:
    """Extra fields of 64 bytes that are no fields, comments and folders do not matter."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as package:
        package.comment = b"PK\5\6 made elsewhere" * 100
        package.writestr("tiles/", b"")
        for name, data in FILES.items():
            info = zipfile.ZipInfo(name)
            info.extra = (b"\xfe\xca" + (60).to_bytes(2, "little") + bytes(60)) if len(name) % 2 else b""
            info.comment = b"PK\1\2"
            package.writestr(info, data)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"\xfe\xca" + (60).to_bytes(2, "little"), bytes(2) + (64).to_bytes(2, "little")))
    with closing(open_zip(path)) as opened:
        assert {entry.name: read(opened, entry.name) for entry in opened.entries()} == FILES


def test_names_of_two_kinds(tmp_path: Path) -> None:
    """A name is UTF-8, with or without the flag for it; else it is in code page 437."""
    path = tmp_path / "a.zip"
    write_zip(path, {"ä.glb": b"1", "b.glb": b"2"})
    data = path.read_bytes()
    path.write_bytes(data.replace(b"b.glb", b"\x84.glb"))
    with pytest.raises(DamagedPackage, match="two entries"), closing(open_zip(path)) as opened:
        opened.prepare_search()
    path.write_bytes(data.replace(b"b.glb", b"\x8e.glb"))
    with closing(open_zip(path)) as opened:
        assert (read(opened, "ä.glb"), read(opened, "Ä.glb")) == (b"1", b"2")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../x.glb", r"'\.\.'"),
        ("/etc/x.glb", "absolute"),
        ("a\\b.glb", "backslash"),
        ("a\tb.glb", "control"),
        ("", "empty"),
    ],
)
def test_names_that_are_not_safe(tmp_path: Path, name: str, reason: str) -> None:
    """A name that could leave a folder is refused, and named."""
    path = tmp_path / "a.zip"
    write_zip(path, {"tileset.json": b"{}", name.replace("\\", "?"): b"x"})
    path.write_bytes(path.read_bytes().replace(b"a?b.glb", b"a\\b.glb"))
    with closing(open_zip(path)) as opened, pytest.raises(DamagedPackage, match=reason):
        list(opened.entries())


def test_an_entry_points_to_another(tmp_path: Path) -> None:
    """A directory entry whose header names another file is damage."""
    path = write_zip(tmp_path / "a.zip", {"a.glb": b"1", "b.glb": b"2"})
    data = path.read_bytes()
    path.write_bytes(data.replace(b"a.glb", b"c.glb", 1))
    with closing(open_zip(path)) as opened:
        entry = opened.find("a.glb")
        assert entry is not None
        with pytest.raises(DamagedPackage, match=r"names another file"):
            list(opened.chunks(entry))
