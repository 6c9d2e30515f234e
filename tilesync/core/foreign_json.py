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

DEPTH: Final = 32
"""Objects and lists within one another, at most; those that are read here have five."""

DOCUMENT: Final = 64 << 20
"""Bytes of a document, or of a line of a manifest, at most: the first line may name a million missing files."""

COUNT: Final = (1 << 63) - 1
"""The catalog keeps whole numbers of 64 bits, signed."""

DATES: Final = range(0, 7258118400)
"""Seconds since the epoch that a date of others may have: from 1970 to the end of 2199. File systems and catalogs end
in 2262 at the latest; a date outside is a mistake of whoever stated it.
"""


def loads(data: bytes | str, *, most: int = DOCUMENT) -> Any:
    """The value that a document holds. Raises ValueError for one that is too large, too deep, or no JSON."""
    if len(data) > most:
        raise ValueError(f"it has over {most:,} bytes")
    text = data if isinstance(data, str) else data.decode("utf-8-sig")
    try:
        said = _DECODER.decode(text)
    except RecursionError:
        raise ValueError(_DEEP) from None
    if text.count("[") + text.count("{") > DEPTH and _depth(said) > DEPTH:
        raise ValueError(_DEEP)
    if "\\u" in text or not isinstance(data, bytes):
        _check_letters(said)
    return said


_DEEP: Final = f"it is nested more than {DEPTH} deep"


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is too large a number")
    return number


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)


def _depth(said: Any) -> int:
    """How deep a value is nested; told without recursion."""
    depth, level = 0, [said]
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    return depth


def _check_letters(said: Any) -> None:
    """Raise ValueError where a text holds half of a surrogate pair: UnicodeEncodeError is one."""
    left = [said]
    while left:
        each = left.pop()
        if isinstance(each, str):
            each.encode()
        elif isinstance(each, dict):
            left += (*each, *each.values())
        elif isinstance(each, list):
            left += each


# --- readers: the value, or ValueError ---


def mapping(said: Any) -> Mapping[str, Any]:
    """An object."""
    if not isinstance(said, dict):
        raise ValueError(f"{_shown(said)} is no object")
    return said


def text(said: Any) -> str:
    """A text."""
    if not isinstance(said, str):
        raise ValueError(f"{_shown(said)} is no text")
    return said


def count(said: Any) -> int:
    """A whole number that is not negative and that the catalog can keep; a float that is whole is one."""
    whole = isinstance(said, int) or (isinstance(said, float) and said.is_integer())
    if isinstance(said, bool) or not whole or not 0 <= said <= COUNT:
        raise ValueError(f"{_shown(said)} is no count")
    return int(said)


def number(said: Any) -> int | float:
    """A number that JSON, and what reads it elsewhere, can carry."""
    if isinstance(said, bool) or not isinstance(said, int | float) or not abs(said) <= COUNT:
        raise ValueError(f"{_shown(said)} is no number")
    return said


def moment(said: Any) -> str:
    """A moment as tilesync writes it, or as ISO 8601 allows, with its zone."""
    if datetime.fromisoformat(text(said)).tzinfo is None:
        raise ValueError(f"{_shown(said)} tells no zone")
    return text(said)


def texts(said: Any) -> tuple[str, ...]:
    """A list of texts."""
    if not isinstance(said, list | tuple):
        raise ValueError(f"{_shown(said)} is no list")
    return tuple(map(text, said))


def digest(said: Any, size: int) -> bytes:
    """So many bytes in hexadecimal."""
    data = bytes.fromhex(text(said))
    if len(data) != size:
        raise ValueError(f"{_shown(said)} is no digest of {size} bytes")
    return data


def optional(said: Any, read: Callable[[Any], T]) -> T | None:
    """What a reader gives; None where nothing is said."""
    return None if said is None else read(said)


def lenient(said: Any, read: Callable[[Any], T], default: T) -> T:
    """What a reader gives, or the default where that is something else."""
    try:
        return read(said)
    except ValueError:
        return default


def _shown(said: Any) -> str:
    """A few letters of a value, for a message."""
    if isinstance(said, dict | list):
        return f"a {'list' if isinstance(said, list) else 'mapping'} of {len(said)}"
    return ascii(said)[:40]
