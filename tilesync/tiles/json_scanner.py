"""A JSON object read as a stream: what stands at the places that a table names, with its position in the document.

Strict (RFC 8259), in bounded memory, without recursion: the input is untrusted, and may be larger than the memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

DEEPEST: Final = 20_000
"""Brackets within brackets at most; a level of tiles has two."""

LONGEST: Final = 1 << 16
"""Bytes that are told of a text; what is longer can only be a `data:` URI."""

_STALLED: Final = 1 << 20
"""Bytes that no token needs, but for a long text or an array; one that does is refused however it is cut."""

# What repeats possessively is an atomic group, `(?>…)*+`: of `(?:…)*+` Python before 3.11.5 takes in half a repetition
# that fails (python/cpython#106052), so that `[1,]` and `1.` would pass.
_WS = rb"[ \t\n\r]*+"
_BODY = rb'(?>[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+'
_TEXT = rb'"(' + _BODY + rb')"'
_NUMBER = rb"-?(?:0|[1-9][0-9]*+)(?>\.[0-9]++)?+(?>[eE][+-]?[0-9]++)?+"
_NUMBERS = rb"\[" + _WS + rb"(?>" + _NUMBER + _WS + rb"(?>," + _WS + _NUMBER + _WS + rb")*+)?+\]"
_BOX = rb"\{" + _WS + rb'"[a-z]*+"' + _WS + rb":" + _WS + _NUMBERS + _WS + rb"\}"
_FLAT_VALUE = rb"(" + _NUMBER + rb"(?![-+.0-9eE])|true|false|null)|(" + _NUMBERS + rb"|" + _BOX + rb")"
_VALUE = rb"(?:" + _FLAT_VALUE + rb"|" + _TEXT + rb"|(\{)|(\[))"
_NAME = _TEXT + _WS + rb":" + _WS

_CLOSED, _KEY, _FLAT, _PACK, _STRING, _OBJECT, _ARRAY = range(1, 8)
"""Groups of a token. An array of numbers and a bounding volume are one token too, a pack, where that is no loss."""


class _State(NamedTuple):
    """What may come next; `long` is the beginning of a text too long to be one token."""

    token: re.Pattern[bytes]
    long: re.Pattern[bytes]


def _state(end: bytes, comma: bytes, name: bytes) -> _State:
    lead = _WS + comma + name
    return _State(re.compile(_WS + end + rb"|" + lead + _VALUE), re.compile(lead.replace(end, b"") + rb'()"'))


_FIRST_MEMBER = _state(rb"(\})", _WS, _NAME)
_NEXT_MEMBER = _state(rb"(\})", rb"," + _WS, _NAME)
_FIRST_ITEM = _state(rb"(\])", _WS, rb"()")
_NEXT_ITEM = _state(rb"(\])", rb"," + _WS, rb"()")

BOM: Final = b"\xef\xbb\xbf"
_BEGINNING = re.compile(rb"(?:" + BOM + rb")?" + _WS + rb"(\{)")
_BEFORE = re.compile(rb"\xef?|\xef\xbb|(?:" + BOM + rb")?" + _WS)
_LONG_BODY = re.compile(_BODY)
_PADDING = b" \t\n\r\0"
_BRACE = ord("{")


class Malformed(ValueError):
    """The document is no JSON object, or one that cannot be followed; `str()` is a sentence."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A place whose value is told: a text, or where not `text` a number or literal. An object is read as `inside`."""

    role: str
    inside: Node
    text: bool = True

    @property
    def scope(self) -> str:
        """The scope of an object there."""
        return self.inside.scope


class Node(dict[bytes, "Node | Leaf"]):
    """What an object holds, by key; an array holds its items under the key `b""`. All other keys lead to `other`.

    `scope` names objects whose beginning and end are told.
    """

    def __init__(
        self,
        members: Mapping[str, Node | Leaf] = {},
        *,
        other: Node | None = None,
        scope: str = "",
    ) -> None:
        super().__init__({key.encode(): value for key, value in members.items()})
        self.other = self if other is None else other
        self.scope = scope

    def __missing__(self, key: bytes) -> Node | Leaf:
        return self.other


class Hearer(Protocol):
    """Hears what a scanner finds, in the order of the document."""

    def text(self, leaf: Leaf, text: str, start: int, end: int) -> None:
        """A text at a leaf; its raw bytes lie from `start` to `end`, half-open. Cut at LONGEST bytes."""

    def value(self, leaf: Leaf, raw: bytes) -> None:
        """A number or literal at a leaf that is no text."""

    def enter(self, scope: str) -> None:
        """An object with a scope begins."""

    def leave(self, scope: str) -> None:
        """It ends."""


class Scanner:
    """Reads one document, fed in pieces. `feed` and `finish` raise Malformed.

    `position` is how far the document has been read: every place before it has been told. `padded`: NULs stand behind
    the object, as some writers pad.
    """

    def __init__(self, table: Node, hearer: Hearer) -> None:
        self._hearer = hearer
        self._buffer = b""
        self._stack: list[tuple[Node, bool, bytes]] = []
        self._place = (table, True, b"")
        self._state: _State | None = None
        self._long: tuple[Leaf | Node, int, bytes] | None = None
        self._ended = False
        self.position = 0
        self.padded = False

    def feed(self, data: bytes) -> None:
        """Read on."""
        self._buffer += data
        self._advance(final=False)

    def finish(self) -> None:
        """No more comes. Raises Malformed when the object is not whole."""
        self._advance(final=True)
        if not self._ended:
            raise Malformed(f"its JSON is cut off, or broken, at byte {self.position}")

    @property
    def depth(self) -> int:
        """How many objects and arrays are open around the innermost one."""
        return len(self._stack)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that lead to the innermost open object or array; an item of an array has the empty key."""
        return tuple(key.decode(errors="replace") for _, _, key in (*self._stack[1:], self._place)[: len(self._stack)])

    def _advance(self, *, final: bool) -> None:
        if self._state is None and not self._begin():
            return
        while not self._ended:
            if self._long is not None and not self._read_long():
                return
            self._skip(self._read(final=final))
            if self._ended or not self._begin_long():
                break
        if self._ended:
            self._read_padding()

    def _skip(self, count: int) -> None:
        self._buffer = self._buffer[count:]
        self.position += count

    def _begin(self) -> bool:
        found = _BEGINNING.match(self._buffer)
        if found is None and _BEFORE.fullmatch(self._buffer) and len(self._buffer) <= _STALLED:
            return False
        if found is None or found.start(1) > _STALLED:
            raise Malformed("it is no JSON object")
        self._state = _FIRST_MEMBER
        self._skip(found.end())
        if self._place[0].scope:
            self._hearer.enter(self._place[0].scope)
        return True

    def _read(self, *, final: bool) -> int:
        """Read every whole token of the buffer; how many bytes those were."""
        buffer, size, pos = self._buffer, len(self._buffer), 0
        node, in_object, name = self._place
        state = self._state
        assert state is not None
        match = state.token.match
        while (found := match(buffer, pos)) is not None:
            end, kind = found.end(), found.lastindex
            if end - pos > _STALLED:
                self._refuse_stall(found, pos)
            if kind == _CLOSED:
                if in_object and node.scope:
                    self._place = node, in_object, name
                    self._hearer.leave(node.scope)
                if not self._stack:
                    self._ended = True
                    return end
                node, in_object, name = self._stack.pop()
            else:
                if end == size and kind == _FLAT and not final:
                    break
                key = found[_KEY]
                if b"\\" in key:
                    key = _unescaped(key).encode(errors="replace")
                if kind == _PACK and self._unpacks(found, node[key]):
                    end = found.start(_PACK) + 1
                    kind = _OBJECT if buffer[end - 1] == _BRACE else _ARRAY
                if kind == _FLAT:
                    if node and (child := node.get(key)).__class__ is Leaf and not child.text:
                        self._hearer.value(child, found[_FLAT])
                elif kind == _STRING:
                    child = node[key]
                    if child.__class__ is Leaf:
                        self._place = node, in_object, name
                        start = self.position + found.start(_STRING)
                        self._hearer.text(child, _told(found[_STRING]), start, self.position + end - 1)
                elif kind != _PACK:
                    if len(self._stack) >= DEEPEST:
                        raise Malformed(f"it is nested deeper than {DEEPEST:,} brackets")
                    self._stack.append((node, in_object, name))
                    child = node[key]
                    node, in_object, name = (child.inside if isinstance(child, Leaf) else child), kind == _OBJECT, key
                    if in_object and node.scope:
                        self._place = node, in_object, name
                        self._hearer.enter(node.scope)
                    state = _FIRST_MEMBER if in_object else _FIRST_ITEM
                    match, pos = state.token.match, end
                    continue
            state = _NEXT_MEMBER if in_object else _NEXT_ITEM
            match, pos = state.token.match, end
        self._place, self._state = (node, in_object, name), state
        return pos

    def _unpacks(self, found: re.Match[bytes], child: Node | Leaf) -> bool:
        """Whether a pack is to be read bracket by bracket: it is deep or long, or its object has a scope."""
        start, end = found.span(_PACK)
        box = found.string[start] == _BRACE
        return len(self._stack) + box >= DEEPEST or end - start > _STALLED or (box and bool(child.scope))

    def _refuse_stall(self, found: re.Match[bytes], pos: int) -> None:
        """Refuse a token that could not be told for too long, had it come in small pieces."""
        kind = found.lastindex
        assert kind is not None
        known = found.end() if kind == _FLAT else found.start(kind) - (kind == _STRING)
        if known - pos > _STALLED:
            raise Malformed(f"its JSON is broken at byte {self.position + pos}")

    # --- texts that are longer than a token may be ---

    def _begin_long(self) -> bool:
        """Whether a long text begins here."""
        if len(self._buffer) <= LONGEST:
            return False
        assert self._state is not None
        found = self._state.long.match(self._buffer)
        stalled = len(self._buffer) if found is None else found.end() - 1
        if stalled > _STALLED:
            raise Malformed(f"its JSON is broken at byte {self.position}")
        if found is None or len(self._buffer) - found.end() <= LONGEST:
            return False
        key = _unescaped(found[1]).encode(errors="replace") if found[1] else b""
        self._skip(found.end())
        self._long = self._place[0][key], self.position, b""
        return True

    def _read_long(self) -> bool:
        """Read on in a long text; whether it ended."""
        assert self._long is not None
        child, start, kept = self._long
        found = _LONG_BODY.match(self._buffer)
        assert found is not None
        kept += self._buffer[: min(found.end(), LONGEST - len(kept))]
        self._skip(found.end())
        self._long = child, start, kept
        if not self._buffer.startswith(b'"'):
            if len(self._buffer) >= 6 or self._buffer[:1] not in {b"", b"\\"}:
                raise Malformed(f"its JSON is broken at byte {self.position}")
            return False
        if isinstance(child, Leaf):
            self._hearer.text(child, _told(kept), start, self.position)
        self._skip(1)
        self._long = None
        self._state = _NEXT_MEMBER if self._place[1] else _NEXT_ITEM
        return True

    def _read_padding(self) -> None:
        if self._buffer.strip(_PADDING):
            raise Malformed("something stands behind its JSON object")
        self.padded = self.padded or b"\0" in self._buffer
        self._skip(len(self._buffer))


def _told(raw: bytes) -> str:
    """What a JSON string says in its first LONGEST bytes."""
    if len(raw) >= LONGEST:
        whole = _LONG_BODY.match(raw[:LONGEST])  # not half an escape
        assert whole is not None
        raw = whole[0]
    return _unescaped(raw)


def _unescaped(raw: bytes) -> str:
    """The text that a JSON string says; bytes that are no UTF-8 become U+FFFD, as in every viewer."""
    if b"\\" not in raw:
        return raw.decode(errors="replace")
    text: str = json.loads(b'"' + raw.decode(errors="replace").encode() + b'"')
    return text
