"""Run one command: attach observers, handle signals, convert errors to exit codes, write the last line."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from tilesync.api.call import OnPublish
from tilesync.api.monitor import RunMonitor
from tilesync.api.publish_command import create_publish_hook
from tilesync.cli.output.log_file import LogFile
from tilesync.cli.output.progress import ProgressDisplay
from tilesync.cli.output.queued_output import OutputQueues, write_at_once
from tilesync.cli.output.report import report_write_error, write_report
from tilesync.cli.output.reporters import JsonLinesWriter, MessagePrinter
from tilesync.cli.output.streams import StdoutWriter, terminal_columns
from tilesync.cli.params import format_error
from tilesync.cli.run_reporters import RunReporters
from tilesync.cli.signals import HANGUP, SignalRelay, error_for_signal, restore_default_handlers, signals_as_exit
from tilesync.errors import Interrupted, TilesyncError
from tilesync.events import Event, Warned
from tilesync.protocols import Observer
from tilesync.runtime.event_loop import loop_factory, tune_garbage_collector
from tilesync.values import dataclass

if TYPE_CHECKING:
    from tilesync.cli.output.fleet_progress import FleetProgressDisplay


COMPLETED_HINT = "DEST is already changed: `tilesync versions DEST` shows its versions"
"""Hint of a run that changed DEST, but could not say so."""

_LINES_PER_WRITE = 500


@dataclass(frozen=True)
class OutputOptions:
    """Output options of a run, with SOURCE and DEST without secrets.

    `changes_dest`: the command changes DEST. `is_stepwise`: each run of the command goes one step further.
    `ends_by_signal`: SIGINT and SIGTERM are the normal end of the command.
    `is_queued`: threads write the output, so that a reader who stalls delays nothing else; what exceeds a bounded
    queue is dropped, and counted.
    `completed_hint`: hint after a change that was not told. `interrupted_hint`: hint of a run that was interrupted;
    None for the default one, that the next run continues.
    """

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    progress: bool = True
    log_file: Path | None = None
    report: Path | None = None
    source: str | None = None
    dest: str | None = None
    changes_dest: bool = False
    is_stepwise: bool = False
    ends_by_signal: bool = False
    is_queued: bool = False
    completed_hint: str = COMPLETED_HINT
    interrupted_hint: str | None = None


class DisplayClass(Protocol):
    """Creates the progress display of a run: a bar on a terminal, or lines elsewhere."""

    def __call__(self, *, bar: bool, lines: bool) -> ProgressDisplay | FleetProgressDisplay:
        """Create the display."""


class Session:
    """One run of a command: its observers, its signals, and its end.

    `monitor`, `display_class`: those of a fleet; None for those of one run.
    """

    def __init__(
        self, options: OutputOptions, *, monitor: RunMonitor | None = None, display_class: DisplayClass | None = None
    ) -> None:
        self.monitor = monitor or RunMonitor(source=options.source, dest=options.dest)
        self._options = options
        self._queues = OutputQueues()
        add_queue = self._queues.add if options.is_queued else write_at_once
        lost_hint = options.completed_hint if options.changes_dest else None
        self._stdout = StdoutWriter(lost_hint=lost_hint, add_queue=add_queue)
        terminal = sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        show = options.progress and not options.quiet
        create_display = display_class or partial(ProgressDisplay, self.monitor.stats)
        self._progress = create_display(bar=show and terminal, lines=show and not terminal)
        self._write_stderr = add_queue(lambda text: self._progress.print_line(text[:-1]), "warning: {}\n".format)
        self._json = JsonLinesWriter(self._stdout, verbose=options.verbose) if options.json else None
        self._messages = MessagePrinter(
            self._print_line,
            verbose=options.verbose,
            quiet=options.quiet,
            plan_out=None if options.json else self._stdout,
        )
        self._log = (
            LogFile(options.log_file, lambda message: self.observe(Warned(message)), add_queue=add_queue)
            if options.log_file
            else None
        )
        self._reporters: RunReporters | None = None
        self._signals: list[int] = []
        self._work: asyncio.Future[None] | None = None
        self._on_stop: Callable[[], None] = lambda: None
        self._observers: list[Observer] = [self._messages]
        self._observers += [observer for observer in (self._json, self._log) if observer is not None]

    @property
    def width(self) -> int | None:
        """Width of the terminal on standard output, in columns; None for a file or a pipe, which is not limited."""
        return terminal_columns(sys.stdout)

    def observe(self, event: Event) -> None:
        """Record and show an event of the command line itself."""
        self.show(self.monitor.record(event))

    def show(self, event: Event) -> None:
        """Show an event that the run has recorded."""
        for observer in self._observers:
            observer(event)

    def _print_line(self, line: str) -> None:
        self._write_stderr(f"{line}\n")

    def print_message(self, line: str) -> None:
        """Print a sentence for people, unless -q is given."""
        if not self._options.quiet:
            self._print_line(line)

    def print_always(self, line: str) -> None:
        """Print a line for people, above the progress; the caller knows whether -q is given."""
        self._print_line(line)

    def show_of_mirror(self, name: str, event: Event, print_event: Callable[[str, Event], None]) -> None:
        """Show an event of a mirror of a fleet, or with an empty name one of the fleet, which has its own printer."""
        print_event(name, event)
        label = {"mirror": name} if name else {}
        if self._json is not None and self._json.shows(event):
            self._json.write({"kind": event.kind, **label, **asdict(event)})
        if self._log is not None:
            self._log.write({"kind": event.kind, **label, **asdict(event)})

    def write_line(self, line: dict[str, Any]) -> None:
        """Write a line to the JSON output and to the log, as far as they are given."""
        self.write_json_line(line)
        if self._log is not None:
            self._log.write(line)

    def print_output(self, text: str) -> None:
        """Print the output of a command to stdout."""
        self._stdout.write(text + "\n")

    async def print_lines(self, lines: Iterator[str]) -> None:
        """Print many lines to stdout, some hundred at a time, so that a signal can stop it."""
        while batch := list(islice(lines, _LINES_PER_WRITE)):
            self._stdout.write("".join(f"{line}\n" for line in batch))
            await asyncio.sleep(0)

    async def write_pieces(self, pieces: Iterator[str]) -> None:
        """Write pieces of whole lines to stdout, so that a signal can stop it between two of them."""
        for piece in pieces:
            self._stdout.write(piece)
            await asyncio.sleep(0)

    def write_json_line(self, line: dict[str, Any]) -> None:
        """Write a JSON line, if --json is given."""
        if self._json is not None:
            self._json.write(line)

    def create_publish_hook(self, command: str | None) -> OnPublish | None:
        """Create the function that runs a command with the report; None without a command. Raises UsageError."""
        return create_publish_hook(command, self.observe) if command else None

    def attach_reporters(self, reporters: RunReporters) -> None:
        """Report the start and the end of the run to monitors."""
        self._reporters = reporters

    def report_progress(self, status: str) -> None:
        """Tell the service manager how far the run is."""
        if self._reporters is not None:
            self._reporters.update(status)

    def run(
        self,
        work: Callable[[], Awaitable[None]],
        *,
        closing_message: Callable[[], str] | None = None,
        on_stop: Callable[[], None] = lambda: None,
    ) -> int:
        """Run to the end and return the exit code. `closing_message` returns the last sentence of a successful run.

        `on_stop` is called at the first signal, before `work` is cancelled.
        """
        self._on_stop = on_stop
        if self._reporters is not None:
            self._reporters.start()
        try:
            tune_garbage_collector()
            _silence_libraries()
            relay = SignalRelay(self._stop)
            with relay.installed(), asyncio.Runner(loop_factory=loop_factory()) as runner:
                runner.run(self._run_until_signal(work, relay))
            self._raise_if_stopped()
        except TilesyncError as error:
            return self._end_failed(error)
        except KeyboardInterrupt:
            return self._end_failed(Interrupted("interrupted", hint=self._interrupted_hint()))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - last handler: a bug ends with exit 1
            self._write_stderr(self.monitor.mask_text(traceback.format_exc()))
            name, hint = type(error).__name__, "please report it with the lines above"
            return self._end_run(self.monitor.failed_line(name=name, message="this is a bug in tilesync", hint=hint))
        if closing_message is not None:
            self.print_message(closing_message())
        return self._end_run(self.monitor.finished_line())

    def _end_failed(self, error: TilesyncError, *, is_urgent: bool = False) -> int:
        if self.monitor.published:
            self._print_line(f"version {self.monitor.published_version} was published")
        self._print_line(self.monitor.mask_text(format_error(error)))
        return self._end_run(self.monitor.failed_line(error), is_urgent=is_urgent)

    def _interrupted_hint(self) -> str | None:
        """Return the hint of an interruption; None for the default one."""
        is_done = self._options.is_stepwise and self.monitor.published
        return self._options.completed_hint if is_done else self._options.interrupted_hint

    def _end_run(self, line: dict[str, Any], *, is_urgent: bool = False) -> int:
        """Write the last line to stdout, report and log, and report to monitors; return the exit code.

        If one cannot be written, a successful run becomes a failed one, and the other outputs say so.
        """
        line = self._write_report(line)
        if self._reporters is not None:
            line = self._report_to_monitors(line, self._reporters, is_urgent=is_urgent)
        self.write_json_line(line)
        with signals_as_exit(int(line["exit"])):  # no second last line, which might wait for a stream that stalls
            return self._close_outputs(line)

    def _close_outputs(self, line: dict[str, Any]) -> int:
        """Close the outputs after the last line, and write it to the log; return the exit code."""
        self._queues.flush()
        if (output_error := self._stdout.output_error()) is not None:
            self._print_line(format_error(output_error))
            if line["kind"] != "failed":
                line = self._write_report(self.monitor.failed_line(output_error))
        if self._log is not None:
            self._log.write(line)
        if not self._queues.close():
            os._exit(int(line["exit"]))  # else Python would wait for the stream that a thread writes to
        if self._log is not None:
            self._log.close()
        return int(line["exit"])

    def _report_to_monitors(self, line: dict[str, Any], reporters: RunReporters, *, is_urgent: bool) -> dict[str, Any]:
        """Report the end of the run to monitors; return the last line. The report gets the warnings about them."""
        if not line["exit"] and (lost := self._stdout.output_error()) is not None:
            line = self._write_report(self.monitor.failed_line(lost))
        warnings = self.monitor.warnings
        reporters.finish(self.monitor.report(line), is_urgent=is_urgent)
        return line if self.monitor.warnings == warnings else self._write_report(line)

    def _write_report(self, line: dict[str, Any]) -> dict[str, Any]:
        """Write the report; return the last line, which is a failed one if the report could not be written."""
        if self._options.report is None:
            return line
        try:
            write_report(self._options.report, line, self.monitor)
        except OSError as error:
            report_error = report_write_error(self._options.report, error)
            self._print_line(format_error(report_error))
            return line if line["exit"] else self.monitor.failed_line(report_error)
        return line

    async def _run_until_signal(self, work: Callable[[], Awaitable[None]], relay: SignalRelay) -> None:
        """Run `work` until it ends or a signal cancels it, and display its progress."""
        self._work = asyncio.ensure_future(work())
        with relay.forwarded_to(asyncio.get_running_loop()):
            progress_task = asyncio.create_task(self._progress.display_until_cancelled())
            try:
                await self._work
            except asyncio.CancelledError:
                if not self._signals:
                    raise
            finally:
                progress_task.cancel()
                for error in await asyncio.gather(progress_task, return_exceptions=True):
                    if isinstance(error, Exception):
                        self._print_line(f"warning: the progress display failed ({error!r})")

    def _stop(self, number: int) -> None:
        """Cancel the work at the first signal; end the process at the second.

        A second SIGHUP is ignored: the kernel and the shell may both send one when a terminal is closed.
        """
        if self._signals:
            if number != HANGUP:
                self._end_at_once(number)
            return
        self._signals.append(number)
        self._print_line("stopping; send the signal once more to stop at once")
        self._on_stop()
        if self._work is not None:
            self._work.cancel()

    def _end_at_once(self, number: int) -> NoReturn:
        restore_default_handlers()  # writing the last line may hang: a third signal kills the process
        self._end_failed(error_for_signal(number, hint=self._interrupted_hint()), is_urgent=True)
        os._exit(128 + number)

    def _raise_if_stopped(self) -> None:
        """Raise the error of the signal that stopped the run, unless a signal is its normal end."""
        if self._signals and (self._signals[0] == HANGUP or not self._options.ends_by_signal):
            raise error_for_signal(self._signals[0], hint=self._interrupted_hint())


def _silence_libraries() -> None:
    """Keep the Azure SDK and uvicorn from writing warnings to stderr: tilesync reports their errors."""
    logging.getLogger("azure").setLevel(logging.ERROR)
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    logging.getLogger("azure.identity").setLevel(logging.CRITICAL)
