"""Facts of a file: its name, size and digests, cut out of a line of a manifest without parsing the line.

Manifests have millions of lines, and almost all are the same on both sides except for their ETag and time. So the facts
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
"""Bytes between the name and the other facts. A name cannot contain them: JSON escapes its quotation marks."""

_NAME = rb'[^"\\\n]*+(?:\\.[^"\\\n]*+)*+'
_REST = rb'[0-9]++,"sha256":(?:null|"[0-9a-f]{64}"),(?:"proof":"[a-z0-9-]++",)?"md5":(?:null|"[0-9a-f]{32}")'
_LINE = re.compile(rb'^\{"name":"(' + _NAME + NAME_END + _REST + rb'),"etag":[^\n]*+(?<=\})(?:\n|\Z)', re.MULTILINE)
"""A line as tilesync writes it, not cut off. It consumes the line, so that the search goes on at the next one."""

_PARTS = re.compile(
    rb'([0-9]++),"sha256":(?:null|"([0-9a-f]{64})"),(?:"proof":"[a-z0-9-]++",)?"md5":(?:null|"([0-9a-f]{32})")'
    rb'(?:,"packed":([0-9]++))?'
)
_UNPACKED_MARK = b',"stored":{'
_ENCODER = json.JSONEncoder(ensure_ascii=False)


class ContentFacts(NamedTuple):
    """Parsed facts of a file, without its name: digests in hexadecimal, empty if unknown.

    `packed_size`: size of the bytes in the container, to which the MD5 belongs, if the file is stored unpacked.
    """

    size: int
    sha256: str
    md5: str
    packed_size: int | None = None


def make_facts(name: str, facts: ContentFacts) -> bytes:
    """Return the facts of a file as bytes, as `cut_facts` does for a line of a manifest."""
    sha256 = f'"{facts.sha256}"' if facts.sha256 else "null"
    md5 = f'"{facts.md5}"' if facts.md5 else "null"
    packed = "" if facts.packed_size is None else f',"packed":{facts.packed_size}'
    return f'{_ENCODER.encode(name)[1:]},"size":{facts.size},"sha256":{sha256},"md5":{md5}{packed}'.encode()


def make_stored_facts(stored: StoredFile) -> bytes:
    """Return the facts of a stored file as bytes."""
    blob = stored.blob
    packed_size = None if stored.unpacked is None else blob.size
    md5 = blob.md5.hex() if blob.md5 is not None else ""
    return make_facts(blob.name, ContentFacts(stored.size, stored.sha256.hex(), md5, packed_size))


def parse_facts(rest: bytes) -> ContentFacts:
    """Parse the part of the facts after `NAME_END`."""
    match = _PARTS.fullmatch(rest)
    assert match is not None, "facts are always written in one form"
    size, sha256, md5, packed_size = match.groups(b"")
    return ContentFacts(int(size), sha256.decode(), md5.decode(), int(packed_size) if packed_size else None)


def parse_name(name: bytes) -> str:
    """Return the name that facts begin with."""
    text: str = json.loads(b'"' + name + b'"') if b"\\" in name else name.decode()
    return text


def is_same_content(a: ContentFacts, b: ContentFacts) -> bool:
    """Return whether two files have the same content, as far as their digests prove it.

    If one of them has no SHA-256, or is stored unpacked while the other is not, the MD5 of the bytes in the container
    decides, together with their size.
    """
    if a.sha256 and b.sha256 and (a.packed_size is None) is (b.packed_size is None):
        return a.sha256 == b.sha256
    return a.md5 != "" and content_in_container(a) == content_in_container(b)


def content_in_container(facts: ContentFacts) -> tuple[str, int]:
    """Return the MD5 and the size of a file's bytes in its container."""
    return facts.md5, facts.size if facts.packed_size is None else facts.packed_size


def cut_facts(lines: bytes) -> list[bytes]:
    """Return the facts of each of some whole lines. Raises KeyError or ValueError for a line that is damaged."""
    facts: list[bytes] = _LINE.findall(lines)
    if len(facts) != lines.count(b"\n") + 1 or _UNPACKED_MARK in lines:
        return [_parse_line(line) for line in lines.split(b"\n")]
    if b"\\" in lines and any(
        b"\\" in each for each in facts
    ):  # perhaps another program escaped letters that tilesync does not
        return [_encode_again(each) if b"\\" in each else each for each in facts]
    return facts


def _parse_line(line: bytes) -> bytes:
    return make_stored_facts(read_line(parse_json(line)))


def _encode_again(facts: bytes) -> bytes:
    name, end, rest = facts.partition(NAME_END)
    text = parse_json(b'"' + name + b'"')
    text.encode()  # a lone surrogate is damage
    encoded: str = _ENCODER.encode(text)
    return encoded[1:-1].encode() + end + rest
