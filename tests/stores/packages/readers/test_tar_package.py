"""Tar packages: long names, other members than files, and what is refused."""

from __future__ import annotations

import io
import subprocess
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.packages import write_tar
from tilesync.errors import DamagedPackage
from tilesync.stores.packages.readers.opening import PackageReference, open_package
from tilesync.stores.packages.readers.package_input import PackageInput
from tilesync.stores.packages.readers.tar_package import TarPackage, read_member

LONG = "/".join(["folder-of-tiles"] * 20) + "/ä.glb"
FILES = {"tileset.json": b"{}", LONG: b"x" * 1000, "tiles/empty": b"", "tiles/1.glb": b"y" * 513}

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def read_all(path: Path) -> dict[str, bytes]:
    """Read all files, each by its name."""
    with closing(open_tar(path)) as package:
        names = [entry.name for entry in package.entries()]
        found = {name: package.find(name) for name in names}
        return {name: b"".join(package.chunks(entry)) for name, entry in found.items() if entry is not None}


def open_tar(path: Path) -> TarPackage:
    package = open_package(PackageReference(path))
    assert isinstance(package, TarPackage)
    return package


@pytest.mark.parametrize("tar_format", FORMATS.values(), ids=FORMATS)
def test_names_in_each_format(tmp_path: Path, tar_format: int) -> None:
    """Names are read in the formats of POSIX and GNU, also names that need headers of their own."""
    files = {name: data for name, data in FILES.items() if tar_format != tarfile.USTAR_FORMAT or len(name) < 200}
    assert read_all(write_tar(tmp_path / "a.tar", files, tar_format=tar_format)) == files


def test_tar_program(tmp_path: Path) -> None:
    """A folder that GNU tar packed is read: its names begin with a dot, and it has folders."""
    for name, data in FILES.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    subprocess.run(["tar", "-cf", tmp_path / "a.tar", "-C", tmp_path / "folder", "."], check=True)
    assert read_all(tmp_path / "a.tar") == FILES


def test_links_and_devices_are_left_out(tmp_path: Path) -> None:
    """Members that are no files are named, and never read."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as package:
        for name, kind in {"link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "null": tarfile.CHRTYPE}.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            package.addfile(info)
        info = tarfile.TarInfo("tileset.json")
        info.size = 2
        package.addfile(info, io.BytesIO(b"{}"))
    assert read_all(path) == {"tileset.json": b"{}"}
    with closing(open_tar(path)) as opened:
        assert list(opened.ignored_names()) == ["link", "hard", "null"]
        assert opened.find("link") is None


def test_a_name_with_two_members_is_refused(tmp_path: Path) -> None:
    """A package to which a newer file was appended is refused: it is not clear which one is meant."""
    path = write_tar(tmp_path / "a.tar", FILES)
    with tarfile.open(path, "a") as package:
        package.addfile(tarfile.TarInfo("tiles/1.glb"))
    with closing(open_tar(path)) as opened, pytest.raises(DamagedPackage, match=r"two entries .* tiles/1\.glb"):
        opened.find("tileset.json")


@pytest.mark.parametrize("tar_format", FORMATS.values(), ids=FORMATS)
def test_a_package_that_is_cut_off(tmp_path: Path, tar_format: int) -> None:
    """At whatever byte before its end mark a package ends, it is refused."""
    files = {name: data for name, data in FILES.items() if len(name) < 200 or tar_format != tarfile.USTAR_FORMAT}
    path = write_tar(tmp_path / "a.tar", files, tar_format=tar_format)
    data = path.read_bytes()
    with closing(open_tar(path)) as opened:
        end = max(member.end for member in opened.members()) + tarfile.BLOCKSIZE
    for length in [*range(0, end, 100), *range(0, end, tarfile.BLOCKSIZE), end - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(DamagedPackage):
            read_all(path)
    path.write_bytes(data[:end])
    assert read_all(path) == files


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"GNU.sparse.major": "1"}, "sparse"),
        ({"size": "-5"}, "size"),
        ({"size": "99999999999"}, "cut off"),
        ({"path": "../x"}, "not safe"),
        ({"path": ""}, "not safe"),
    ],
)
def test_headers_that_are_refused(tmp_path: Path, headers: dict[str, str], reason: str) -> None:
    """Sparse files, impossible sizes and names that leave the package are refused."""
    path = tmp_path / "a.tar"
    info = tarfile.TarInfo("a.glb")
    info.pax_headers = headers
    with tarfile.open(path, "w") as package:
        package.addfile(info)
    with pytest.raises(DamagedPackage, match=reason):
        read_all(path)


def test_sparse_files_of_gnu_are_refused(tmp_path: Path) -> None:
    """A sparse file in the old format of GNU is refused."""
    path = tmp_path / "a.tar"
    info = tarfile.TarInfo("a.glb")
    info.type = tarfile.GNUTYPE_SPARSE
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(DamagedPackage, match="sparse"):
        read_all(path)


def test_sizes_of_more_than_eight_gigabytes(tmp_path: Path) -> None:
    """A size that octal digits cannot state is read, in the ways of GNU and of PAX."""
    path = tmp_path / "a.tar"
    for tar_format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        info = tarfile.TarInfo("a.glb")
        info.size = 9 << 30
        header = info.tobuf(tar_format)
        with path.open("wb") as file:
            file.write(header)
            file.truncate(len(header) + info.size + 1024)
        with closing(PackageInput(path)) as package:
            member = read_member(package, 0)
            assert member is not None
            assert (member.size, member.end) == (info.size, len(header) + info.size)
            assert read_member(package, member.end) is None


def test_another_file(tmp_path: Path) -> None:
    """A file that is no tar file is not called cut off."""
    path = tmp_path / "a.tar"
    for data in (b"", b"{}", b"x" * 5000):
        path.write_bytes(data)
        with pytest.raises(DamagedPackage, match="is not a tar file"):
            read_all(path)
