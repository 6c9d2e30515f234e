"""What happened, told upward as frozen values. `kind` is the name that programs read in `--json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened."""

    kind: ClassVar[str] = "event"


@dataclass(frozen=True, slots=True)
class Notice(Event):
    """Worth saying to a person; the run goes on."""

    kind: ClassVar[str] = "notice"
    message: str


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """Something is not as it should be; the run goes on."""

    kind: ClassVar[str] = "warning"
    message: str


@dataclass(frozen=True, slots=True)
class Waiting(Event):
    """No matching export is Complete yet; the next look is `seconds` away."""

    kind: ClassVar[str] = "waiting"
    message: str
    hint: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ExportResolved(Event):
    """The run knows what it mirrors, and into which version."""

    kind: ClassVar[str] = "resolved"
    export: str
    imodel: str | None
    changeset: str | None
    modified: str
    newest: str
    behind: bool


@dataclass(frozen=True, slots=True)
class OwnerIdentified(Event):
    """Whose exports the destination holds: the id of an iModel, or the URL of a container."""

    kind: ClassVar[str] = "owner"
    owner: str


@dataclass(frozen=True, slots=True)
class VersionChosen(Event):
    """The version that this run is about: `begun` now, `continued` from an earlier run, or `held` whole already."""

    kind: ClassVar[str] = "version"
    version: str
    state: str


@dataclass(frozen=True, slots=True)
class PageListed(Event):
    """One page of the inventory is in; counts are running totals, `complete` with the last page."""

    kind: ClassVar[str] = "listed"
    files: int
    bytes: int
    complete: bool


@dataclass(frozen=True, slots=True)
class Planned(Event):
    """What would be done with one file, or with a version as a whole, and why."""

    kind: ClassVar[str] = "plan"
    action: str
    name: str
    bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class FileStored(Event):
    """One file is in, verified. Sent only where someone asked for every file (`-v`)."""

    kind: ClassVar[str] = "stored"
    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class FileReused(Event):
    """One file is in, taken from another version. Sent only where someone asked for every file (`-v`)."""

    kind: ClassVar[str] = "reused"
    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class FileFailed(Event):
    """One file failed for good. `hint`: what helps, where another run does not."""

    kind: ClassVar[str] = "file-failed"
    name: str
    error: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Retried(Event):
    """An attempt failed and is made again after `seconds`."""

    kind: ClassVar[str] = "retry"
    what: str
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class LinkRenewed(Event):
    """A fresh link replaced the one before."""

    kind: ClassVar[str] = "renewed"
    expires: str | None


@dataclass(frozen=True, slots=True)
class Finding(Event):
    """`verify` found something. `asked_by`: a file that asks for this one, empty where none does. `version`: where."""

    kind: ClassVar[str] = "finding"
    name: str
    problem: str
    message: str
    asked_by: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class DiagnosticReported(Event):
    """Something about one file that a person may want to know, and that is no error. `problem` is a word for it."""

    kind: ClassVar[str] = "remark"
    name: str
    problem: str
    message: str


@dataclass(frozen=True, slots=True)
class ExportFailed(Event):
    """One export of several could not be mirrored; the next one is tried."""

    kind: ClassVar[str] = "export-failed"
    export: str
    error: str
    message: str


@dataclass(frozen=True, slots=True)
class VersionRetired(Event):
    """A version was given up, and lies in the trash."""

    kind: ClassVar[str] = "retired"
    version: str
    files: int
    bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class PointerKept(Event):
    """`version` is held, and the pointer names another one on purpose, or was not to be moved."""

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
    """Files of a version in a folder, of these endings, are gzip: a web server must say so, or no viewer reads them."""

    kind: ClassVar[str] = "gzip"
    version: str
    files: int
    endings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VersionPublished(Event):
    """The pointer names `version` now."""

    kind: ClassVar[str] = "published"
    version: str
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class CheckCompleted(Event):
    """One check of `doctor`. `result`: ok, warn, fail or skipped; `hint`: what mends it, in so many lines."""

    kind: ClassVar[str] = "check"
    name: str
    result: str
    message: str
    hint: str = ""
