"""The Python API of comparisons: the files that differ between two versions, or a version and a source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from datetime import timedelta
from typing import TYPE_CHECKING, Unpack

from tilesync.api.call import Call, OnEvent
from tilesync.api.inputs import DEFAULT_RETRY_FOR, create_mirror_request, create_target
from tilesync.api.locations import Dest
from tilesync.api.monitor import RunMonitor
from tilesync.api.options import MirrorArguments, ServiceOptions, StoreAccessOptions
from tilesync.api.results import RunResult
from tilesync.core.safe_names import CURRENT_VERSION
from tilesync.errors import UsageError
from tilesync.jobs.diff.changes import ChangeCounts as ChangeCounts
from tilesync.jobs.diff.changes import ChangeKind as ChangeKind
from tilesync.jobs.diff.changes import DiffTotals as DiffTotals
from tilesync.jobs.diff.changes import FileChange as FileChange
from tilesync.jobs.diff.collector import ChangeCollector, encode_lines
from tilesync.model import Secret
from tilesync.values import dataclass

if TYPE_CHECKING:
    from tilesync.app.diffing import DiffSide

LATEST_OF = "latest@"
"""Prefix of a side that is the latest finished export of a source."""


class DiffOptions(ServiceOptions, StoreAccessOptions, total=False):
    """Options of `diff`: access to the destination, and to the source of `latest@SOURCE`."""

    link_command: str | None
    """Command that prints a fresh container link when SOURCE is a link."""


@dataclass(frozen=True, kw_only=True)
class DiffResult(RunResult):
    """Differences between A and B, which are named by `a` and `b`: versions, or the export that a source has.

    `changes` yields them by name, as often as wanted; they are in a temporary file if there are many, so memory stays
    flat. `totals` has their numbers and bytes.
    """

    a: str = ""
    b: str = ""
    totals: DiffTotals = field(default_factory=DiffTotals)
    changes: ChangeCollector = field(default_factory=ChangeCollector)

    @property
    def is_same(self) -> bool:
        """Return whether A and B have the same files with the same content."""
        return self.totals.is_same

    def __iter__(self) -> Iterator[FileChange]:
        return iter(self.changes)

    def json_pieces(self) -> Iterator[str]:
        """Yield the lines of `diff --json` but the last one, in pieces of whole lines: faster than `to_dict`."""
        yield from map(bytes.decode, self.changes.json_pieces())
        yield encode_lines(self.totals.role_lines()).decode()


async def diff(
    dest: Dest,
    a: str | Secret,
    b: str | Secret = CURRENT_VERSION,
    *,
    on_event: OnEvent | None = None,
    monitor: RunMonitor | None = None,
    **options: Unpack[DiffOptions],
) -> DiffResult:
    """Compare two versions of a destination by their manifests; no tile is read. Raises TilesyncError.

    `a` and `b`: a version name, a unique prefix of one, `current`, or `latest@SOURCE`: the latest finished export of an
    iModel, a container link or another mirror, by its listing. A Secret is a container link, without `latest@`. One of
    them must be a version.
    """
    from tilesync.app import diffing

    call = Call(monitor, on_event, None, dest)
    with call.run(DiffResult):
        target = create_target(dest, options, retry_for=options.get("retry_for", DEFAULT_RETRY_FOR))
        old, new = _create_side(a, dest, options), _create_side(b, dest, options)
        if not isinstance(old, str) and not isinstance(new, str):
            raise UsageError("one of A and B must be a version of DEST", hint="name a version, or `current`")
        found = await diffing.diff(target, old, new, call.observe)
    call.monitor.more_facts = found.to_dict()
    return call.monitor.result(DiffResult, a=found.a.name, b=found.b.name, totals=found.totals, changes=found.changes)


def _create_side(side: str | Secret, dest: Dest, options: DiffOptions) -> DiffSide:
    """Return a text that names a version, or the request for the listing of a source. Raises UsageError."""
    if isinstance(side, str) and not side.startswith(LATEST_OF):
        if any(sign in side for sign in "?&=/"):  # perhaps a link, whose signature no message may show
            raise UsageError(
                "A and B must be versions, but one of them is a path or a link",
                hint=f"write {LATEST_OF}SOURCE for the latest export of a source",
            )
        return side
    arguments: MirrorArguments = {
        **options,  # type: ignore[typeddict-item]  # mypy: the extra keys might be there
        "wait": timedelta(),
        "inventory": "list",
    }
    source = side.removeprefix(LATEST_OF) if isinstance(side, str) else side
    return create_mirror_request(source, dest, arguments)
