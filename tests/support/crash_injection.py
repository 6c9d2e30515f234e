"""A process that ends in the middle of something, without ending the tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class SimulatedCrash(BaseException):
    """The process is gone: nothing catches this."""


class CrashAfterCalls:
    """Ends at the nth of some calls, before it is made."""

    def __init__(self, calls: int) -> None:
        self._left = calls

    def wrap(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """A call that counts."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                raise SimulatedCrash
            return real(*args, **kwargs)

        return call
