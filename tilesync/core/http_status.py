"""From a verdict to the error that follows from it, where no caller knows better."""

from __future__ import annotations

from typing import Final

from tilesync.azure.responses import Verdict
from tilesync.errors import Transient, Unavailable

PROXY_LOGIN: Final = "write user name and password into HTTPS_PROXY, as http://USER:PASSWORD@HOST:PORT"
_ELSEWHERE: Final = "a gateway or a login page sends requests elsewhere, where tilesync does not follow"


def demand(verdict: Verdict, status: int, wait: float | None, what: str, hint: str = "") -> None:
    """Return when the answer is done; raise Transient for one to be tried again, Unavailable for one not foreseen.

    `wait`: the seconds that the server asks for. `hint`: what helps against an answer that only the
    caller knows; empty for nothing.
    """
    if verdict is Verdict.DONE:
        return
    if verdict in {Verdict.RETRY, Verdict.PRESSURE}:
        raise Transient(f"{what} answered {status}", retry_after=wait, pressure=verdict is Verdict.PRESSURE)
    if status == 407:
        raise Unavailable(f"{what}: a proxy wants a user name and a password ({status})", hint=PROXY_LOGIN)
    hint = status_hint(status) or hint
    raise Unavailable(f"{what} answered {status}, which tilesync does not know how to take", hint=hint)


def status_hint(status: int) -> str:
    """What helps against a status that comes from something on the way; empty for any other."""
    if status == 407:
        return PROXY_LOGIN
    return _ELSEWHERE if 300 <= status < 400 else ""
