"""Commands of the user: run them, limit their output and time, and cancel them."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Final, TextIO

from tilesync.errors import NotAuthorised, UsageError
from tilesync.runtime.threads import STOP_EVENT

SECRET_TIMEOUT: Final = timedelta(minutes=5)
"""Maximum time for a command to print a secret; all other work waits for it."""

_POLL_INTERVAL_S: Final = 0.2
"""Seconds between two checks for cancellation."""

MAX_OUTPUT_BYTES: Final = 1 << 16
"""Maximum bytes that a command may print; tokens and links have a few thousand."""

_DRAIN_TIMEOUT_S: Final = 1.0
"""Seconds to wait for remaining output if a child of the command keeps its stdout open."""

_TERMINATE_TIMEOUT_S: Final = 5.0
"""Seconds that a command has to exit after SIGTERM."""

_QUOTING_HINT: Final = (
    "give one program with its arguments; no shell runs it, so put a pipe or a redirection into a script"
)


class CommandCancelled(Exception):
    """The command was ended because its result is no longer needed."""


class OutputTooLarge(Exception):
    """The command was ended because it printed more than MAX_OUTPUT_BYTES."""


def split_command(command: str, option: str) -> list[str]:
    """Split a command line into words, without a shell. Raises UsageError if there are none."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"the command of {option} cannot be read ({error})", hint=_QUOTING_HINT) from None
    if not words:
        raise UsageError(f"{option} names no command", hint=_QUOTING_HINT)
    return words


def run_secret_command(command: str, option: str) -> str:
    """Run a command and return the secret that it prints on stdout; blocks.

    Raises UsageError, and NotAuthorised if the command fails or takes too long.
    """
    words, hint = (
        split_command(command, option),
        f"run the command of {option} by hand; it must print the secret and exit 0",
    )

    def check_timeout(seconds: float) -> None:
        if seconds > SECRET_TIMEOUT.total_seconds():
            raise NotAuthorised(f"the command of {option} has not ended within {seconds:.0f} s", hint=hint)

    try:
        code, out = run_command(words, on_poll=check_timeout)
    except (OSError, ValueError) as error:
        raise NotAuthorised(f"the command of {option} cannot be run ({error})", hint=hint) from error
    except CommandCancelled:
        raise NotAuthorised(f"the command of {option} was ended", hint=hint) from None
    except OutputTooLarge:
        raise NotAuthorised(
            f"the command of {option} printed more than {MAX_OUTPUT_BYTES >> 10} KiB", hint=hint
        ) from None
    if code != 0:
        raise NotAuthorised(f"the command of {option} failed with exit code {code}", hint=hint)
    return out.decode(errors="replace").strip()


def run_command(
    words: list[str], stdin_data: bytes = b"", *, stdout: TextIO | None = None, on_poll: Callable[[float], None]
) -> tuple[int, bytes]:
    """Run a command; return its exit code and its stdout; blocks.

    `stdin_data` is its standard input. With `stdout` the output goes into that file instead. `on_poll` is called
    regularly with the elapsed seconds; an exception from it ends the command.

    Waits for the command itself, not for processes that it leaves behind, even if they keep its stdout open. Raises
    OSError and ValueError if it cannot be run, CommandCancelled if the stop event is set, OutputTooLarge.
    """
    stop, started_at = STOP_EVENT.get() or threading.Event(), time.monotonic()
    with tempfile.TemporaryFile() as stdin_file:  # a pipe would need a thread that writes
        stdin_file.write(stdin_data)
        stdin_file.seek(0)
        output = _OutputReader() if stdout is None else None
        try:
            process = subprocess.Popen(words, stdin=stdin_file, stdout=output.write_end if output else stdout)  # noqa: S603 - the user's command
        finally:
            if output is not None:
                output.start()
        with process:
            try:
                while True:
                    if output is not None and output.is_too_large:
                        raise OutputTooLarge
                    with suppress(subprocess.TimeoutExpired):
                        code = process.wait(_POLL_INTERVAL_S)
                        return code, output.read_all() if output else b""
                    if stop.is_set():
                        raise CommandCancelled
                    on_poll(time.monotonic() - started_at)
            except BaseException:
                _terminate(process)
                raise


class _OutputReader:
    """Reader of a pipe in a thread, up to MAX_OUTPUT_BYTES.

    A thread works on every system. If the pipe outlives the command, only the thread waits for its end, not the caller.
    """

    def __init__(self) -> None:
        self._read_end, self.write_end = os.pipe()
        self._thread = threading.Thread(target=self._read_pipe, daemon=True)
        self._chunks: list[bytes] = []
        self.is_too_large = False

    def start(self) -> None:
        """Start reading. The command has its end of the pipe by now, or failed to start."""
        os.close(self.write_end)
        self._thread.start()

    def _read_pipe(self) -> None:
        remaining = MAX_OUTPUT_BYTES
        while remaining >= 0 and (data := os.read(self._read_end, MAX_OUTPUT_BYTES)):
            self._chunks.append(data)
            remaining -= len(data)
        self.is_too_large = remaining < 0
        os.close(self._read_end)

    def read_all(self) -> bytes:
        """Return all output after the command has ended. Raises OutputTooLarge."""
        self._thread.join(_DRAIN_TIMEOUT_S)
        if self.is_too_large:
            raise OutputTooLarge
        return b"".join(self._chunks)


def _terminate(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_TERMINATE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
