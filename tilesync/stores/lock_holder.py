"""The process that holds a lock, as it says of itself to those who are kept out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

MAX_HOST_CHARS: Final = 255
"""Characters of a host's name. Source: RFC 1035, 2.3.4."""


class LockHolder(NamedTuple):
    """A process, its host, and since when it holds the lock: UTC, ISO 8601."""

    pid: int
    host: str
    since: str

    def to_record(self) -> dict[str, Any]:
        """What others read."""
        return self._asdict()

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


def parse_holder(record: object) -> LockHolder | None:
    """The process that a record names; None for anything else: others can write there."""
    if not isinstance(record, Mapping):
        return None
    pid, host, since = (record.get(field) for field in LockHolder._fields)
    if not isinstance(pid, int) or not isinstance(host, str) or not isinstance(since, str):
        return None
    texts = (
        host and since and (host + since).isprintable() and len(host) <= MAX_HOST_CHARS and len(since) <= len("0" * 40)
    )
    return LockHolder(pid, host, since) if pid > 0 and texts else None
