"""Standard output and standard error: what is written there, and whether it got there."""

from __future__ import annotations

import errno
import os
import sys
from typing import TextIO

from tilesync.errors import OutputLost


def write_stream(stream: TextIO | None, text: str) -> OSError | None:
    """Write and flush; why that failed, where it did: a stream that is closed or full ends no run. One whose reader
    went away (`| head -1`) is no failure.
    """
    if stream is None:
        return OSError(errno.EBADF, "it is closed")
    try:
        try:
            stream.write(text)
        except UnicodeEncodeError:  # a locale without such letters: programs want the name as it is
            stream.flush()
            stream.buffer.write(text.encode(errors="surrogatepass"))
        stream.flush()
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        return None if isinstance(error, BrokenPipeError) else error
    return None


def create_output_error(error: OSError) -> OutputLost:
    """The error of a run whose output did not reach its reader."""
    return OutputLost(f"standard output cannot be written ({error.strerror}): what was to be read there is lost")


class StdoutWriter:
    """Standard output. `lost`: why something that was written did not get there; what comes after that is dropped."""

    def __init__(self) -> None:
        self.write_error: OSError | None = None

    def write(self, text: str) -> None:
        """Write and flush."""
        if self.write_error is None:
            self.write_error = write_stream(sys.stdout, text)

    def output_error(self) -> OutputLost | None:
        """The error that follows from what was lost; None where nothing was."""
        return create_output_error(self.write_error) if self.write_error is not None else None
