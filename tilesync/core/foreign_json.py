"""Untrusted JSON: checked parsing of documents that others wrote or could have changed, and readers for their fields.

`parse_json` returns values that all later code can handle: no NaN, no infinity, no lone surrogate (which neither UTF-8
nor the catalog can store; it is refused or replaced), no nesting too deep for a recursive function. A reader returns a
value of the expected type and raises ValueError for any other.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, NoReturn, TypeVar

T = TypeVar("T")

MAX_NESTING: Final = 32
"""Maximum depth of nested objects and lists; expected documents have five."""

MAX_DOCUMENT_BYTES: Final = 64 << 20
"""Maximum bytes of a document, or of a line of a manifest: its first line may name a million missing files."""

MAX_INTEGER: Final = (1 << 63) - 1
"""Largest integer of the catalog: 64 bits, signed."""

VALID_EPOCH_SECONDS: Final = range(0, 7258118400)
"""Seconds since the epoch that a foreign date may have: from 1970 to the end of 2199.

File systems and catalogs end in 2262 at the latest; a date outside this range is an error of its author.
"""


def parse_json(data: bytes | str, *, max_bytes: int = MAX_DOCUMENT_BYTES, replace_surrogates: bool = False) -> Any:
    """Parse a document. Raises ValueError if it is too large, too deeply nested, or not JSON.

    A text with half of a surrogate pair is refused too; with `replace_surrogates` the half becomes U+FFFD.
    """
    if len(data) > max_bytes:
        raise ValueError(f"it has more than {max_bytes:,} bytes")
    text = data if isinstance(data, str) else data.decode("utf-8-sig")
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP_MESSAGE) from None
    if text.count("[") + text.count("{") > MAX_NESTING and _nesting_depth(value) > MAX_NESTING:
        raise ValueError(_TOO_DEEP_MESSAGE)
    if "\\u" in text or not isinstance(data, bytes):
        if replace_surrogates:
            return _replace_surrogates(value)
        _check_surrogates(value)
    return value


_TOO_DEEP_MESSAGE: Final = f"it is nested more than {MAX_NESTING} deep"


def _reject_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number in JSON")


def _parse_finite_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is too large for a number")
    return number


_DECODER: Final = json.JSONDecoder(parse_constant=_reject_constant, parse_float=_parse_finite_float)


def _nesting_depth(value: Any) -> int:
    """Return the nesting depth of a value, computed without recursion."""
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    return depth


def _check_surrogates(value: Any) -> None:
    """Raise ValueError if a text has half of a surrogate pair (UnicodeEncodeError is a ValueError)."""
    unchecked = [value]
    while unchecked:
        each = unchecked.pop()
        if isinstance(each, str):
            each.encode()
        elif isinstance(each, dict):
            unchecked += (*each, *each.values())
        elif isinstance(each, list):
            unchecked += each


def _replace_surrogates(value: Any) -> Any:
    """Return a value, nested no deeper than MAX_NESTING, with U+FFFD for each half of a surrogate pair."""
    if isinstance(value, str):
        return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, dict):
        return {_replace_surrogates(name): _replace_surrogates(inner) for name, inner in value.items()}
    return [_replace_surrogates(inner) for inner in value] if isinstance(value, list) else value


_SURROGATE: Final = re.compile("[\ud800-\udfff]")


# --- field readers: return the value or raise ValueError ---


def read_mapping(value: Any) -> Mapping[str, Any]:
    """Return an object."""
    if not isinstance(value, dict):
        raise ValueError(f"{_describe_value(value)} is not an object")
    return value


def read_text(value: Any) -> str:
    """Return a text."""
    if not isinstance(value, str):
        raise ValueError(f"{_describe_value(value)} is not a text")
    return value


def read_count(value: Any) -> int:
    """Return a non-negative integer that the catalog can store; a float without fraction counts as one."""
    is_integer = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not is_integer or not 0 <= value <= MAX_INTEGER:
        raise ValueError(f"{_describe_value(value)} is not a count")
    return int(value)


def read_number(value: Any) -> int | float:
    """Return a number that JSON and its other readers can represent."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAX_INTEGER:
        raise ValueError(f"{_describe_value(value)} is not a number")
    return value


def read_timestamp(value: Any) -> str:
    """Return a time with a time zone, as tilesync writes it or as ISO 8601 allows."""
    if datetime.fromisoformat(read_text(value)).tzinfo is None:
        raise ValueError(f"{_describe_value(value)} has no time zone")
    return read_text(value)


def read_texts(value: Any) -> tuple[str, ...]:
    """Return a list of texts as a tuple."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"{_describe_value(value)} is not a list")
    return tuple(map(read_text, value))


def read_digest(value: Any, size: int) -> bytes:
    """Return `size` bytes from their hexadecimal form."""
    data = bytes.fromhex(read_text(value))
    if len(data) != size:
        raise ValueError(f"{_describe_value(value)} is not a digest of {size} bytes")
    return data


def read_optional(value: Any, read: Callable[[Any], T]) -> T | None:
    """Return the result of `read`, or None for null."""
    return None if value is None else read(value)


def read_or_default(value: Any, read: Callable[[Any], T], default: T) -> T:
    """Return the result of `read`, or the default if it raises ValueError."""
    try:
        return read(value)
    except ValueError:
        return default


def _describe_value(value: Any) -> str:
    """Return a few characters of a value, for a message."""
    if isinstance(value, dict | list):
        return f"a {'list' if isinstance(value, list) else 'mapping'} of {len(value)}"
    return ascii(value)[:40]
