"""Log file (`--log-file`): every event as a JSON line with its time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tilesync.cli.output.atomic_file import open_to_append
from tilesync.cli.output.queued_output import AddQueue, write_at_once
from tilesync.errors import UsageError
from tilesync.events import Event, Warned


class LogFile:
    """Observer that appends every event to a file, as a JSON line with its time. If a write fails, it warns once and
    stops logging; the run continues.
    """

    def __init__(self, path: Path, warn: Callable[[str], None], *, add_queue: AddQueue = write_at_once) -> None:
        self._path = path
        self._warn = warn
        self._write = add_queue(self._write_now, lambda message: _format_event(Warned(message)))
        self._has_failed = False
        try:
            self._file = open(open_to_append(path, create=True), "a", encoding="utf-8", buffering=1)  # noqa: SIM115 - closed by `close`
        except OSError as error:
            raise UsageError(
                f"the log file {path} cannot be written ({error.strerror})", hint="check --log-file"
            ) from None

    def __call__(self, event: Event) -> None:
        """Write an event."""
        self._write(_format_event(event))

    def write(self, line: dict[str, Any]) -> None:
        """Write one line, with the current time."""
        self._write(_format_line(line))

    def _write_now(self, text: str) -> None:
        self._warn_on_failure(lambda: self._file.write(text))

    def close(self) -> None:
        """Close the file."""
        self._warn_on_failure(self._file.close)

    def _warn_on_failure(self, action: Callable[[], object]) -> None:
        if self._has_failed:
            return
        try:
            action()
        except OSError as error:
            self._has_failed = True
            self._warn(f"the log file {self._path} cannot be written ({error.strerror}); logging stops here")


def _format_event(event: Event) -> str:
    return _format_line({"kind": event.kind, **asdict(event)})


def _format_line(line: dict[str, Any]) -> str:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": now, **line}, ensure_ascii=False) + "\n"
