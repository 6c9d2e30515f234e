"""Status files: small JSON documents beside the versions. They name the owner, the last successful run, and the process
that holds the lock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from tilesync.core.foreign_json import parse_json, read_mapping

CHECKED_FILE: Final = "checked.json"
OWNERSHIP_FILE: Final = "ownership.json"
MAX_DOCUMENT_BYTES: Final = 1 << 16
"""Maximum bytes of a document; a usual one has a few hundred."""

MAX_HOST_CHARS: Final = 255
"""Maximum characters of a host name. Source: RFC 1035, 2.3.4."""


def parse_document(data: bytes | None) -> Mapping[str, Any] | None:
    """Parse a document; None if it is missing or not a JSON object, since other programs can write to that file."""
    try:
        return read_mapping(parse_json(data, max_bytes=MAX_DOCUMENT_BYTES)) if data is not None else None
    except ValueError:
        return None


def encode_document(content: Mapping[str, Any]) -> bytes:
    """Encode a document as indented JSON, which people can read too."""
    return json.dumps(content, ensure_ascii=False, indent=2).encode() + b"\n"


class LockHolder(NamedTuple):
    """A process, its host, and the time since when it holds the lock (UTC, ISO 8601)."""

    pid: int
    host: str
    since: str

    def to_record(self) -> dict[str, Any]:
        """Convert to a JSON record for other processes."""
        return self._asdict()

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


def parse_holder(record: object) -> LockHolder | None:
    """Parse the record of a lock holder; None if it is not valid, since other programs can write to that file.

    The host and the time are printed in messages, so control characters are refused.
    """
    if not isinstance(record, Mapping):
        return None
    pid, host, since = (record.get(field) for field in LockHolder._fields)
    if not isinstance(pid, int) or not isinstance(host, str) or not isinstance(since, str):
        return None
    are_texts_valid = (
        host and since and (host + since).isprintable() and len(host) <= MAX_HOST_CHARS and len(since) <= len("0" * 40)
    )
    return LockHolder(pid, host, since) if pid > 0 and are_texts_valid else None
