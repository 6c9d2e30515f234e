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


def select_bytes(facts: FileFacts, headers: Mapping[bytes, bytes], *, method: str = "GET") -> Selection:
    """Return status and bytes: 412 if the client wants another file than this, 304 if it has it already, 206 or 416 for
    one range, else 200. Only GET has ranges.

    `headers`: those of the request, in lower case. Source: RFC 9110, sections 13.2.2 and 14.2.
    """
    if (wanted := headers.get(b"if-match")) is not None and not {"*", facts.etag}.intersection(_split_tags(wanted)):
        return Selection(412, 0, 0)
    if _is_unchanged(facts, headers):
        return Selection(304, 0, 0)
    text = headers.get(b"range")
    if text is None or method != "GET" or not _may_send_range(facts, headers.get(b"if-range")):
        return Selection(200, 0, facts.size)
    return _select_range(text, facts.size)


def _is_unchanged(facts: FileFacts, headers: Mapping[bytes, bytes]) -> bool:
    """Return whether the client has this file. If-Modified-Since counts only without If-None-Match."""
    if (known := headers.get(b"if-none-match")) is not None:
        return is_known(facts.etag, known)
    since = headers.get(b"if-modified-since")
    if since is None or facts.last_modified is None:
        return False
    seconds = _parse_date(since)
    return seconds is not None and facts.last_modified <= seconds


def is_known(etag: str, known: bytes) -> bool:
    """Return whether an If-None-Match has an ETag, weak or strong, or `*`. Source: RFC 9110, section 13.1.2."""
    tags = {tag.removeprefix("W/") for tag in _split_tags(known)}
    return not tags.isdisjoint({"*", etag.removeprefix("W/")})


def _split_tags(text: bytes) -> list[str]:
    """Return the entity tags of a header. Those of this server have no comma."""
    return [tag.strip() for tag in text.decode("latin-1").split(",")]


def _may_send_range(facts: FileFacts, condition: bytes | None) -> bool:
    """Return whether If-Range holds: a strong ETag, or the exact time of the last change."""
    if condition is None:
        return True
    text = condition.decode("latin-1").strip()
    if text.startswith(('"', "W/")):
        return text == facts.etag and not text.startswith("W/")
    return facts.last_modified is not None and _parse_date(condition) == facts.last_modified


def _select_range(text: bytes, size: int) -> Selection:
    match = _RANGE.fullmatch(text.strip())
    if match is None or match.groups() == (b"", b""):
        return Selection(200, 0, size)
    first, last = (_parse_number(digits) if digits else None for digits in match.groups())
    if first is None:
        start, stop = max(0, size - (last or 0)), size
    else:
        start, stop = first, size if last is None else min(last + 1, size)
        if last is not None and last < first:
            return Selection(200, 0, size)
    return Selection(206, start, stop) if start < stop else Selection(416, 0, 0)


def _parse_number(digits: bytes) -> int:
    """Return a number; one that is larger than any file as a smaller one that is so too."""
    return int(digits) if len(digits) <= _MAX_DIGITS else 10**_MAX_DIGITS


def _parse_date(text: bytes) -> int | None:
    try:
        return int(parsedate_to_datetime(text.decode("latin-1").strip()).timestamp())
    except (ValueError, TypeError, OverflowError):
        return None


@lru_cache(4096)
def format_date(seconds: int) -> bytes:
    """Format a time for a header. Source: RFC 9110, section 5.6.7."""
    return formatdate(seconds, usegmt=True).encode()
