"""Record of a file: its name, size and digests, cut out of a line of a manifest without parsing the line.

Manifests have millions of lines, and almost all are the same on both sides except for their ETag and time. So records
stay bytes, in the form in which the manifest has them: `NAME","size":SIZE,"sha256":"…","md5":"…"`, with the name as
JSON writes it. A regular expression that accepts nothing else cuts them out; any other line is parsed and encoded anew.
"""

from __future__ import annotations

import json
import re
from typing import Final, NamedTuple

from tilesync.core.foreign_json import parse_json
from tilesync.core.manifest import read_line
from tilesync.model import StoredFile

NAME_END: Final = b'","size":'
"""Bytes between the name and the rest of a record. A name cannot contain them: JSON escapes its quotation marks."""

_NAME = rb'[^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*+'
_REST = rb'[0-9]++,"sha256":(?:null|"[0-9a-f]{64}"),(?:"proof":"[a-z0-9-]++",)?"md5":(?:null|"[0-9a-f]{32}")'
_LINE = re.compile(rb'^\{"name":"(' + _NAME + NAME_END + _REST + rb'),"etag":[^\n]*+(?<=\})(?:\n|\Z)', re.MULTILINE)
"""A line as tilesync writes it, not cut off. It consumes the line, so that the search goes on at the next one."""

_PARTS = re.compile(
    rb'([0-9]++),"sha256":(?:null|"([0-9a-f]{64})"),(?:"proof":"[a-z0-9-]++",)?"md5":(?:null|"([0-9a-f]{32})")'
    rb'(?:,"packed":([0-9]++))?'
)
_UNPACKED_MARK = b',"stored":{'
_ENCODER = json.JSONEncoder(ensure_ascii=False)


class FileRecord(NamedTuple):
    """Parsed record of a file, without its name: digests in hexadecimal, empty if unknown.

    `packed_size`: size of the bytes in the container, to which the MD5 belongs, if the file is stored unpacked.
    """

    size: int
    sha256: str
    md5: str
    packed_size: int | None = None


def make_record(name: str, record: FileRecord) -> bytes:
    """Return the record of a file as bytes, as `cut_records` does for a line of a manifest."""
    sha256 = f'"{record.sha256}"' if record.sha256 else "null"
    md5 = f'"{record.md5}"' if record.md5 else "null"
    packed = "" if record.packed_size is None else f',"packed":{record.packed_size}'
    return f'{_ENCODER.encode(name)[1:]},"size":{record.size},"sha256":{sha256},"md5":{md5}{packed}'.encode()


def make_stored_record(stored: StoredFile) -> bytes:
    """Return the record of a stored file as bytes."""
    blob = stored.blob
    packed_size = None if stored.unpacked is None else blob.size
    md5 = blob.md5.hex() if blob.md5 is not None else ""
    return make_record(blob.name, FileRecord(stored.size, stored.sha256.hex(), md5, packed_size))


def parse_record(rest: bytes) -> FileRecord:
    """Parse the part of a record after `NAME_END`."""
    match = _PARTS.fullmatch(rest)
    assert match is not None, "records are always written in one form"
    size, sha256, md5, packed_size = match.groups(b"")
    return FileRecord(int(size), sha256.decode(), md5.decode(), int(packed_size) if packed_size else None)


def parse_name(name: bytes) -> str:
    """Return the name that a record begins with."""
    text: str = json.loads(b'"' + name + b'"') if b"\\" in name else name.decode()
    return text


def is_same_content(a: FileRecord, b: FileRecord) -> bool:
    """Return whether two files have the same content, as far as their digests prove it.

    If one of them has no SHA-256, or is stored unpacked while the other is not, the MD5 of the bytes in the container
    decides, together with their size.
    """
    if a.sha256 and b.sha256 and (a.packed_size is None) is (b.packed_size is None):
        return a.sha256 == b.sha256
    return a.md5 != "" and content_in_container(a) == content_in_container(b)


def content_in_container(record: FileRecord) -> tuple[str, int]:
    """Return the MD5 and the size of a file's bytes in its container."""
    return record.md5, record.size if record.packed_size is None else record.packed_size


def cut_records(lines: bytes) -> list[bytes]:
    """Return the record of each of some whole lines. Raises KeyError or ValueError for a line that is damaged."""
    if not lines.isascii():
        lines.decode()  # raises UnicodeDecodeError, a ValueError
    records: list[bytes] = _LINE.findall(lines)
    if len(records) != lines.count(b"\n") + 1 or _UNPACKED_MARK in lines:
        return [_parse_line(line) for line in lines.split(b"\n")]
    if b"\\" in lines and any(
        b"\\" in each for each in records
    ):  # perhaps another program escaped letters that tilesync does not
        return [_encode_again(each) if b"\\" in each else each for each in records]
    return records


def _parse_line(line: bytes) -> bytes:
    return make_stored_record(read_line(parse_json(line)))


def _encode_again(record: bytes) -> bytes:
    name, end, rest = record.partition(NAME_END)
    text = parse_json(b'"' + name + b'"')
    text.encode()  # a lone surrogate is damage
    encoded: str = _ENCODER.encode(text)
    return encoded[1:-1].encode() + end + rest
