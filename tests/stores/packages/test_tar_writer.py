"""Writer of .tar files, read back by Python's own reader."""

from __future__ import annotations

import io
import tarfile

import pytest

from tilesync.stores.packages.formats import INDEX_ENTRY, MANIFEST_ENTRY
from tilesync.stores.packages.tar_writer import TarWriter

FILES = {
    "tileset.json": b"{}",
    "tiles/ä b%20+#.bin": b"x" * 512,
    f"{'long/' * 60}0.glb": b"y" * 513,
    "empty": b"",
}


def write(files: dict[str, bytes], *, manifest: bytes = b"manifest") -> bytes:
    out = io.BytesIO()
    writer = TarWriter(out)
    writer.add_manifest(len(manifest), [manifest])
    for name, data in files.items():
        writer.add(name, len(data), (data[start : start + 100] for start in range(0, len(data), 100)))
    writer.finish()
    return out.getvalue()


def test_files_are_read_back_in_order() -> None:
    """The manifest comes first, then each file as it was added: long names, other alphabets, and empty files too."""
    with tarfile.open(fileobj=io.BytesIO(write(FILES))) as archive:
        members = archive.getmembers()
        assert [member.name for member in members] == [MANIFEST_ENTRY, *FILES]
        contents = [archive.extractfile(member) for member in members[1:]]
        assert [each.read() for each in contents if each is not None] == list(FILES.values())


def test_entries_belong_to_nobody() -> None:
    """No entry has a time, an owner or permissions of this machine."""
    with tarfile.open(fileobj=io.BytesIO(write(FILES))) as archive:
        facts = {(each.mtime, each.uid, each.gid, each.uname, each.gname, each.mode) for each in archive}
    assert facts == {(0, 0, 0, "", "", 0o644)}


def test_file_ends_with_a_whole_record() -> None:
    """The end is two empty blocks, and the size is a multiple of a record, as the program tar writes it."""
    data = write(FILES)
    assert len(data) % tarfile.RECORDSIZE == 0
    assert data[-1024:] == bytes(1024)


def test_size_over_8_gib_has_a_pax_header() -> None:
    """A size that ustar cannot write is in a PAX header, which readers prefer."""
    header = io.BytesIO()
    writer = TarWriter(header)
    writer.add("big", 9 << 30, [])
    entry = tarfile.TarInfo.frombuf(header.getvalue()[1024:1536], "utf-8", "strict")
    assert b"size=9663676416" in header.getvalue()[:1024]
    assert (entry.name, entry.size) == ("big", 0)


def test_measure_is_the_written_size() -> None:
    """The measured sizes add up to the written bytes, but for the end."""
    writer = TarWriter(io.BytesIO())
    total = sum(writer.measure(name, len(data)) for name, data in FILES.items())
    assert writer.measure("big", 9 << 30) == (9 << 30) + 3 * tarfile.BLOCKSIZE
    assert 1024 <= len(write(FILES)) - total - writer.measure(MANIFEST_ENTRY, 8) <= 1024 + tarfile.RECORDSIZE


@pytest.mark.parametrize("name", [MANIFEST_ENTRY, INDEX_ENTRY])
def test_reserved_names_are_a_problem(name: str) -> None:
    """A file of the version cannot have the name of an entry that tilesync adds."""
    assert TarWriter(io.BytesIO()).find_problem(name, 1)
    assert TarWriter(io.BytesIO()).find_problem(f"a/{name}", 1) is None
