"""Exceptions of tilesync: the class of an error decides how the run reacts.

A `BlobError` concerns one blob: the run goes on, but nothing is published. A `RunError` ends the run. A `Transient` is
handled by the retry loops and never reaches a user. Each class has an exit code and a default hint: one sentence that
says what to do.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar


class TilesyncError(Exception):
    """Base class of all tilesync errors. `str()` is one sentence without secrets, safe to show.

    `hint` says what to do. `result` is the partial result of the run that the error ended; None outside a run.
    `is_retryable`: the same call may succeed later, without any change by a person.
    """

    exit_code: ClassVar[int] = 1
    is_retryable: ClassVar[bool] = False
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = self.default_hint if hint is None else hint
        self.result: Any = None

    def to_dict(self) -> dict[str, Any]:
        """Return the last `--json` line of a run that ended with this error."""
        if self.result is not None:
            line: dict[str, Any] = self.result.to_dict()
            return line
        return {
            "kind": "failed",
            "exit": self.exit_code,
            "error": type(self).__name__,
            "message": str(self),
            "hint": self.hint,
        }


class Transient(TilesyncError):
    """A failed attempt that is worth a retry.

    `retry_after`: the seconds that the server asked for. `retry_limit_s`: seconds after which retries cannot help, if
    that is less than the retry budget.
    """

    retry_limit_s: ClassVar[float | None] = None

    def __init__(
        self, message: str, *, retry_after: float | None = None, is_throttled: bool = False, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after
        self.is_throttled = is_throttled


class AllCallsWait(Transient):
    """The service throttles, and all API calls wait, longer than the retry budget if necessary."""


class UnknownHost(Transient):
    """A host name does not resolve: the name is wrong, or the resolver is just starting."""

    retry_limit_s = 5.0
    default_hint = "check the name of the host, the proxy (HTTPS_PROXY) and the DNS servers of this machine"


class RangeRefused(Transient):
    """The server cannot resume the transfer at this offset: the received bytes must be discarded."""


class ConditionFailed(TilesyncError):
    """A conditional write failed: the object changed in the meantime."""


class LinkRefused(TilesyncError):
    """The container answered 403: the link must be renewed, or the refusal is final if it was just renewed.

    `server_time`: the clock of the server that answered. `is_permanent`: time cannot cure it (a wrong signature, a
    missing permission). Any other refusal may mean that the link is not valid yet.
    """

    def __init__(
        self, message: str, *, hint: str | None = None, server_time: datetime | None = None, is_permanent: bool = False
    ) -> None:
        super().__init__(message, hint=hint)
        self.server_time = server_time
        self.is_permanent = is_permanent


class BlobError(TilesyncError):
    """One blob failed permanently: the run goes on, but nothing is published."""

    exit_code = 3


class BlobMissing(BlobError):
    """The container lists a blob that it does not have (404 BlobNotFound)."""


class BlobDamaged(BlobError):
    """The bytes of a blob contradict its listing or its own format."""


class BlobUnreachable(BlobError):
    """One blob failed until the retry budget was spent, while others arrived."""


class RunError(TilesyncError):
    """Base class of errors that end the run."""


class UsageError(RunError):
    """The command or its arguments are wrong."""

    exit_code = 2
    default_hint = "`tilesync --help` shows the commands and their options"


class InvalidRequest(RunError):
    """The service calls the request invalid (422)."""

    exit_code = 2
    default_hint = "correct the ids or options that the service names, then run again"


class Incomplete(RunError):
    """Some files failed or are damaged; this export was not published."""

    exit_code = 3
    is_retryable = True
    default_hint = "run the same command again: files that arrived are kept, only the rest is fetched"


class NoExport(RunError):
    """No export matches, or none finished in time."""

    exit_code = 4
    is_retryable = True
    default_hint = "`tilesync exports IMODEL_ID` shows the exports that the service has, and their states"


class NotAuthorised(RunError):
    """The service or the container refuses this identity (401, 403)."""

    exit_code = 5
    default_hint = "check the token or client credentials, and that this identity is a member of the iTwin"


class ListingDenied(NotAuthorised):
    """The container refuses a listing, and perhaps only that.

    `refusal`: the error to raise if reading is refused too.
    """

    def __init__(self, refusal: NotAuthorised) -> None:
        super().__init__(str(refusal), hint=refusal.hint)
        self.refusal = refusal


class NoFreshLink(NotAuthorised):
    """The link is refused or has expired, and there is no way to get another one."""

    default_hint = "run the same command with a fresh link, or with --link-command: it continues where it stopped"


class Unavailable(RunError):
    """The service or the storage failed until the retry budget was spent."""

    exit_code = 6
    is_retryable = True
    default_hint = "run the same command again later: nothing is lost; `mirror --retry-for` retries for longer"


class ExportReplaced(RunError):
    """The export was regenerated or deleted during the run."""

    exit_code = 7
    is_retryable = True
    default_hint = "run again: the next run looks up the newest export"


class DestinationError(RunError):
    """The destination cannot take the export."""

    exit_code = 8
    default_hint = "choose another destination, or fix the problem that the message names, then run again"


class OtherOwner(DestinationError):
    """The destination belongs to another iModel or container than the requested one."""

    default_hint = (
        "choose another DEST; or give --adopt (in a fleet file: adopt = true) to use this one for the requested exports"
        " from now on"
    )


class DiskFull(DestinationError):
    """The destination has no space left."""

    default_hint = "free some space, then run the same command again: it continues where it stopped"


class Unreadable(DestinationError):
    """A file in the destination cannot be read or examined; it does not count as missing."""

    default_hint = "fix the cause (permissions, the disk), then run again: nothing is lost"


class DamagedPackage(DestinationError):
    """A package file is cut off or damaged, is no package at all, or has something that tilesync does not read."""

    default_hint = "copy it again from where it came, or make it again with `tilesync pack`"


class UnsafeName(DestinationError):
    """The name of a blob cannot be stored safely in the destination."""

    default_hint = "leave it out with --exclude NAME; an object store accepts more names than a folder"


class OutputLost(RunError):
    """Writing to standard output failed."""

    exit_code = 8
    default_hint = "free space where standard output goes, or redirect it elsewhere, then run the same command again"


class DestinationBusy(RunError):
    """Another run has locked the destination."""

    exit_code = 9
    is_retryable = True
    default_hint = "wait for the other run to end; a killed run leaves no lock behind"


class VerifyFailed(RunError):
    """The audit found problems."""

    exit_code = 10
    default_hint = "run `tilesync mirror` again: it fetches the bad files again"


class PackFailed(RunError):
    """Files of the version are missing or damaged, so it was not packed."""

    exit_code = 3
    default_hint = (
        "run `tilesync verify DEST`, then `tilesync mirror`, which fetches the bad files again; then pack again"
    )


class GuardTripped(RunError):
    """A guard stopped the run before a change that looks like a mistake."""

    exit_code = 11


class NotFresh(RunError):
    """A mirror is stale or failing, or no run of it has ended well yet."""

    exit_code = 12
    default_hint = "run the command that continues each of them: --page and --json show it"


class WindowEnded(RunError):
    """The window of time of a fleet ended before all its mirrors were done."""

    exit_code = 14
    default_hint = "the next run continues"


class Interrupted(RunError):
    """SIGINT: the user pressed Ctrl-C."""

    exit_code = 130
    default_hint = "run the same command again: it continues where it stopped"


class Terminated(Interrupted):
    """SIGTERM: the system or a service manager ended the run."""

    exit_code = 143


class HungUp(Interrupted):
    """SIGHUP: the terminal or the ssh session was closed."""

    exit_code = 129
