"""Read the log of the service: which requests, how many, and when the last file ended."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs


@dataclass(frozen=True)
class LoggedRequest:
    """Request as nginx logs it: Unix time of the end of its response, method, status, path and query, copy source."""

    end: float
    method: str
    status: int
    url: str
    copy_source: str

    @property
    def path(self) -> str:
        """Path of the URL."""
        return self.url.partition("?")[0]

    def parameter(self, name: str) -> str:
        """Return a parameter of the query; empty if it is not there."""
        return parse_qs(self.url.partition("?")[2]).get(name, [""])[0]


class AccessLog:
    """Log from a position on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._start = 0

    def skip(self) -> None:
        """Leave out what is in the log now."""
        self._start = self._path.stat().st_size

    def read(self) -> Iterator[LoggedRequest]:
        """Return the requests of the log."""
        with self._path.open("rb") as lines:
            lines.seek(self._start)
            for line in lines:
                yield LoggedRequest(**json.loads(line))

    def last_file_at(self) -> float:
        """Return the end of the last response with a file of an export."""
        files = (each for each in self.read() if each.method == "GET" and each.path.startswith("/account/"))
        return max(each.end for each in files if not each.parameter("comp"))

    def count(self, classify: Callable[[LoggedRequest], str | None]) -> Counter[str]:
        """Count the requests by their operation, without those that have none."""
        return Counter(operation for each in self.read() if (operation := classify(each)))
