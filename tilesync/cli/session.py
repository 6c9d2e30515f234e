"""One run of one command: signals, errors to exit codes, and the last word."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilesync.cli.output.log_file import LogFile
from tilesync.cli.output.masking import Masking
from tilesync.cli.output.progress import Progress
from tilesync.cli.output.report import Summary, failed_to_write, reported, write_report
from tilesync.cli.output.reporters import JsonLines, Lines
from tilesync.cli.output.streams import Out, say
from tilesync.cli.output.terminal import columns_of
from tilesync.cli.params import explain
from tilesync.cli.publish_hook import announce
from tilesync.cli.signals import HANGUP, stopped_by, stopping_signals
from tilesync.errors import Interrupted, OutputLost, TilesyncError
from tilesync.events import Event, Warned
from tilesync.jobs.run.stats import Tally
from tilesync.protocols import Observer
from tilesync.runtime.event_loop import loop_factory, tidy_memory


@dataclass(frozen=True)
class Voice:
    """How a run speaks, and what it is about: SOURCE and DEST as they may be told. `acts`: the command changes DEST.
    `steps`: each time that it is run it goes one step further.
    """

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    progress: bool = True
    log_file: Path | None = None
    report: Path | None = None
    source: str | None = None
    dest: str | None = None
    acts: bool = False
    steps: bool = False


_DONE = "what was done stands: `tilesync versions DEST` shows it"


class Session:
    """Holds the observers of one run, runs it, and says how it ended."""

    def __init__(self, voice: Voice) -> None:
        self.tally = Tally()
        self.summary = Summary(self.tally, source=voice.source, dest=voice.dest)
        self._voice = voice
        self._out = Out()
        self._masking = Masking(os.environ)
        terminal = sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        show = voice.progress and not voice.quiet
        self._progress = Progress(self.tally, bar=show and terminal, lines=show and not terminal)
        self._json = JsonLines(self._out, verbose=voice.verbose) if voice.json else None
        self._lines = Lines(
            self._progress.print_line,
            verbose=voice.verbose,
            quiet=voice.quiet,
            plan_out=None if voice.json else self._out,
        )
        self._log = LogFile(voice.log_file, lambda message: self.observe(Warned(message))) if voice.log_file else None
        self._observers: list[Observer] = [self.tally, self.summary, self._lines]
        self._observers += [observer for observer in (self._json, self._log) if observer is not None]

    @property
    def width(self) -> int | None:
        """The columns of the terminal that standard output is; None where it is a file or a pipe, which get all."""
        return columns_of(sys.stdout)

    def observe(self, event: Event) -> None:
        """Tell everyone."""
        event = self._masking.event(event)
        for observer in self._observers:
            observer(event)

    def say(self, line: str) -> None:
        """A sentence for people."""
        if not self._voice.quiet:
            self._progress.print_line(line)

    def print(self, text: str) -> None:
        """What a command gives out, for people and pipes alike."""
        self._out.write(text + "\n")

    def tell(self, said: dict[str, Any]) -> None:
        """A line for programs, where they asked for it."""
        if self._json is not None:
            self._json.write(said)

    def announcing(self, command: str | None) -> Callable[[str, TilesyncError | None], Awaitable[None]] | None:
        """What runs a command with the report so far; None where there is no command. Raises UsageError."""
        if not command:
            return None
        from tilesync.runtime.subprocess import words_of

        words = words_of(command, "--on-publish")

        async def run(version: str, error: TilesyncError | None) -> None:
            said = self.summary.finished() if error is None else self._failure(error)
            await announce(words, {**reported(said, self.summary), "pointer": version}, self.observe)

        return run

    def run(self, work: Callable[[], Awaitable[None]], *, closing: Callable[[], str] | None = None) -> int:
        """Run to the end; the exit code. `closing` gives the sentence that a good run ends with."""
        try:
            tidy_memory()
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                runner.run(self._attended(work))
        except TilesyncError as error:
            return self._failed(error)
        except KeyboardInterrupt:
            return self._failed(Interrupted("interrupted"))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the last door: a bug ends in exit 1, and is told
            say(sys.stderr, self._masking.text(traceback.format_exc()))
            return self._ended(1, type(error).__name__, "tilesync met a bug", "please report it with the lines above")
        if closing is not None:
            self.say(closing())
        return self._last(self.summary.finished())

    def _failed(self, error: TilesyncError) -> int:
        if self.summary.published:
            self._progress.print_line(f"version {self.summary.pointed} was published")
        self._progress.print_line(self._masking.text(explain(self._hinted(error))))
        return self._last(self._failure(error))

    def _failure(self, error: TilesyncError) -> dict[str, Any]:
        message, hint = self._masking.text(str(error)), self._masking.text(self._hinted(error).hint)
        return self.summary.failed(error.exit_code, type(error).__name__, message, hint)

    def _hinted(self, error: TilesyncError) -> TilesyncError:
        """The error, whose hint does not ask to run a command again that has done its work."""
        lost = isinstance(error, OutputLost) and self._voice.acts
        stopped = isinstance(error, Interrupted) and self._voice.steps and self.summary.published
        if lost or stopped:
            error.hint = _DONE
        return error

    def _ended(self, exit_code: int, error: str, message: str, hint: str) -> int:
        return self._last(self.summary.failed(exit_code, error, message, hint))

    def _last(self, said: dict[str, Any]) -> int:
        """The last word of a run, wherever it is wanted; the exit code. What cannot be written there makes a good run a
        failed one, and is told where it can be.
        """
        said = self._reported(said)
        self.tell(said)
        if (lost := self._out.failure()) is not None:
            self._progress.print_line(explain(self._hinted(lost)))
            if not said["exit"]:
                said = self._reported(self._failure(lost))
        if self._log is not None:
            self._log.write(said)
            self._log.close()
        return int(said["exit"])

    def _reported(self, said: dict[str, Any]) -> dict[str, Any]:
        """Write the report; what is the last word after that."""
        if self._voice.report is None:
            return said
        try:
            write_report(self._voice.report, said, self.summary)
        except OSError as error:
            wrong = failed_to_write(self._voice.report, error)
            self._progress.print_line(explain(wrong))
            return said if said["exit"] else self._failure(wrong)
        return said

    async def _attended(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` with progress beside it; the first signal cancels it, and the second one ends it at once. A second
        SIGHUP does nothing: the kernel and the shell may both send one when a terminal is closed.
        """
        stopped: list[int] = []
        running = asyncio.ensure_future(work())

        def stop(number: int) -> None:
            if stopped and number == HANGUP:
                return
            if stopped:
                for each in stopping_signals():
                    signal.signal(each, signal.SIG_DFL)  # writing may hang as well
                self._last(self._failure(stopped_by(number)))
                os._exit(128 + number)
            stopped.append(number)
            self._progress.print_line("stopping; once more to stop at once")
            running.cancel()

        with _signals(stop):
            following = asyncio.create_task(self._progress.follow())
            try:
                await running
            except asyncio.CancelledError:
                if not stopped:
                    raise
                raise stopped_by(stopped[0]) from None
            finally:
                following.cancel()
                for error in await asyncio.gather(following, return_exceptions=True):
                    if isinstance(error, Exception):
                        self._progress.print_line(f"warning: the progress display failed ({error!r})")


@contextlib.contextmanager
def _signals(stop: Callable[[int], None]) -> Any:
    """Call `stop` for the signals that stop a run while inside."""
    loop = asyncio.get_running_loop()
    numbers = stopping_signals()
    try:
        for number in numbers:
            loop.add_signal_handler(number, stop, number)
    except NotImplementedError:  # Windows: Ctrl-C arrives as KeyboardInterrupt instead
        yield
        return
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
