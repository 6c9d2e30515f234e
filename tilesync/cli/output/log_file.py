"""The log file: every event as a JSON line with its time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tilesync.cli.output.atomic_file import open_to_append
from tilesync.errors import UsageError
from tilesync.events import Event


class LogFile:
    """Every event as a JSON line with its time, appended to a file. One that cannot be written any more is warned of
    once, and ends no run.
    """

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self._path = path
        self._warn = warn
        self._has_failed = False
        try:
            self._file = open(open_to_append(path, create=True), "a", encoding="utf-8", buffering=1)  # noqa: SIM115 - closed by `close`
        except OSError as error:
            raise UsageError(
                f"the log file {path} cannot be written ({error.strerror})", hint="check --log-file"
            ) from None

    def __call__(self, event: Event) -> None:
        """Write it down."""
        self.write({"kind": event.kind, **asdict(event)})

    def write(self, line: dict[str, Any]) -> None:
        """One line, with its time."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._warn_on_failure(lambda: self._file.write(json.dumps({"time": now, **line}, ensure_ascii=False) + "\n"))

    def close(self) -> None:
        """Let go of the file."""
        self._warn_on_failure(self._file.close)

    def _warn_on_failure(self, action: Callable[[], object]) -> None:
        if self._has_failed:
            return
        try:
            action()
        except OSError as error:
            self._has_failed = True
            self._warn(f"the log file {self._path} cannot be written ({error.strerror}): it ends here")
