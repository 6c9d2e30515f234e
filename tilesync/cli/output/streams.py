"""Write to standard output and standard error, remember whether that failed, and tell how wide they are."""

from __future__ import annotations

import errno
import json
import os
import sys
from dataclasses import asdict
from typing import Any, Final, TextIO

from tilesync.cli.output.queued_output import AddQueue, write_at_once
from tilesync.errors import OutputLost
from tilesync.events import Warned

DEFAULT_COLUMNS: Final = 80
"""Columns of a terminal that does not report its width."""


def write_stream(stream: TextIO | None, text: str) -> OSError | None:
    """Write a text and flush. Return the error if that failed: a closed or full stream does not end the run. A reader
    that went away (`| head -1`) is no failure.
    """
    if stream is None:
        return OSError(errno.EBADF, "it is closed")
    try:
        try:
            stream.write(text)
        except (
            UnicodeEncodeError
        ):  # a locale without these letters, or a name that is no Unicode: programs need the exact bytes
            stream.flush()
            stream.buffer.write(text.encode(errors="surrogatepass"))
        stream.flush()
    except OSError as error:
        # Redirect the stream, or Python fails once more when it flushes the rest at exit.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
        return None if isinstance(error, BrokenPipeError) else error
    return None


def create_output_error(error: OSError, *, hint: str | None = None) -> OutputLost:
    """Build the error for output that did not reach its reader; `hint`: None for the default one."""
    return OutputLost(f"standard output cannot be written ({error.strerror}): the output is lost", hint=hint)


class StdoutWriter:
    """Standard output. `write_error` is the first error of a write; later output is dropped.

    `lost_hint`: hint of the error for lost output; None for the default, which asks to run the same command again.
    `add_queue`: makes the queue of an output that nothing waits for.
    """

    def __init__(self, *, lost_hint: str | None = None, add_queue: AddQueue = write_at_once) -> None:
        self._lost_hint = lost_hint
        self._write = add_queue(self._write_now, _format_warning)
        self.write_error: OSError | None = None

    def write(self, text: str) -> None:
        """Write a text and flush."""
        self._write(text)

    def _write_now(self, text: str) -> None:
        if self.write_error is None:
            self.write_error = write_stream(sys.stdout, text)

    def output_error(self) -> OutputLost | None:
        """Return the error for lost output; None if nothing was lost."""
        return create_output_error(self.write_error, hint=self._lost_hint) if self.write_error is not None else None


def format_json_line(line: dict[str, Any]) -> str:
    """Format a line of JSON output."""
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n"


def _format_warning(message: str) -> str:
    return format_json_line({"kind": Warned.kind, **asdict(Warned(message))})


def terminal_columns(stream: TextIO | None) -> int | None:
    """Return the current columns of the terminal behind a stream; None for a file or a pipe."""
    try:
        if stream is None or not stream.isatty():
            return None
        return os.get_terminal_size(stream.fileno()).columns or DEFAULT_COLUMNS
    except (OSError, ValueError):
        return None
