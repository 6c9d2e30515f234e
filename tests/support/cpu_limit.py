"""CPU time limit far above what code needs on a slow machine, for code that otherwise would hardly end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def limit_cpu_time(limit_s: float = 20) -> Iterator[None]:
    """Assert that the block takes less CPU time than the limit.

    It tells linear from quadratic time and from an endless walk, and says nothing of speed: choose a limit of ten times
    what the block takes.
    """
    began = time.process_time()
    yield
    seconds = time.process_time() - began
    assert seconds < limit_s, f"{seconds:.1f} s of CPU time, at most {limit_s:g} s"
