"""From a verdict to the error that follows from it, where no caller knows better."""

from __future__ import annotations

from tilesync.errors import Transient, Unavailable
from tilesync.rules.replies import Verdict


def demand(verdict: Verdict, status: int, wait: float | None, what: str) -> None:
    """Return when the answer is done; raise Transient for one to be tried again, Unavailable for one not foreseen.
    `wait`: the seconds that the server asks for.
    """
    if verdict is Verdict.DONE:
        return
    if verdict in {Verdict.RETRY, Verdict.PRESSURE}:
        raise Transient(f"{what} answered {status}", retry_after=wait, pressure=verdict is Verdict.PRESSURE)
    raise Unavailable(f"{what} answered {status}, which tilesync does not know how to take", hint="check the URL")
