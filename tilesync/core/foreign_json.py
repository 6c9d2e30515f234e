"""Foreign JSON: the one door for documents that others wrote, or could have changed, and readers for their fields.

`loads` gives plain values that everything behind it can carry: no NaN, no infinity, no lone surrogate (which neither
UTF-8 nor the catalog can hold), no depth that a recursive function could not follow. A reader gives a value of the type
that was expected, and raises ValueError for any other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, NoReturn, TypeVar

T = TypeVar("T")

MAX_NESTING: Final = 32
"""Objects and lists within one another, at most; those that are read here have five."""

MAX_DOCUMENT_BYTES: Final = 64 << 20
"""Bytes of a document, or of a line of a manifest, at most: the first line may name a million missing files."""

MAX_INTEGER: Final = (1 << 63) - 1
"""The catalog keeps whole numbers of 64 bits, signed."""

VALID_EPOCH_SECONDS: Final = range(0, 7258118400)
"""Seconds since the epoch that a date of others may have: from 1970 to the end of 2199. File systems and catalogs end
in 2262 at the latest; a date outside is a mistake of whoever stated it.
"""


def parse_json(data: bytes | str, *, max_bytes: int = MAX_DOCUMENT_BYTES) -> Any:
    """The value that a document holds. Raises ValueError for one that is too large, too deep, or no JSON."""
    if len(data) > max_bytes:
        raise ValueError(f"it has over {max_bytes:,} bytes")
    text = data if isinstance(data, str) else data.decode("utf-8-sig")
    try:
        said = _DECODER.decode(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP_MESSAGE) from None
    if text.count("[") + text.count("{") > MAX_NESTING and _nesting_depth(said) > MAX_NESTING:
        raise ValueError(_TOO_DEEP_MESSAGE)
    if "\\u" in text or not isinstance(data, bytes):
        _check_surrogates(said)
    return said


_TOO_DEEP_MESSAGE: Final = f"it is nested more than {MAX_NESTING} deep"


def _reject_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _parse_finite_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is too large a number")
    return number


_DECODER: Final = json.JSONDecoder(parse_constant=_reject_constant, parse_float=_parse_finite_float)


def _nesting_depth(value: Any) -> int:
    """How deep a value is nested; told without recursion."""
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    return depth


def _check_surrogates(value: Any) -> None:
    """Raise ValueError where a text holds half of a surrogate pair: UnicodeEncodeError is one."""
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, str):
            each.encode()
        elif isinstance(each, dict):
            left += (*each, *each.values())
        elif isinstance(each, list):
            left += each


# --- readers: the value, or ValueError ---


def read_mapping(value: Any) -> Mapping[str, Any]:
    """An object."""
    if not isinstance(value, dict):
        raise ValueError(f"{_describe_value(value)} is no object")
    return value


def read_text(value: Any) -> str:
    """A text."""
    if not isinstance(value, str):
        raise ValueError(f"{_describe_value(value)} is no text")
    return value


def read_count(value: Any) -> int:
    """A whole number that is not negative and that the catalog can keep; a float that is whole is one."""
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole or not 0 <= value <= MAX_INTEGER:
        raise ValueError(f"{_describe_value(value)} is no count")
    return int(value)


def read_number(value: Any) -> int | float:
    """A number that JSON, and what reads it elsewhere, can carry."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAX_INTEGER:
        raise ValueError(f"{_describe_value(value)} is no number")
    return value


def read_timestamp(value: Any) -> str:
    """A moment as tilesync writes it, or as ISO 8601 allows, with its zone."""
    if datetime.fromisoformat(read_text(value)).tzinfo is None:
        raise ValueError(f"{_describe_value(value)} tells no zone")
    return read_text(value)


def read_texts(value: Any) -> tuple[str, ...]:
    """A list of texts."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"{_describe_value(value)} is no list")
    return tuple(map(read_text, value))


def read_digest(value: Any, size: int) -> bytes:
    """So many bytes in hexadecimal."""
    data = bytes.fromhex(read_text(value))
    if len(data) != size:
        raise ValueError(f"{_describe_value(value)} is no digest of {size} bytes")
    return data


def read_optional(value: Any, read: Callable[[Any], T]) -> T | None:
    """What a reader gives; None where nothing is said."""
    return None if value is None else read(value)


def read_or_default(value: Any, read: Callable[[Any], T], default: T) -> T:
    """What a reader gives, or the default where that is something else."""
    try:
        return read(value)
    except ValueError:
        return default


def _describe_value(value: Any) -> str:
    """A few letters of a value, for a message."""
    if isinstance(value, dict | list):
        return f"a {'list' if isinstance(value, list) else 'mapping'} of {len(value)}"
    return ascii(value)[:40]
