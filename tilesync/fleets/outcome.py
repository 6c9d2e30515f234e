"""Outcomes of the mirrors of a fleet, and the exit code and the sums of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

from tilesync.model.history import MirrorHistory
from tilesync.values import dataclass

STALE_EXIT: Final = 12
STOPPED_EXIT: Final = 14

GRAVITY: Final = (1, 8, 5, 2, 11, 3, 7, 6, 4, 9, 130, 143, 129, STALE_EXIT, STOPPED_EXIT, 0)
"""Exit codes from the gravest to the best. The exit code of a fleet is the gravest of those of its mirrors.

A bug comes first; then what nobody but a person can cure (destination, identity, usage, guard); then what another night
may cure (files that failed, a replaced export, storage or service down, no export, a busy destination); then what was
stopped; last what is good but old, and what the window of time left for the next night.
"""


class Result(StrEnum):
    """Result of one mirror of a night."""

    UPDATED = "updated"
    UNCHANGED = "unchanged"
    PLANNED = "planned"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class CopyOutcome:
    """Outcome of a further destination, which is filled from the first. `line`: the last JSON line of its run."""

    dest: str
    line: Mapping[str, Any]

    @property
    def exit_code(self) -> int:
        """Exit code of the copy."""
        return int(self.line["exit"])


@dataclass(frozen=True, slots=True)
class MirrorOutcome:
    """Outcome of one mirror.

    `line`: the last JSON line of its run, with every count. `warnings`: sentences that a person should read though the
    run was good. `stale`: why the mirror is too old. `endangered`: exports that the service deletes next and that no
    destination of the mirror holds. `command`: the command that continues it. `folder`: the destination, if it is one.
    `tracebacks`: those of bugs. `planned_bytes`: bytes that a dry run found to be transferred.
    """

    name: str
    key: str
    dest: str
    result: Result
    line: Mapping[str, Any]
    copies: tuple[CopyOutcome, ...] = ()
    warnings: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    endangered: tuple[str, ...] = ()
    command: str = ""
    imodel: str | None = None
    history: MirrorHistory = field(default_factory=MirrorHistory)
    max_age: timedelta | None = None
    folder: str | None = None
    tracebacks: tuple[str, ...] = ()
    planned_bytes: int = 0

    @property
    def exit_code(self) -> int:
        """Gravest exit code of its run, its copies and its age."""
        codes = [int(self.line["exit"]), *(copy.exit_code for copy in self.copies)]
        return find_gravest([*codes, STALE_EXIT if self.stale else 0])

    @property
    def gravest_line(self) -> Mapping[str, Any]:
        """Last JSON line of the gravest of its runs: the download or a copy."""
        return find_gravest_line([self.line, *(copy.line for copy in self.copies)])

    @property
    def reason(self) -> str:
        """Reason why it is not good: the message of the gravest run, else of its age; empty if all is good."""
        return str(self.gravest_line.get("message", "")) or "; ".join(self.stale)

    @property
    def hint(self) -> str:
        """Hint of the gravest run; empty if there is none."""
        return str(self.gravest_line.get("hint", ""))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON line `mirror-finished` or `mirror-failed`."""
        return {
            "kind": "mirror-failed" if self.gravest_line["exit"] else "mirror-finished",
            "mirror": self.name,
            "result": str(self.result),
            **{name: value for name, value in self.line.items() if name != "kind"},
            **{name: self.gravest_line[name] for name in ("error", "message", "hint") if name in self.gravest_line},
            "planned_bytes": self.planned_bytes,
            "exit": self.exit_code,
            "stale": list(self.stale),
            "endangered": list(self.endangered),
            "copies": [{"dest": copy.dest, **copy.line} for copy in self.copies],
            "command": self.command,
        }


def gravity_of(exit_code: int) -> int:
    """Return the place of an exit code in GRAVITY; one that is not there comes first, as a bug."""
    return GRAVITY.index(exit_code) if exit_code in GRAVITY else 0


def find_gravest(exit_codes: Iterable[int]) -> int:
    """Return the gravest exit code; 0 if there is none."""
    return min(exit_codes, key=gravity_of, default=0)


def find_gravest_line(lines: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the last JSON line with the gravest exit code; the first of equal ones."""
    return min(lines, key=lambda line: gravity_of(int(line["exit"])))


def sort_problems_first(outcomes: Sequence[MirrorOutcome]) -> list[MirrorOutcome]:
    """Sort outcomes: the gravest first, then those with changes, then by name."""
    return sorted(
        outcomes,
        key=lambda each: (gravity_of(each.exit_code), each.result is Result.UNCHANGED, each.name.casefold()),
    )


COUNTED: Final = ("listed", "fetched", "reused", "kept", "failed", "deleted", "bytes", "renewals", "retries")
"""Counts of the last JSON line that are summed up over a fleet."""


def sum_counts(outcomes: Iterable[MirrorOutcome]) -> dict[str, int]:
    """Sum up the counts of all mirrors; of several destinations the first counts, which is the one that downloads."""
    sums = dict.fromkeys(COUNTED, 0)
    for outcome in outcomes:
        for name in COUNTED:
            sums[name] += int(outcome.line.get(name, 0))
    return sums
