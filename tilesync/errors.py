"""The error tree: the class of an error is the policy that follows from it.

A `BlobError` concerns one blob: the run goes on, and nothing is published. A `RunError` ends the run. A `Transient`
is met by the retry loops only and never reaches a user. Each class carries its exit code and a hint that says in one
sentence what to do.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar


class TilesyncError(Exception):
    """Something that tilesync can name; `str()` is one sentence, safe to show: it never holds a signature or token.

    `hint` says what to do. `result` is that of the run that it ended, as far as it came; None outside of a run.
    """

    exit_code: ClassVar[int] = 1
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = self.default_hint if hint is None else hint
        self.result: Any = None

    def to_dict(self) -> dict[str, Any]:
        """The last line of `--json` of the run that ended with it."""
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
    """One attempt failed in a way that another may cure. `retry_after` is what the server asked for, in seconds.

    `limit`: seconds after which no other attempt helps, if that is not what the retry budget says.
    """

    retry_limit_s: ClassVar[float | None] = None

    def __init__(
        self, message: str, *, retry_after: float | None = None, is_throttled: bool = False, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after
        self.is_throttled = is_throttled


class UnknownHost(Transient):
    """The name of a host does not resolve: a wrong name, which time does not cure, or a resolver that just starts."""

    retry_limit_s = 5.0
    default_hint = "check the name, or that of the proxy (HTTPS_PROXY), and the name servers of this machine"


class RangeRefused(Transient):
    """The server cannot continue where the transfer stands: what is held is to be forgotten."""


class ConditionFailed(TilesyncError):
    """What was to be replaced is another one by now."""


class LinkRefused(TilesyncError):
    """The container answered 403 to one request: the link wants renewing, or is final after that.

    `server_time` is the clock of who answered. `certain`: no time cures what it says (a wrong signature, a permission
    that lacks); any other refusal may be that of a link that is not valid yet.
    """

    def __init__(
        self, message: str, *, hint: str | None = None, server_time: datetime | None = None, is_permanent: bool = False
    ) -> None:
        super().__init__(message, hint=hint)
        self.server_time = server_time
        self.is_permanent = is_permanent


class BlobError(TilesyncError):
    """One blob failed for good: the run goes on and nothing is published."""

    exit_code = 3


class BlobMissing(BlobError):
    """The container lists a blob that it does not have (404 BlobNotFound)."""


class BlobDamaged(BlobError):
    """The bytes of a blob are not what the container, or their own format, says they are."""


class BlobUnreachable(BlobError):
    """One blob kept failing past the retry budget while others arrived."""


class RunError(TilesyncError):
    """The run ends here."""


class UsageError(RunError):
    """The request itself is wrong."""

    exit_code = 2
    default_hint = "see `tilesync --help`"


class InvalidRequest(RunError):
    """The service calls the request invalid (422)."""

    exit_code = 2
    default_hint = "correct the ids or options that the service names, then run again"


class Incomplete(RunError):
    """Some files failed or did not verify; this export was not published."""

    exit_code = 3
    default_hint = "run the same command again: what arrived is kept, only the rest is fetched"


class NoExport(RunError):
    """No export matches, or none finished in time."""

    exit_code = 4
    default_hint = "`tilesync exports IMODEL_ID` shows what the service has"


class NotAuthorised(RunError):
    """The service or the container refuses this identity (401, 403)."""

    exit_code = 5
    default_hint = "check the token or client credentials, and that this identity is a member of the iTwin"


class ListingDenied(NotAuthorised):
    """The container refuses to be listed, and perhaps only that; `refusal` is what it comes to if not."""

    def __init__(self, refusal: NotAuthorised) -> None:
        super().__init__(str(refusal), hint=refusal.hint)
        self.refusal = refusal


class NoFreshLink(NotAuthorised):
    """The link is refused or has ended, and there is no way to another."""

    default_hint = "run the same command with a fresh link, or with --link-command: it continues where it stopped"


class Unavailable(RunError):
    """Service or storage kept failing past the retry budget."""

    exit_code = 6
    default_hint = "run the same command again later: nothing is lost; `mirror --retry-for` waits longer"


class ExportReplaced(RunError):
    """The export was regenerated or deleted under the run."""

    exit_code = 7
    default_hint = "run again: the next run resolves the newest export anew"


class DestinationError(RunError):
    """The destination cannot take the export."""

    exit_code = 8
    default_hint = "choose another destination, or mend what the message names, then run again"


class OtherOwner(DestinationError):
    """The destination belongs to another iModel, or another container, than is asked for."""

    default_hint = "choose another DEST; or give --adopt, if this one is to hold the other from now on"


class DiskFull(DestinationError):
    """The destination has no room."""

    default_hint = "make room, then run the same command again: it continues where it stopped"


class Unreadable(DestinationError):
    """Something that lies in the destination cannot be read or looked at: it is not taken for gone."""

    default_hint = "mend what keeps it from being read (permissions, the disk), then run again: it still counts as held"


class UnsafeName(DestinationError):
    """A blob has a name that the destination cannot hold safely."""

    default_hint = "leave it out with --exclude NAME; an object store can hold more names than a folder"


class OutputLost(RunError):
    """What was written to standard output did not get there."""

    exit_code = 8
    default_hint = "make room where standard output goes, or send it elsewhere, then run the same command again"


class DestinationBusy(RunError):
    """Another run holds the destination."""

    exit_code = 9
    default_hint = "wait for the other run to end; a killed run leaves no lock behind"


class VerifyFailed(RunError):
    """The audit found problems."""

    exit_code = 10
    default_hint = "run `tilesync mirror` again: it fetches what was found bad"


class GuardTripped(RunError):
    """A guard stopped the run before it did something that looks like a mistake."""

    exit_code = 11


class Interrupted(RunError):
    """Ctrl-C."""

    exit_code = 130
    default_hint = "run the same command again: it continues where it stopped"


class Terminated(Interrupted):
    """SIGTERM."""

    exit_code = 143


class HungUp(Interrupted):
    """SIGHUP: the terminal or the ssh session was closed."""

    exit_code = 129
