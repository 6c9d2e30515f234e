"""Records of files, cut out of the lines of a manifest."""

from __future__ import annotations

import json

import pytest

from tilesync.core.manifest import encode_line, make_line
from tilesync.jobs.diff.records import FileRecord, cut_records, is_same_content, parse_name, parse_record
from tilesync.model import Blob, StoredFile, UnpackedFile

MD5, SHA256 = bytes(range(16)), bytes(range(32))
STORED = StoredFile(Blob('tiles/ä "1".glb', 12, '"0x8D"', MD5, "model/gltf-binary", None, 1_700_000_000), SHA256, 0)
COPIED = STORED._replace(sha256=b"")
WITHOUT_MD5 = STORED._replace(blob=STORED.blob._replace(md5=None))
UNPACKED = STORED._replace(unpacked=UnpackedFile(99, SHA256))


def line_of(stored: StoredFile) -> bytes:
    return encode_line(make_line(stored))[:-1]


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (STORED, FileRecord(12, SHA256.hex(), MD5.hex())),
        (COPIED, FileRecord(12, "", MD5.hex())),
        (WITHOUT_MD5, FileRecord(12, SHA256.hex(), "")),
        (UNPACKED, FileRecord(99, SHA256.hex(), MD5.hex(), 12)),
    ],
)
def test_a_record_is_that_of_the_line(stored: StoredFile, expected: FileRecord) -> None:
    """Name, size and digests are read as the manifest has them, also of copied and of unpacked files."""
    (record,) = cut_records(line_of(stored))
    name, _, rest = record.partition(b'","size":')
    assert (parse_name(name), parse_record(rest)) == (stored.blob.name, expected)


def test_lines_of_other_programs_give_the_same_records() -> None:
    """Blanks, another order of the members and escaped letters make no difference."""
    foreign = json.dumps(dict(reversed(make_line(STORED).items())), indent=None).encode()
    escaped = line_of(STORED).replace("ä".encode(), b"\\u00e4")
    assert cut_records(b"\n".join((line_of(STORED), foreign, escaped))) == cut_records(line_of(STORED)) * 3


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"x" + line_of(STORED),
        line_of(STORED)[:60],
        line_of(STORED)[:-1],
        line_of(STORED).replace(SHA256.hex().encode(), b"00"),
        line_of(STORED).replace(b'"size":12', b'"size":-1'),
        line_of(STORED).replace("ä".encode(), b"\\ud800"),
        line_of(STORED).replace("ä".encode(), b"\xff"),
        line_of(STORED).replace(b"model/", b"\xff"),
        line_of(STORED).replace(b".glb", b"\t"),
        b'{"name":"a"}',
    ],
)
def test_damaged_lines_are_refused(line: bytes) -> None:
    """A line that is no line of a manifest raises an error, wherever it is."""
    for lines in (line, b"\n".join((line_of(STORED), line)), b"\n".join((line, line_of(STORED)))):
        with pytest.raises((KeyError, ValueError)):
            cut_records(lines)


def test_the_proof_of_the_same_content() -> None:
    """SHA-256 decides if both have it; otherwise MD5 and size, as they are in the container; unknown is never same."""
    whole, other = FileRecord(12, "aa", "bb"), FileRecord(12, "ab", "bb")
    assert is_same_content(whole, FileRecord(12, "aa", "bc"))
    assert not is_same_content(whole, other)
    assert is_same_content(whole, FileRecord(12, "", "bb"))
    assert not is_same_content(whole, FileRecord(13, "", "bb"))
    assert is_same_content(whole, FileRecord(99, "cc", "bb", 12))
    assert not is_same_content(FileRecord(12, "", ""), FileRecord(12, "", ""))
