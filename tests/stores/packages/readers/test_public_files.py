"""Files of a package for a server: whole, in part, and while the package changes."""

from __future__ import annotations

import asyncio
import os
import random
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.packages import KINDS, METHODS, with_manifest, write_package
from tilesync.errors import BlobDamaged, ExportReplaced
from tilesync.runtime.streamed_file import SMALL_FILE_BYTES
from tilesync.stores.packages.readers.opening import PackageReference, open_package
from tilesync.stores.packages.readers.public_files import PackagePublicFiles, open_public_entries

LARGE = random.Random(3).randbytes(SMALL_FILE_BYTES * 5)
FILES = {"tileset.json": b"{}", "tiles/.hidden.glb": b"glTF", "tiles/large.glb": LARGE, "empty": b""}


@pytest.fixture(params=KINDS, ids="-".join)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    ending, method = request.param
    return write_package(tmp_path / f"a.{ending}", with_manifest(FILES), method=METHODS[method])


@pytest.fixture
def files(path: Path) -> Iterator[PackagePublicFiles]:
    with closing(open_package(PackageReference(path))) as package, open_public_entries(package) as opened:
        yield opened


async def read(files: PackagePublicFiles, name: str, start: int = 0, stop: int | None = None) -> bytes | None:
    """Read a file, or a part of it; None if there is none."""
    file = await files.open(name)
    if file is None:
        return None
    pieces = [piece async for piece in file.chunks(start, file.size if stop is None else stop)]
    await file.aclose()
    return b"".join(pieces)


def test_files_are_read_whole_and_in_part(files: PackagePublicFiles) -> None:
    """Each file has its bytes, from any offset, and a size and an ETag that fit."""

    async def check() -> None:
        for name, data in FILES.items():
            assert await read(files, name) == data
            for start, stop in ((0, 1), (1, len(data)), (len(data) // 2, len(data) // 2 + 100_000)):
                assert await read(files, name, start, min(stop, len(data))) == data[start:stop]
        opened = [await files.open(name) for name in FILES]
        assert [file.size for file in opened if file is not None] == list(map(len, FILES.values()))
        assert len({file.etag for file in opened if file is not None}) == len(FILES)

    asyncio.run(check())


@pytest.mark.parametrize(
    "name", ["no", "tiles", "", "../tileset.json", "/tileset.json", "tilesync-manifest.jsonl", "@3dtilesIndex1@"]
)
def test_other_names_are_missing(files: PackagePublicFiles, name: str) -> None:
    """Only files of the version are public: no folder, no path out of the package, and none of its own entries."""
    assert asyncio.run(read(files, name)) is None


@pytest.mark.parametrize("name", ["tileset.json", "tiles/large.glb"])
def test_a_package_that_changes(files: PackagePublicFiles, path: Path, name: str) -> None:
    """A read of a package that was written to meanwhile ends in an error, never in other bytes."""
    os.utime(path, ns=(1, 1))
    with pytest.raises(ExportReplaced):
        asyncio.run(read(files, name))


@pytest.mark.parametrize("method", METHODS)
def test_a_damaged_file(tmp_path: Path, method: str) -> None:
    """A large file whose CRC-32 is wrong is not served to its end: the client notices that it is cut off."""
    path = write_package(tmp_path / "a.zip", with_manifest({"tileset.json": b"{}", "large": bytes(3 << 20)}))
    if method == "deflate":
        write_package(path, with_manifest({"tileset.json": b"{}", "large": LARGE}), method=zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(path) as zipped:
        crc = zipped.getinfo("large").CRC.to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(crc, b"\0\0\0\0"))
    with (
        closing(open_package(PackageReference(path))) as package,
        open_public_entries(package) as files,
        pytest.raises(BlobDamaged),
    ):
        asyncio.run(read(files, "large"))
