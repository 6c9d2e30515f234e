"""Writer of .zip and .3tz files, read back by Python's own reader and byte by byte."""

from __future__ import annotations

import hashlib
import io
import random
import struct
import zipfile
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesync.errors import DestinationError
from tilesync.protocols.package import MAX_WHOLE_BYTES
from tilesync.stores.packages.compression import Compression, make_compressor
from tilesync.stores.packages.formats import INDEX_ENTRY, MANIFEST_ENTRY, PackageFormat
from tilesync.stores.packages.zip_records import hash_index_name
from tilesync.stores.packages.zip_writer import ZipWriter

FILES = {"tileset.json": b"{}" * 500, "tiles/ä b%20+#.bin": random.Random(2).randbytes(5000), "data/empty": b""}
LARGE = b"tile" * (MAX_WHOLE_BYTES // 4) + b"the end"


def chunks(data: bytes, size: int = 1 << 20) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def make_writer(out: io.BytesIO, *, is_3tz: bool = False, compression: Compression = Compression.NONE) -> ZipWriter:
    return ZipWriter(out, io.BytesIO(), is_3tz=is_3tz, compressor=make_compressor(compression, PackageFormat.ZIP))


def write(files: dict[str, bytes], *, is_3tz: bool = False, compression: Compression = Compression.NONE) -> bytes:
    out = io.BytesIO()
    writer = make_writer(out, is_3tz=is_3tz, compression=compression)
    writer.add_manifest(8, [b"manifest"])
    for name, data in files.items():
        writer.add(name, len(data), chunks(data))
    writer.finish()
    return out.getvalue()


@pytest.mark.parametrize("is_3tz", [False, True])
@pytest.mark.parametrize("compression", [Compression.NONE, Compression.DEFLATE])
def test_files_are_read_back_in_order(is_3tz: bool, compression: Compression) -> None:
    """The manifest comes first, then each file as it was added; the index of a .3tz file comes last."""
    files = {**FILES, "large.glb": LARGE}
    with zipfile.ZipFile(io.BytesIO(write(files, is_3tz=is_3tz, compression=compression))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [MANIFEST_ENTRY, *files, *([INDEX_ENTRY] if is_3tz else [])]
        assert {name: archive.read(name) for name in files} == files


def test_entries_have_no_facts_of_this_machine() -> None:
    """Each entry has the earliest date, is a plain file that all may read, and carries its sizes in front."""
    with zipfile.ZipFile(io.BytesIO(write({**FILES, "large.glb": LARGE}))) as archive:
        entries = archive.infolist()
    assert {each.date_time for each in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {each.external_attr >> 16 for each in entries} == {0o100644}
    assert {each.flag_bits for each in entries} == {0, 0x800}
    assert {each.filename for each in entries if each.flag_bits} == {"tiles/ä b%20+#.bin"}


def test_local_headers_have_sizes_and_checksums() -> None:
    """The header in front of each file, a streamed one too, says what the central directory says."""
    data = write({**FILES, "large.glb": LARGE}, is_3tz=True)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for entry in archive.infolist():
            fields = struct.unpack_from("<4s5H3L2H", data, entry.header_offset)
            assert fields[0] == b"PK\3\4"
            assert fields[6:9] == (entry.CRC, entry.compress_size, entry.file_size)


def test_index_finds_each_local_header() -> None:
    """The index of a .3tz file has the offset of every entry but itself, sorted by two little-endian numbers."""
    data = write(FILES, is_3tz=True)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {each.filename: each for each in archive.infolist()}
        index = archive.read(INDEX_ENTRY)
    assert entries.pop(INDEX_ENTRY).compress_type == zipfile.ZIP_STORED
    records = list(struct.iter_unpack("<QQQ", index))
    assert records == sorted(records)
    by_digest = {struct.pack("<QQ", *record[:2]): record[2] for record in records}
    assert by_digest == {hashlib.md5(name.encode()).digest(): entry.header_offset for name, entry in entries.items()}
    assert data.rindex(INDEX_ENTRY.encode()) > len(data) - 320, "3d-tiles-tools reads only the last 320 bytes"


@pytest.mark.parametrize("compression", [Compression.DEFLATE, Compression.ZSTD])
def test_files_are_compressed_only_if_that_helps(compression: Compression) -> None:
    """A file that compression does not make smaller is stored."""
    with zipfile.ZipFile(io.BytesIO(write(FILES, compression=compression))) as archive:
        methods = {each.filename: each.compress_type for each in archive.infolist()}
    packed = {Compression.DEFLATE: 8, Compression.ZSTD: 93}[compression]
    assert methods == {MANIFEST_ENTRY: 0, "tileset.json": packed, "tiles/ä b%20+#.bin": 0, "data/empty": 0}


def test_zstandard_entries_hold_the_files() -> None:
    """Small and streamed Zstandard entries decompress to the files."""
    import zstandard

    files = {"tileset.json": b"{}" * 500, "large.glb": LARGE}
    data = write(files, compression=Compression.ZSTD)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for entry in archive.infolist()[1:]:
            start = entry.header_offset + 30 + len(entry.filename)
            packed = data[start : start + entry.compress_size]
            unpacked = zstandard.ZstdDecompressor().decompressobj().decompress(packed)
            assert (entry.compress_type, unpacked) == (93, files[entry.filename])
            assert entry.extract_version == 63


def test_limits_of_3tz_are_problems_of_no_zip() -> None:
    """A nested .3tz, and a file of 4 GiB, cannot be in a .3tz file; a .zip file holds both."""
    tz3, plain = make_writer(io.BytesIO(), is_3tz=True), make_writer(io.BytesIO())
    assert "forbids" in (tz3.find_problem("a.3TZ/b.glb", 1) or "")
    assert "larger than 4 GiB" in (tz3.find_problem("a.glb", 0xFFFFFFFF) or "")
    assert tz3.find_problem("a.glb", 0xFFFFFFFE) is None
    assert tz3.find_problem(INDEX_ENTRY, 1)
    assert [plain.find_problem(*each) for each in (("a.3tz", 1), ("a.glb", 1 << 40))] == [None, None]
    with pytest.raises(DestinationError, match="manifest is too large"):
        tz3.add_manifest(0xFFFFFFFF, [])


def test_limits_of_other_readers_are_told() -> None:
    """An empty file, and a name that is not ASCII, in a .3tz file are worth a warning; in a .zip file they are not."""
    tz3, plain = make_writer(io.BytesIO(), is_3tz=True), make_writer(io.BytesIO())
    assert "is empty" in (tz3.find_compatibility_problem("a", 0) or "")
    assert "not ASCII" in (tz3.find_compatibility_problem("ä", 1) or "")
    assert tz3.find_compatibility_problem("a", 1) is None
    assert [plain.find_compatibility_problem(*each) for each in (("a", 0), ("ä", 1))] == [None, None]


@pytest.mark.parametrize("is_3tz", [False, True])
def test_measure_is_the_written_size(is_3tz: bool) -> None:
    """The measured sizes add up to the written bytes, but for the end records and the index entry."""
    writer = make_writer(io.BytesIO(), is_3tz=is_3tz)
    total = writer.measure(MANIFEST_ENTRY, 8) + sum(writer.measure(name, len(data)) for name, data in FILES.items())
    assert 0 < len(write(FILES, is_3tz=is_3tz)) - total <= 22 + (76 + 2 * len(INDEX_ENTRY) if is_3tz else 0)


class SparseFile(io.BytesIO):
    """A file in memory that does not keep long zeros, but counts them: its offsets are those of a huge file."""

    def __init__(self) -> None:
        super().__init__()
        self.position = self.end = 0
        self.pieces: dict[int, bytes] = {}

    def write(self, data: bytes) -> int:  # type: ignore[override]  # the writer passes bytes only
        if len(data) < 1 << 20:
            self.pieces[self.position] = data
        self.position += len(data)
        self.end = max(self.end, self.position)
        return len(data)

    def writelines(self, lines: object) -> None:
        for line in lines:  # type: ignore[attr-defined]  # chunks
            self.write(line)

    def seek(self, offset: int, whence: int = 0) -> int:
        assert whence == 0
        self.position = offset
        return offset


def test_huge_files_have_zip64_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file over 4 GiB has its sizes in Zip64 fields, and so has the offset of the file after it."""
    monkeypatch.setattr("tilesync.stores.packages.zip_writer.zlib.crc32", lambda data, before=0: 7)
    out, zeros, size = SparseFile(), bytes(1 << 24), (4 << 30) + (1 << 24)
    directory = io.BytesIO()
    writer = ZipWriter(out, directory, is_3tz=False)
    writer.add("big", size, (zeros for _ in range(size // len(zeros))))
    writer.add("after", 3, [b"end"])
    local = out.pieces[0]
    assert struct.unpack_from("<2L", local, 18) == (0xFFFFFFFF, 0xFFFFFFFF)
    assert struct.unpack_from("<2H2Q", local, 33) == (1, 16, size, size)
    offset = len(local) + size
    first, second = directory.getvalue()[:69], directory.getvalue()[69:]
    assert struct.unpack_from("<2L", first, 20) == (0xFFFFFFFF, 0xFFFFFFFF)
    assert struct.unpack_from("<2H2Q", first, 49) == (1, 16, size, size)
    assert struct.unpack_from("<L", second, 42) == (0xFFFFFFFF,)
    assert struct.unpack_from("<2HQ", second, 51) == (1, 8, offset)
    writer.finish()
    end = out.pieces[max(out.pieces)]
    assert end[:4] == b"PK\6\6"
    assert struct.unpack_from("<4Q", end, 24) == (2, 2, len(first + second), offset + 30 + len("after") + len("end"))


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\\"), min_size=1, max_size=40)


@given(files=st.dictionaries(NAMES, st.binary(max_size=2000), max_size=12), is_3tz=st.booleans(), word=st.booleans())
def test_any_names_and_contents_are_read_back(files: dict[str, bytes], is_3tz: bool, word: bool) -> None:
    """Whatever the names and the bytes, Python's reader gives them back, and the index leads to each of them."""
    for reserved in (MANIFEST_ENTRY, INDEX_ENTRY):
        files.pop(reserved, None)
    data = write(files, is_3tz=is_3tz, compression=Compression.DEFLATE if word else Compression.NONE)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {each.orig_filename: each for each in archive.infolist()}
        assert {name: archive.read(entries[name]) for name in files} == files
        if is_3tz:
            records = list(struct.iter_unpack("<16sQ", archive.read(INDEX_ENTRY)))
            assert [offset for _, offset in records] == [
                entry.header_offset
                for digest, _ in records
                for entry in entries.values()
                if hash_index_name(entry.orig_filename) == digest
            ]
