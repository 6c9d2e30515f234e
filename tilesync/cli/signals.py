"""Signals that stop a run: which of them are handled, and the error that each means."""

from __future__ import annotations

import contextlib
import signal
from typing import NoReturn

from tilesync.errors import HungUp, Interrupted, Terminated

HANGUP: int | None = getattr(signal, "SIGHUP", None)
"""A closed terminal or ssh session; Windows has no such signal."""


def install_signal_handlers() -> None:
    """Handle SIGTERM and SIGHUP by an error, until a session handles them itself, and after. Does nothing outside the
    main thread: signals are for that one.
    """
    with contextlib.suppress(ValueError):
        for number in list_stop_signals():
            if number != signal.SIGINT:  # that one raises KeyboardInterrupt
                signal.signal(number, _raise_for_signal)


def list_stop_signals() -> list[int]:
    """The signals that stop a run. SIGHUP is none where it is ignored: `nohup` asks for that."""
    heard = HANGUP is not None and signal.getsignal(HANGUP) is not signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([HANGUP] if HANGUP is not None and heard else [])]


def error_for_signal(number: int) -> Interrupted:
    """The error of a run that a signal stopped."""
    kinds = {signal.SIGTERM: Terminated, HANGUP: HungUp}
    return kinds.get(number, Interrupted)("stopped by a signal")


def _raise_for_signal(number: int, frame: object) -> NoReturn:
    raise error_for_signal(number)
