"""Threads that read again and again while a test changes what they read."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Self


class ReadingThreads(ABC):
    """Threads that read from the start of a `with` block to its end. `stopped` is set at the end."""

    def __init__(self, count: int) -> None:
        self.stopped = threading.Event()
        self._threads = [threading.Thread(target=self.read, args=(number,)) for number in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        for thread in self._threads:
            thread.join()

    @abstractmethod
    def read(self, number: int) -> None:
        """Read in the thread with this number until `stopped` is set."""
