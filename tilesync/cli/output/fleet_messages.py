"""Output of a fleet for people: events of its mirrors, the outcome of each, and the table at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from tilesync.cli.output.reporters import MessagePrinter
from tilesync.cli.output.table import format_table
from tilesync.cli.params import format_size
from tilesync.core.wording import format_count, format_file_count
from tilesync.events import Event, ExportFailed, ForecastMade, Notice, Planned, Warned
from tilesync.fleets.monitor import FleetMonitor
from tilesync.fleets.outcome import MirrorOutcome, Result, sort_problems_first

MAX_GOOD_ROWS: Final = 40
"""Rows of mirrors without a problem in the table; of more, only those that changed are shown."""

_TABLE_HEAD: Final = ("mirror", "outcome", "export", "files", "size", "seconds", "reason")


class FleetMessagePrinter:
    """Prints what happens in a fleet. `print_line` prints above the progress bars."""

    def __init__(self, print_line: Callable[[str], None], *, verbose: bool, quiet: bool) -> None:
        self._print = print_line
        self._verbose = verbose
        self._quiet = quiet
        self._printers: dict[str, MessagePrinter] = {}

    def __call__(self, name: str, event: Event) -> None:
        """Print an event of a mirror, or of the fleet as a whole; of mirrors only warnings, without `-v`."""
        if isinstance(event, ForecastMade):
            if not self._quiet:
                self._print(event.message)
        elif isinstance(event, Planned):
            if self._verbose:
                self._print(f"{name}: {event.action} {event.name} ({format_size(event.bytes)}): {event.reason}")
        elif self._verbose or isinstance(event, Warned | ExportFailed) or (not name and isinstance(event, Notice)):
            self._find_printer(name)(event)

    def _find_printer(self, name: str) -> MessagePrinter:
        """Return the printer of a mirror, which knows what it has printed already."""
        if name not in self._printers:
            self._printers[name] = MessagePrinter(
                lambda line: self._print(f"{name}: {line}" if name else line),
                verbose=self._verbose,
                quiet=self._quiet,
                plan_out=None,
            )
        return self._printers[name]

    def print_outcome(self, outcome: MirrorOutcome) -> None:
        """Print the outcome of a mirror; without `-v` not that nothing changed."""
        if outcome.exit_code:
            hint = f"\n  {outcome.hint}" if outcome.hint else ""
            self._print(f"{outcome.name}: {_describe_result(outcome)}: {outcome.reason}{hint}")
        elif self._verbose or (outcome.result is not Result.UNCHANGED and not self._quiet):
            is_plan = outcome.result is Result.PLANNED
            self._print(
                f"{outcome.name}: {_describe_result(outcome)}, {_describe_transfer(outcome.to_dict(), is_plan=is_plan)}"
            )


def _describe_transfer(line: Mapping[str, Any], *, is_plan: bool) -> str:
    """Describe how much was transferred, in what time, or for a plan how much is to be."""
    if is_plan:
        return f"{format_file_count(line['fetched'])} to fetch, {format_size(line.get('planned_bytes', 0))}"
    size = format_size(line["bytes"])
    return f"{format_file_count(line['fetched'])} fetched, {size} in {line['seconds']:.1f} s"


def _describe_result(outcome: MirrorOutcome) -> str:
    """Return the outcome in two words; a failed copy and the age count too."""
    if outcome.result is Result.FAILED:
        return f"failed ({outcome.exit_code})"
    if outcome.result is Result.STOPPED or not outcome.exit_code:
        return str(outcome.result)
    has_failed_copy = any(copy.exit_code for copy in outcome.copies)
    return f"{outcome.result}, copy failed" if has_failed_copy else f"{outcome.result}, but stale"


def format_fleet_table(outcomes: Sequence[MirrorOutcome], *, width: int | None, verbose: bool = False) -> str:
    """Format the outcomes as a table, problems first."""
    ordered = sort_problems_first(outcomes)
    shown = [
        each
        for each in ordered
        if verbose or len(ordered) <= MAX_GOOD_ROWS or each.exit_code or each.result is not Result.UNCHANGED
    ]
    rows = [
        (
            outcome.name,
            _describe_result(outcome),
            (outcome.line.get("export") or "")[:8],
            f"{outcome.line['fetched'] + outcome.line['reused']:,}",
            format_size(outcome.planned_bytes or outcome.line["bytes"]),
            f"{outcome.line['seconds']:.1f}",
            " ".join(part for part in (outcome.reason, outcome.hint and f"-> {outcome.hint}") if part),
        )
        for outcome in shown
    ]
    table = format_table(_TABLE_HEAD, rows, width=width, truncated=("mirror", "reason")) if rows else ""
    hidden = len(ordered) - len(shown)
    more = f"… and {format_count(hidden, 'mirror')} unchanged" if hidden else ""
    return "\n".join(part for part in (table, more) if part)


def format_fleet_summary(monitor: FleetMonitor) -> str:
    """Return the last sentences: how many mirrors ended how, and what the service deletes next."""
    line = monitor.finished_line()
    counts = [f"{line[str(result)]:,} {result}" for result in Result if line[str(result)]]
    stale = [f"{line['stale']:,} too old"] if line["stale"] else []
    calls = format_count(line["calls"], "API call")
    parts = ", ".join([*counts, *stale]) or "nothing to do"
    sentences = [
        f"{format_count(line['mirrors'], 'mirror')}: {parts};"
        f" {_describe_transfer(line, is_plan=bool(line[str(Result.PLANNED)]))}; {calls}"
    ]
    endangered = [(outcome.name, export) for outcome in monitor.outcomes for export in outcome.endangered]
    if endangered:
        sentences.append(
            f"{format_count(len(endangered), 'export')} that no destination holds will be deleted by the service when"
            " it makes the next one (all-exports = true mirrors every export):"
        )
        sentences += [f"  {name}: export {export}" for name, export in endangered]
    return "\n".join(sentences)
