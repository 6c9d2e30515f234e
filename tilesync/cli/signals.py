"""Signals that stop a run: list and handle them, and map each to an error."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

from tilesync.errors import HungUp, Interrupted, Terminated

if TYPE_CHECKING:
    import asyncio

HANGUP: int | None = getattr(signal, "SIGHUP", None)
"""A closed terminal or ssh session; Windows has no such signal."""

_CAN_DEFER = hasattr(signal, "setitimer")
"""Windows has no timer that sends a signal: there a signal during an import is raised at once."""

_IMPORT_POLL_S = 0.01
"""Seconds until a signal that arrived during an import is sent again."""


def install_signal_handlers() -> None:
    """Raise an error on each signal that stops a run, before and after a session handles them itself.

    A signal that arrives during an import is raised after it: raised inside, it would leave half a module behind, or
    be lost in a callback of the import system. Does nothing outside the main thread: Python allows signal handlers
    only there.
    """
    with contextlib.suppress(ValueError):
        for number in list_stop_signals():
            if number != signal.SIGINT or _CAN_DEFER:  # SIGINT raises KeyboardInterrupt already
                signal.signal(number, _raise_after_import)


@contextlib.contextmanager
def signals_as_errors() -> Iterator[None]:
    """Raise an error for each signal that stops a run, inside the `with` block."""
    with _restored_handlers():
        install_signal_handlers()
        yield


class SignalRelay:
    """Signals that stop a run, from before its event loop starts until the loop is closed; none raises an error.

    An error that a signal raises while uvloop starts or stops leaves a loop that cannot be closed. So a signal waits
    until the run has begun. Then `on_signal` is called by the loop, and when the run is over, by the signal handler.
    """

    def __init__(self, on_signal: Callable[[int], None]) -> None:
        self._on_signal = on_signal
        self._waiting: list[int] = []
        self._forward: Callable[[int], object] = self._waiting.append

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signals inside the `with` block, which starts and closes the loop."""
        with _restored_handlers():
            for number in list_stop_signals():
                signal.signal(number, lambda number, _: self._forward(number))
            yield

    @contextlib.contextmanager
    def forwarded_to(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """Call `on_signal` in the running loop for each signal that waits or arrives inside the `with` block."""
        self._forward = lambda number: loop.call_soon_threadsafe(self._on_signal, number)
        for number in self._waiting:
            self._forward(number)
        try:
            yield
        finally:
            self._forward = self._on_signal


@contextlib.contextmanager
def _restored_handlers() -> Iterator[None]:
    """Restore the signal handlers at the end of the `with` block."""
    before = {number: signal.getsignal(number) for number in list_stop_signals()}
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # outside the main thread no handler was changed
            for number, handler in before.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def restore_default_handlers() -> None:
    """Let each signal that stops a run end the process at once, without an error."""
    with contextlib.suppress(ValueError):
        for number in list_stop_signals():
            signal.signal(number, signal.SIG_DFL)


def exit_on_signals(code: int) -> None:
    """End the process with this code at each signal that stops a run: an error would be printed with a traceback."""
    with contextlib.suppress(ValueError):
        for number in list_stop_signals():
            signal.signal(number, lambda *_: os._exit(code))


@contextlib.contextmanager
def signals_as_exit(code: int) -> Iterator[None]:
    """End the process with this code at each signal that stops a run, inside the `with` block."""
    with _restored_handlers():
        exit_on_signals(code)
        yield


def list_stop_signals() -> list[int]:
    """Return the signals that stop a run. An ignored SIGHUP is left out: `nohup` ignores it on purpose."""
    handles_hangup = HANGUP is not None and signal.getsignal(HANGUP) is not signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([HANGUP] if HANGUP is not None and handles_hangup else [])]


def error_for_signal(number: int, *, hint: str | None = None) -> Interrupted:
    """Return the error of a run that a signal stopped; `hint`: None for the default one."""
    error_classes = {signal.SIGTERM: Terminated, HANGUP: HungUp}
    return error_classes.get(number, Interrupted)("stopped by a signal", hint=hint)


def _raise_after_import(number: int, frame: FrameType | None) -> None:
    if _CAN_DEFER and _is_importing(frame):
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(number))  # to the handler of that time
        signal.setitimer(signal.ITIMER_REAL, _IMPORT_POLL_S)
    elif number == signal.SIGINT:
        raise KeyboardInterrupt
    else:
        raise error_for_signal(number)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
