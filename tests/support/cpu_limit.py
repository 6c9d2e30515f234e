"""CPU time limit far above what code needs on a slow machine, for code that otherwise would hardly end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ends_soon(limit_s: float = 60) -> Iterator[None]:
    """Assert that the block takes less CPU time than the limit.

    The limit tells linear from quadratic time or an endless walk. It says nothing of speed: it is ten times what the
    block takes on a slow machine.
    """
    began = time.process_time()
    yield
    seconds = time.process_time() - began
    assert seconds < limit_s, f"{seconds:.1f} s of CPU time, at most {limit_s:g} s"
