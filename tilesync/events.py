"""Progress events: frozen values that jobs send to an observer.

`kind` is the name that programs read in `--json`.
"""

from __future__ import annotations

from typing import ClassVar

from tilesync.values import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """Base class of all events."""

    kind: ClassVar[str] = "event"


@dataclass(frozen=True, slots=True)
class Notice(Event):
    """Information for a person; the run goes on."""

    kind: ClassVar[str] = "notice"
    message: str


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """A warning for a person: something is not as it should be, but the run goes on."""

    kind: ClassVar[str] = "warning"
    message: str


@dataclass(frozen=True, slots=True)
class Waiting(Event):
    """No matching export is Complete yet; the next poll is in `seconds`."""

    kind: ClassVar[str] = "waiting"
    message: str
    hint: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ExportResolved(Event):
    """The export to mirror has been chosen. `newest_modified`: empty if the time of the newest export is unknown."""

    kind: ClassVar[str] = "resolved"
    export: str
    imodel: str | None
    changeset: str | None
    modified: str
    newest: str
    behind: bool
    newest_modified: str = ""


@dataclass(frozen=True, slots=True)
class ExportEndangered(Event):
    """A finished export that the destination does not hold, and that the service deletes when it makes the next one."""

    kind: ClassVar[str] = "endangered"
    export: str
    modified: str
    message: str


@dataclass(frozen=True, slots=True)
class OwnerIdentified(Event):
    """The owner of the exports in the destination: an iModel id, or the URL of a container."""

    kind: ClassVar[str] = "owner"
    owner: str


@dataclass(frozen=True, slots=True)
class VersionChosen(Event):
    """The version that this run works on.

    `state`: `begun` now, `continued` from an earlier run, or `held`, which means already complete.
    """

    kind: ClassVar[str] = "version"
    version: str
    state: str


@dataclass(frozen=True, slots=True)
class PageListed(Event):
    """One page of the inventory has arrived. Counts are running totals; `complete` is true for the last page."""

    kind: ClassVar[str] = "listed"
    files: int
    bytes: int
    complete: bool


@dataclass(frozen=True, slots=True)
class ForecastMade(Event):
    """The forecast of a fleet: its mirrors, those with a new export, those of unknown size, and bytes at most."""

    kind: ClassVar[str] = "forecast"
    mirrors: int
    changed: int
    unsized: int
    bytes: int
    message: str


@dataclass(frozen=True, slots=True)
class Planned(Event):
    """The planned action for one file or for a whole version, and the reason."""

    kind: ClassVar[str] = "plan"
    action: str
    name: str
    bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class FileStored(Event):
    """One file was downloaded and verified. Sent only if the run reports every file (`-v`)."""

    kind: ClassVar[str] = "stored"
    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class FileReused(Event):
    """One file was reused from another version. Sent only if the run reports every file (`-v`)."""

    kind: ClassVar[str] = "reused"
    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class FileFailed(Event):
    """One file failed permanently. `hint` says what to do if another run would fail too."""

    kind: ClassVar[str] = "file-failed"
    name: str
    error: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Retried(Event):
    """An attempt failed; the next attempt starts after `seconds`."""

    kind: ClassVar[str] = "retry"
    what: str
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class LinkRenewed(Event):
    """A fresh link replaced the previous one."""

    kind: ClassVar[str] = "renewed"
    expires: str | None


@dataclass(frozen=True, slots=True)
class Finding(Event):
    """A problem found by `verify` or `pack`.

    `asked_by`: a file that refers to this one, or empty if none does. `version`: the version that has the file.
    """

    kind: ClassVar[str] = "finding"
    name: str
    problem: str
    message: str
    asked_by: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class DiagnosticReported(Event):
    """A remark about one file that is not an error. `problem` names its kind in a word or two."""

    kind: ClassVar[str] = "remark"
    name: str
    problem: str
    message: str


@dataclass(frozen=True, slots=True)
class ExportFailed(Event):
    """One export of several could not be mirrored; the run continues with the next one."""

    kind: ClassVar[str] = "export-failed"
    export: str
    error: str
    message: str


@dataclass(frozen=True, slots=True)
class VersionRetired(Event):
    """A version was retired and moved into the trash."""

    kind: ClassVar[str] = "retired"
    version: str
    files: int
    bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class PointerKept(Event):
    """`version` is complete, but the pointer was deliberately left on another version."""

    kind: ClassVar[str] = "pointer-stays"
    version: str
    message: str


@dataclass(frozen=True, slots=True)
class FileDeleted(Event):
    """One file that the container no longer has was moved into the trash."""

    kind: ClassVar[str] = "deleted"
    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class GzipStored(Event):
    """A version in a folder has gzip files with these endings.

    A web server must declare their encoding, or viewers cannot read them.
    """

    kind: ClassVar[str] = "gzip"
    version: str
    files: int
    endings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VersionPublished(Event):
    """The pointer now names `version`."""

    kind: ClassVar[str] = "published"
    version: str
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class VersionPacked(Event):
    """A version was written into the file `package`, which has `package_bytes`. `bytes`: those of the version."""

    kind: ClassVar[str] = "packed"
    version: str
    package: str
    format: str
    files: int
    bytes: int
    package_bytes: int


@dataclass(frozen=True, slots=True)
class CheckCompleted(Event):
    """The result of one check of `doctor`.

    `result`: ok, warn, fail or skipped. `hint`: the steps that fix the problem.
    """

    kind: ClassVar[str] = "check"
    name: str
    result: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Serving(Event):
    """The server listens. `urls`: the root tilesets; `viewer`: the viewer page; `network`: its addresses for others.

    No URL has a token.
    """

    kind: ClassVar[str] = "serving"
    viewer: str
    urls: tuple[str, ...]
    network: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RequestServed(Event):
    """A request was answered. Sent only if the server reports every request (`-v`).

    `path`: as the client sent it, without its query. `cache`: hit, miss or pass of a live export, else empty.
    `failure`: the reason of an answer that failed or broke off, else empty.
    """

    kind: ClassVar[str] = "request"
    client: str
    method: str
    path: str
    status: int
    bytes: int
    milliseconds: float
    cache: str = ""
    failure: str = ""
