"""Results of the Python API: frozen, typed, with the facts of the last JSON line of the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field
from datetime import datetime
from typing import Any

from tilesync.errors import TilesyncError
from tilesync.events import CheckCompleted, DiagnosticReported, Event, Finding, Planned
from tilesync.monitoring.status import MirrorStatus
from tilesync.values import dataclass


@dataclass(frozen=True, slots=True)
class RunCounts:
    """Counts of a run: files, or bytes if the name says so.

    `fetched`: downloaded from the source. `reused`: taken from another version; `reused_bytes` is their size.
    `kept`: already in place. `excluded`: left out by filters. `looked`: checked in place, and unchanged. `bytes`:
    received over the network. `referenced`, `missing`, `orphans` and `unfollowed` say whether the version has all files
    that its tilesets reference.
    """

    listed: int = 0
    fetched: int = 0
    reused: int = 0
    reused_bytes: int = 0
    kept: int = 0
    excluded: int = 0
    failed: int = 0
    deleted: int = 0
    retired: int = 0
    gzip_files: int = 0
    referenced: int = 0
    missing: int = 0
    orphans: int = 0
    unfollowed: int = 0
    verified: int = 0
    looked: int = 0
    bytes: int = 0
    renewals: int = 0
    retries: int = 0


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """Result of a run. `error` is None if it succeeded; `exit_code` is that of the command line.

    `source` and `dest` are named without signatures. `owner` is the iModel id or container URL that the destination
    belongs to. `failures` are the events of files and exports that failed, and the findings of an audit.
    """

    error: TilesyncError | None = None
    source: str | None = None
    dest: str | None = None
    owner: str | None = None
    stats: RunCounts = field(default_factory=RunCounts)
    seconds: float = 0.0
    started: datetime | None = None
    finished: datetime | None = None
    failures: tuple[Event, ...] = ()
    diagnostics: tuple[DiagnosticReported, ...] = ()
    warnings: tuple[str, ...] = ()
    line: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def exit_code(self) -> int:
        """Return the exit code of the command line: 0, or that of the error."""
        return 0 if self.error is None else self.error.exit_code

    @property
    def ok(self) -> bool:
        """Return whether the run ended without an error."""
        return self.error is None

    def to_dict(self) -> dict[str, Any]:
        """Return the last line of `--json`."""
        return dict(self.line)


@dataclass(frozen=True, kw_only=True)
class MirrorResult(RunResult):
    """Result of a mirror.

    `version`: the version that was mirrored. `export`: the selected export. `newest`: the newest export of the
    selection. `behind`: the newest export is another one. `published`: the pointer moved.
    """

    imodel: str | None = None
    export: str | None = None
    version: str | None = None
    newest: str | None = None
    behind: bool = False
    published: bool = False


@dataclass(frozen=True, kw_only=True)
class PlanResult(MirrorResult):
    """Result of a plan: `actions` with their reasons, and the counts as if they were done."""

    actions: tuple[Planned, ...] = ()


@dataclass(frozen=True, kw_only=True)
class AuditResult(RunResult):
    """Result of an audit: `ok` if all files are intact; otherwise `findings`, one per problem."""

    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RollbackResult(RunResult):
    """Result of a rollback: the version that the pointer names now."""

    version: str = ""


@dataclass(frozen=True, kw_only=True)
class PackResult(RunResult):
    """Result of a pack: the version, and the file that it was written to.

    `files`, `bytes`: those of the version. `package_bytes`: size of the file `package`.
    """

    version: str = ""
    package: str = ""
    format: str = ""
    files: int = 0
    bytes: int = 0
    package_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class ExportInfo:
    """An export as the service lists it. `held`: the state of its version in `held_in`, None if there is none."""

    id: str
    name: str
    status: str
    type: str
    imodel: str | None
    changeset: str | None
    modified: str
    size: int | None
    error: str | None
    held: str | None = None
    line: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the line of `exports --json`."""
        return dict(self.line)


@dataclass(frozen=True, kw_only=True)
class ExportsResult(RunResult):
    """The exports that the identity can see, newest first.

    `endangered`: a sentence for each export that the service deletes next and the destination does not store.
    """

    exports: tuple[ExportInfo, ...] = ()
    endangered: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[ExportInfo]:
        return iter(self.exports)

    def __len__(self) -> int:
        return len(self.exports)


@dataclass(frozen=True, kw_only=True)
class VersionInfo:
    """A version of a destination.

    `modified` is when the service exported it, `finished` when it was mirrored (UTC; None while it is unfinished).
    `shared_bytes`: size of the files that other versions share, None if unknown. `state`: held, damaged,
    unfinished or retired. `pinned`: a rollback keeps the pointer there.
    """

    version: str
    export: str
    imodel: str | None
    changeset: str | None
    modified: str | None
    finished: str | None
    files: int
    bytes: int
    shared_bytes: int | None
    state: str
    current: bool
    pinned: bool
    content: str
    line: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the line of `versions --json`."""
        return dict(self.line)


@dataclass(frozen=True, kw_only=True)
class VersionsResult(RunResult):
    """The versions of a destination, the newest first. `checked`: time of the last successful mirror (UTC)."""

    versions: tuple[VersionInfo, ...] = ()
    checked: str | None = None

    def __iter__(self) -> Iterator[VersionInfo]:
        return iter(self.versions)

    def __len__(self) -> int:
        return len(self.versions)


@dataclass(frozen=True, kw_only=True)
class ViewerLinkResult(RunResult):
    """The URL that a viewer loads: a secret, which `repr` does not show. `expires`: None if unknown."""

    url: str = field(default="", repr=False)
    expires: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class DoctorResult(RunResult):
    """Result of `doctor`: the checks, in order; `ok` if none failed."""

    checks: tuple[CheckCompleted, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StatusResult(RunResult):
    """Status of one or more mirrors, problems first. `error` is a NotFresh unless all are fresh; `ok` is False then."""

    mirrors: tuple[MirrorStatus, ...] = ()

    def __iter__(self) -> Iterator[MirrorStatus]:
        return iter(self.mirrors)

    def __len__(self) -> int:
        return len(self.mirrors)

    def to_html(self, *, title: str = "") -> str:
        """Return the page of `status --page`. Without a `title` it has the name of the destination."""
        from tilesync import __version__
        from tilesync.monitoring.status_page import render_status_page

        assert self.finished is not None
        title = title or self.dest or "Mirrors"
        return render_status_page(self.mirrors, title=title, now=self.finished, tilesync_version=__version__)
