"""Simulate a crash of the process at a chosen call, without ending the tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class SimulatedCrash(BaseException):
    """Simulated end of the process; nothing in the product catches it."""


class CrashAfterCalls:
    """Crashes before the nth of some calls."""

    def __init__(self, calls: int) -> None:
        self._left = calls

    def wrap(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that its calls are counted."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                raise SimulatedCrash
            return real(*args, **kwargs)

        return call
