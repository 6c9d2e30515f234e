"""One call of the Python API: its events, its threads, and the result that an error carries."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from tilesync.api.locations import redact_dest, redact_source
from tilesync.api.monitor import RunMonitor
from tilesync.api.results import RunResult
from tilesync.errors import TilesyncError
from tilesync.events import Event
from tilesync.model import Secret
from tilesync.runtime.threads import own_thread_pool

R = TypeVar("R", bound=RunResult)

OnEvent = Callable[[Event], None]
OnPublish = Callable[[dict[str, Any]], Awaitable[None] | None]
"""Called with the report and `pointer`, the version that the pointer names now. An error that it raises ends the run;
the next run with `on_publish` calls it again.
"""


class Call:
    """One call of the API: its monitor, and the listeners of its events."""

    def __init__(self, monitor: RunMonitor | None, on_event: OnEvent | None, source: object, dest: object) -> None:
        self.monitor = monitor or RunMonitor()
        if self.monitor.source is None and source is not None:
            self.monitor.source = redact_source(source if isinstance(source, str) else _display_text(source))
        if self.monitor.dest is None and dest is not None:
            self.monitor.dest = redact_dest(_display_text(dest))
        self._listeners = [] if on_event is None else [on_event]
        self._lock = threading.RLock()

    def listen(self, listener: OnEvent) -> None:
        """Add a listener, which is called with each event."""
        self._listeners.append(listener)

    def observe(self, event: Event) -> None:
        """Record an event and pass it to all listeners, one event at a time. Any thread may call it."""
        with self._lock:
            event = self.monitor.record(event)
            for listener in self._listeners:
                listener(event)

    @contextmanager
    def run(self, kind: type[R], fields: Callable[[], Mapping[str, Any]] = dict) -> Iterator[None]:
        """Run the block with threads of its own; attach the result so far to an error."""
        with self.attach_result(kind, fields), own_thread_pool():
            yield

    @contextmanager
    def attach_result(self, kind: type[R], fields: Callable[[], Mapping[str, Any]] = dict) -> Iterator[None]:
        """Attach the result so far to an error, and remove secrets from its message."""
        try:
            yield
        except TilesyncError as error:
            error.result = self.monitor.result(kind, self.monitor.mask(error), **fields())
            raise


def _display_text(value: object) -> str | None:
    return None if isinstance(value, Secret) else str(value)


def make_hook(monitor: RunMonitor, on_publish: OnPublish) -> Callable[[str, TilesyncError | None], Awaitable[None]]:
    """Make the function that calls `on_publish` with the report of the run."""

    async def hook(version: str, error: TilesyncError | None) -> None:
        line = monitor.finished_line() if error is None else monitor.failed_line(error)
        returned = on_publish({**monitor.report(line), "pointer": version})
        if inspect.isawaitable(returned):
            await returned

    return hook
