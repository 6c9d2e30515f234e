"""Conditional requests and ranges: decide the status of a response, and which bytes it has. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import formatdate, parsedate_to_datetime
from functools import lru_cache
from typing import Final, NamedTuple

from tilesync.serving.tilesets import FileFacts

_RANGE: Final = re.compile(rb"bytes=[ \t]*(\d*)-(\d*)[ \t]*", re.IGNORECASE)
"""One range of bytes. Several ranges are ignored, which a server may do. Source: RFC 9110, sections 14.1.2 and 14.2."""

_MAX_DIGITS: Final = 18


class Selection(NamedTuple):
    """Status of a response to GET or HEAD, and the half-open range of bytes of its body."""

    status: int
    start: int
    stop: int


def select_bytes(facts: FileFacts, headers: Mapping[bytes, bytes]) -> Selection:
    """Return status and bytes: 304 if the client has the file already, 206 or 416 for one range, else 200.

    `headers`: those of the request, in lower case. Source: RFC 9110, section 13.2.2.
    """
    if _is_unchanged(facts, headers):
        return Selection(304, 0, 0)
    text = headers.get(b"range")
    if text is None or not _may_send_range(facts, headers.get(b"if-range")):
        return Selection(200, 0, facts.size)
    return _select_range(text, facts.size)


def _is_unchanged(facts: FileFacts, headers: Mapping[bytes, bytes]) -> bool:
    """Return whether the client has this file. If-Modified-Since counts only without If-None-Match."""
    if (known := headers.get(b"if-none-match")) is not None:
        tags = [tag.strip().removeprefix("W/") for tag in known.decode("latin-1").split(",")]
        return facts.etag in tags or "*" in tags
    since = headers.get(b"if-modified-since")
    if since is None or facts.last_modified is None:
        return False
    seconds = _parse_date(since)
    return seconds is not None and facts.last_modified <= seconds


def _may_send_range(facts: FileFacts, condition: bytes | None) -> bool:
    """Return whether If-Range holds: a strong ETag, or the exact time of the last change."""
    if condition is None:
        return True
    text = condition.decode("latin-1").strip()
    if text.startswith(('"', "W/")):
        return text == facts.etag
    return facts.last_modified is not None and _parse_date(condition) == facts.last_modified


def _select_range(text: bytes, size: int) -> Selection:
    match = _RANGE.fullmatch(text.strip())
    if match is None or match.groups() == (b"", b"") or max(map(len, match.groups())) > _MAX_DIGITS:
        return Selection(200, 0, size)
    first, last = match.groups()
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < int(first):
            return Selection(200, 0, size)
    return Selection(206, start, stop) if start < stop else Selection(416, 0, 0)


def _parse_date(text: bytes) -> int | None:
    try:
        return int(parsedate_to_datetime(text.decode("latin-1").strip()).timestamp())
    except (ValueError, TypeError, OverflowError):
        return None


@lru_cache(4096)
def format_date(seconds: int) -> bytes:
    """Format a time for a header. Source: RFC 9110, section 5.6.7."""
    return formatdate(seconds, usegmt=True).encode()
