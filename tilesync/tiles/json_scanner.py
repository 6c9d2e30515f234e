"""Streaming JSON scanner: reports chosen values of a document, with their byte positions.

A tree of `Node` and `Leaf` chooses the values by their keys. The scanner is strict (RFC 8259), uses bounded memory and
does not recurse: the input is untrusted and may be larger than the memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final, NamedTuple, Protocol

MAX_NESTING_DEPTH: Final = 20_000
"""Maximum nesting of objects and arrays. One level of tiles takes two: the array of children, and a tile in it."""

MAX_STRING_BYTES: Final = 1 << 16
"""Maximum bytes of a string that are reported. Only `data:` URIs are longer, and their end is not needed."""

_MAX_UNPARSED_BYTES: Final = 1 << 20
"""Maximum bytes of one token, unless it is a long string or an array. A longer token is always refused: the result must
not depend on the pieces in which the input arrives.
"""

# Possessive repeats are written as atomic groups, `(?>…)*+`: with `(?:…)*+`, Python before 3.11.5 keeps half of a
# failed repetition (python/cpython#106052), so that `[1,]` and `1.` would pass.
_WS = rb"[ \t\n\r]*+"
_STRING_BODY = rb'(?>[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+'
_QUOTED_STRING = rb'"(' + _STRING_BODY + rb')"'
_NUMBER = rb"-?(?:0|[1-9][0-9]*+)(?>\.[0-9]++)?+(?>[eE][+-]?[0-9]++)?+"
_NUMBER_ARRAY = rb"\[" + _WS + rb"(?>" + _NUMBER + _WS + rb"(?>," + _WS + _NUMBER + _WS + rb")*+)?+\]"
_BOUNDING_VOLUME = rb"\{" + _WS + rb'"[a-z]*+"' + _WS + rb":" + _WS + _NUMBER_ARRAY + _WS + rb"\}"
_SCALAR_OR_COMPACT = (
    rb"(" + _NUMBER + rb"(?![-+.0-9eE])|true|false|null)|(" + _NUMBER_ARRAY + rb"|" + _BOUNDING_VOLUME + rb")"
)
_VALUE = rb"(?:" + _SCALAR_OR_COMPACT + rb"|" + _QUOTED_STRING + rb"|(\{)|(\[))"
_MEMBER_NAME = _QUOTED_STRING + _WS + rb":" + _WS

_END_GROUP, _KEY_GROUP, _SCALAR_GROUP, _COMPACT_GROUP, _STRING_GROUP, _OBJECT_GROUP, _ARRAY_GROUP = range(1, 8)
"""Groups of the token pattern.

A compact token is a whole array of numbers, or a whole bounding volume. It is read at once if it has nothing to report.
"""


class _ParserState(NamedTuple):
    """Patterns of the next token. `long_string` matches the start of a string that is too long for one token."""

    token: re.Pattern[bytes]
    long_string: re.Pattern[bytes]


class _ParserStates(NamedTuple):
    """The four states: before a member or an item, the first or a later one."""

    first_member: _ParserState
    next_member: _ParserState
    first_item: _ParserState
    next_item: _ParserState


@cache
def _compile_states() -> _ParserStates:
    """Compile the patterns when the first document is scanned: an unchanged run scans none."""
    return _ParserStates(
        _compile_state(rb"(\})", _WS, _MEMBER_NAME),
        _compile_state(rb"(\})", rb"," + _WS, _MEMBER_NAME),
        _compile_state(rb"(\])", _WS, rb"()"),
        _compile_state(rb"(\])", rb"," + _WS, rb"()"),
    )


def _compile_state(end: bytes, comma: bytes, name: bytes) -> _ParserState:
    lead = _WS + comma + name
    return _ParserState(re.compile(_WS + end + rb"|" + lead + _VALUE), re.compile(lead.replace(end, b"") + rb'()"'))


BOM: Final = b"\xef\xbb\xbf"
_DOCUMENT_START = re.compile(rb"(?:" + BOM + rb")?" + _WS + rb"(\{)")
_PARTIAL_START = re.compile(rb"\xef?|\xef\xbb|(?:" + BOM + rb")?" + _WS)
_STRING_BODY_PATTERN = re.compile(_STRING_BODY)
_PADDING = b" \t\n\r\0"
_OPEN_BRACE = ord("{")


class MalformedJson(ValueError):
    """The document is not a valid JSON object, or exceeds a limit of the scanner. `str()` is a sentence."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value to report: a string, or a number or literal if `is_string` is false.

    If the value is an object instead, its members are read with `object_node`.
    """

    role: str
    object_node: Node
    is_string: bool = True

    @property
    def scope(self) -> str:
        """Scope of `object_node`."""
        return self.object_node.scope


class Node(dict[bytes, "Node | Leaf"]):
    """Tree node for an object or array: maps each key of interest to the node or leaf of its value.

    All other keys lead to `other`. The items of an array have the key `b""`. The start and end of an object are
    reported if its node has a `scope`, which is a name for such objects.
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


class ScanHandler(Protocol):
    """Callbacks that a scanner calls in document order."""

    def on_string(self, leaf: Leaf, text: str, start: int, end: int) -> None:
        """Handle the string of a leaf, cut at MAX_STRING_BYTES. `start` and `end` (half-open) locate its raw bytes."""

    def on_scalar(self, leaf: Leaf, raw: bytes) -> None:
        """Handle the number or literal of a leaf whose `is_string` is false."""

    def on_object_start(self, scope: str) -> None:
        """Handle the start of an object with a scope."""

    def on_object_end(self, scope: str) -> None:
        """Handle the end of an object with a scope."""


class Scanner:
    """Scanner of one document, fed in pieces. `feed` and `finish` raise MalformedJson.

    `root` is the node of the outermost object. `position`: all values before this byte have been reported. `padded`:
    NULs follow the object, which some writers use as padding.
    """

    def __init__(self, root: Node, handler: ScanHandler) -> None:
        self._handler = handler
        self._buffer = b""
        self._stack: list[tuple[Node, bool, bytes]] = []
        self._current = (root, True, b"")
        self._states = _compile_states()
        self._state: _ParserState | None = None
        self._long_string: tuple[Leaf | Node, int, bytes] | None = None
        self._ended = False
        self.position = 0
        self.padded = False

    def feed(self, data: bytes) -> None:
        """Scan the next bytes."""
        self._buffer += data
        self._advance(final=False)

    def finish(self) -> None:
        """Check that the object is complete. Raises MalformedJson when it is not."""
        self._advance(final=True)
        if not self._ended:
            raise MalformedJson(f"its JSON is cut off, or broken, at byte {self.position}")

    @property
    def depth(self) -> int:
        """Number of objects and arrays that contain the innermost open one."""
        return len(self._stack)

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys on the path to the innermost open object or array; the empty key stands for an item of an array."""
        return tuple(
            key.decode(errors="replace") for _, _, key in (*self._stack[1:], self._current)[: len(self._stack)]
        )

    def _advance(self, *, final: bool) -> None:
        if self._state is None and not self._start_document():
            return
        while not self._ended:
            if self._long_string is not None and not self._read_long_string():
                return
            self._consume(self._read_tokens(final=final))
            if self._ended or not self._begin_long_string():
                break
        if self._ended:
            self._read_padding()

    def _consume(self, count: int) -> None:
        self._buffer = self._buffer[count:]
        self.position += count

    def _start_document(self) -> bool:
        found = _DOCUMENT_START.match(self._buffer)
        if found is None and _PARTIAL_START.fullmatch(self._buffer) and len(self._buffer) <= _MAX_UNPARSED_BYTES:
            return False
        if found is None or found.start(1) > _MAX_UNPARSED_BYTES:
            raise MalformedJson("it is not a JSON object")
        self._state = self._states.first_member
        self._consume(found.end())
        if self._current[0].scope:
            self._handler.on_object_start(self._current[0].scope)
        return True

    def _read_tokens(self, *, final: bool) -> int:
        """Read all complete tokens of the buffer; return the number of their bytes.

        One regular expression per state matches separator, key and value together: a scanner in Python is fast enough
        only with one call per member, not with one per character.
        """
        buffer, size, pos = self._buffer, len(self._buffer), 0
        node, in_object, name = self._current
        first_member, next_member, first_item, next_item = self._states
        state = self._state
        assert state is not None
        match = state.token.match
        while (found := match(buffer, pos)) is not None:
            end, kind = found.end(), found.lastindex
            if end - pos > _MAX_UNPARSED_BYTES:
                self._reject_overlong_token(found, pos)
            if kind == _END_GROUP:
                if in_object and node.scope:
                    self._current = node, in_object, name
                    self._handler.on_object_end(node.scope)
                if not self._stack:
                    self._ended = True
                    return end
                node, in_object, name = self._stack.pop()
            else:
                if end == size and kind == _SCALAR_GROUP and not final:
                    break
                key = found[_KEY_GROUP]
                if b"\\" in key:
                    key = _unescape(key).encode(errors="replace")
                if kind == _COMPACT_GROUP and self._must_descend(found, node[key]):
                    end = found.start(_COMPACT_GROUP) + 1
                    kind = _OBJECT_GROUP if buffer[end - 1] == _OPEN_BRACE else _ARRAY_GROUP
                if kind == _SCALAR_GROUP:
                    if node and (child := node.get(key)).__class__ is Leaf and not child.is_string:
                        self._handler.on_scalar(child, found[_SCALAR_GROUP])
                elif kind == _STRING_GROUP:
                    child = node[key]
                    if child.__class__ is Leaf:
                        self._current = node, in_object, name
                        start = self.position + found.start(_STRING_GROUP)
                        self._handler.on_string(
                            child, _decode_truncated(found[_STRING_GROUP]), start, self.position + end - 1
                        )
                elif kind != _COMPACT_GROUP:
                    if len(self._stack) >= MAX_NESTING_DEPTH:
                        raise MalformedJson(f"it is nested deeper than {MAX_NESTING_DEPTH:,} brackets")
                    self._stack.append((node, in_object, name))
                    child = node[key]
                    node, in_object, name = (
                        (child.object_node if isinstance(child, Leaf) else child),
                        kind == _OBJECT_GROUP,
                        key,
                    )
                    if in_object and node.scope:
                        self._current = node, in_object, name
                        self._handler.on_object_start(node.scope)
                    state = first_member if in_object else first_item
                    match, pos = state.token.match, end
                    continue
            state = next_member if in_object else next_item
            match, pos = state.token.match, end
        self._current, self._state = (node, in_object, name), state
        return pos

    def _must_descend(self, found: re.Match[bytes], child: Node | Leaf) -> bool:
        """Return whether a compact token must be read bracket by bracket, because of its depth, length or scope."""
        start, end = found.span(_COMPACT_GROUP)
        is_object = found.string[start] == _OPEN_BRACE
        return (
            len(self._stack) + is_object >= MAX_NESTING_DEPTH
            or end - start > _MAX_UNPARSED_BYTES
            or (is_object and bool(child.scope))
        )

    def _reject_overlong_token(self, found: re.Match[bytes], pos: int) -> None:
        """Refuse a token that is too long. It matched only because it arrived in one piece.

        A string or compact token may be longer than the limit; what comes before it in the token may not.
        """
        kind = found.lastindex
        assert kind is not None
        limited_end = found.end() if kind == _SCALAR_GROUP else found.start(kind) - (kind == _STRING_GROUP)
        if limited_end - pos > _MAX_UNPARSED_BYTES:
            raise MalformedJson(f"its JSON is broken at byte {self.position + pos}")

    # --- strings longer than one token ---

    def _begin_long_string(self) -> bool:
        """Start reading a long string; return whether one starts here."""
        if len(self._buffer) <= MAX_STRING_BYTES:
            return False
        assert self._state is not None
        found = self._state.long_string.match(self._buffer)
        unparsed_bytes = len(self._buffer) if found is None else found.end() - 1
        if unparsed_bytes > _MAX_UNPARSED_BYTES:
            raise MalformedJson(f"its JSON is broken at byte {self.position}")
        if found is None or len(self._buffer) - found.end() <= MAX_STRING_BYTES:
            return False
        key = _unescape(found[1]).encode(errors="replace") if found[1] else b""
        self._consume(found.end())
        self._long_string = self._current[0][key], self.position, b""
        return True

    def _read_long_string(self) -> bool:
        """Continue a long string; return whether it ended."""
        assert self._long_string is not None
        child, start, kept = self._long_string
        found = _STRING_BODY_PATTERN.match(self._buffer)
        assert found is not None
        kept += self._buffer[: min(found.end(), MAX_STRING_BYTES - len(kept))]
        self._consume(found.end())
        self._long_string = child, start, kept
        if not self._buffer.startswith(b'"'):
            if len(self._buffer) >= 6 or self._buffer[:1] not in {b"", b"\\"}:
                raise MalformedJson(f"its JSON is broken at byte {self.position}")
            return False
        if isinstance(child, Leaf):
            self._handler.on_string(child, _decode_truncated(kept), start, self.position)
        self._consume(1)
        self._long_string = None
        self._state = self._states.next_member if self._current[1] else self._states.next_item
        return True

    def _read_padding(self) -> None:
        if self._buffer.strip(_PADDING):
            raise MalformedJson("data follows its JSON object")
        self.padded = self.padded or b"\0" in self._buffer
        self._consume(len(self._buffer))


def _decode_truncated(raw: bytes) -> str:
    """Decode the first MAX_STRING_BYTES of a JSON string."""
    if len(raw) >= MAX_STRING_BYTES:
        complete = _STRING_BODY_PATTERN.match(raw[:MAX_STRING_BYTES])  # does not end inside an escape
        assert complete is not None
        raw = complete[0]
    return _unescape(raw)


def _unescape(raw: bytes) -> str:
    """Decode a JSON string; invalid UTF-8 becomes U+FFFD, as in every viewer."""
    if b"\\" not in raw:
        return raw.decode(errors="replace")
    text: str = json.loads(b'"' + raw.decode(errors="replace").encode() + b'"')
    return text
