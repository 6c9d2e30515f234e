"""Facts that a manifest states, in little memory: types and encodings of an ending, with exceptions; hidden names."""

from __future__ import annotations

import json
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final, NamedTuple

from tilesync.core.foreign_json import parse_json, read_mapping
from tilesync.serving.name_set import NameSet

_TEXT = rb'"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"'
_OPTIONAL_TEXT = rb'(null|"[^"\\\n]*+")'
_LINE: Final = re.compile(
    rb'^\{"name":"([^"\\\n]*+)","size":[0-9]++,"sha256":[^\n:]++:[^\n:]++:' + _TEXT  # the ETag
    + rb',"content_type":' + _OPTIONAL_TEXT + rb',"content_encoding":' + _OPTIONAL_TEXT + rb',"last_modified":',
    re.MULTILINE,
)  # fmt: skip
"""Name, type and encoding in a line as tilesync writes it, unless its name has an escaped character."""

_StatedJson = tuple[bytes, bytes]
"""Type and encoding as JSON. Millions of files have few of them, so each is parsed once."""


class StatedType(NamedTuple):
    """Media type and encoding of a file as its container states them; None for what it does not."""

    content_type: str | None = None
    content_encoding: str | None = None


def is_hidden(name: str) -> bool:
    """Return whether a segment of a name begins with a dot."""
    return name.startswith(".") or "/." in name


class StatedTypes:
    """Stated types of the files of a version. `hidden_names`: its names that are hidden. `names`: all, if wanted.

    Each ending has the type that most of its files have. Of each file with another one, eight bytes are kept.
    """

    def __init__(self, pieces: Iterable[bytes], *, with_names: bool = False) -> None:
        """Read them from the lines of files of a manifest, in pieces. Raises ValueError for a damaged line."""
        self._digests: dict[bytes, dict[_StatedJson, array[int]]] = {}
        self._hidden = set[bytes]()
        names = chain.from_iterable(map(self._read_piece, pieces))
        self.names = NameSet(names if with_names else ())
        for _ in names:  # read on, without keeping names
            pass
        self.hidden_names = frozenset(name.decode(errors="surrogatepass") for name in self._hidden)
        self._by_ending = {ending: _find_rule(found) for ending, found in self._digests.items()}
        del self._digests

    def _read_piece(self, piece: bytes) -> Iterator[bytes]:
        """Read the types of the lines of a piece, and yield their names."""
        rows = _LINE.findall(piece)
        if len(rows) != piece.count(b"\n") + 1:
            rows = list(map(_parse_line, piece.split(b"\n")))
        digests = self._digests
        for name, content_type, content_encoding in rows:
            found = digests.setdefault(_find_ending(name), {})
            stated = content_type, content_encoding
            if stated not in found:
                found[stated] = array("q")
            found[stated].append(hash(name))
            if name.startswith(b".") or b"/." in name:
                self._hidden.add(name)
            yield name

    def find(self, name: str) -> StatedType:
        """Return the stated type of a file."""
        encoded = name.encode(errors="surrogatepass")
        rule = self._by_ending.get(_find_ending(encoded))
        return StatedType() if rule is None else rule.find(encoded)


class _EndingRule(NamedTuple):
    """Stated type of an ending, and the sorted digests of the names that have another one."""

    stated: StatedType
    exceptions: dict[StatedType, array[int]]

    def find(self, name: bytes) -> StatedType:
        digest = hash(name)
        for stated, digests in self.exceptions.items():
            position = bisect_left(digests, digest)
            if position < len(digests) and digests[position] == digest:
                return stated
        return self.stated


def _find_rule(digests: dict[_StatedJson, array[int]]) -> _EndingRule:
    """Return the rule of an ending from the digests of the names of each stated type."""
    most = max(digests, key=lambda stated: len(digests[stated]))
    exceptions = {_parse_stated(each): array("q", sorted(found)) for each, found in digests.items() if each != most}
    return _EndingRule(_parse_stated(most), exceptions)


def _parse_line(line: bytes) -> tuple[bytes, bytes, bytes]:
    """Return name, type and encoding of a line that another program may have written."""
    document = read_mapping(parse_json(line))
    name = str(document.get("name", "")).encode(errors="surrogatepass")
    content_type, encoding = (json.dumps(document.get(key)).encode() for key in ("content_type", "content_encoding"))
    return name, content_type, encoding


def _parse_stated(stated: _StatedJson) -> StatedType:
    return StatedType(*(_read_value(json.loads(each)) for each in stated))


def _find_ending(name: bytes) -> bytes:
    """Return the ending of a name in lower case, from the last dot on; empty if its last part has none."""
    position = name.rfind(b".", name.rfind(b"/") + 1)
    return name[position:].lower() if position >= 0 else b""


def _read_value(value: object) -> str | None:
    """Return a value that is valid in a header, else None: other programs may write manifests."""
    return value if isinstance(value, str) and value and value.isascii() and value.isprintable() else None
