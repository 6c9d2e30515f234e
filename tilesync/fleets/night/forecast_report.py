"""Report of the forecast, as soon as the exports of all mirrors are known."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from tilesync.events import ForecastMade, Warned
from tilesync.fleets.night.forecast import Estimate, make_forecast
from tilesync.fleets.roster import FleetMirror
from tilesync.protocols import Clock, Observer


class ForecastReporter:
    """Collects the estimates of the mirrors, and reports the forecast once all are known.

    `end`: end of the window, None for no limit. `bytes_per_s`: rate of an earlier night, if known.
    """

    def __init__(
        self,
        mirrors: Sequence[FleetMirror],
        observe: Observer,
        clock: Clock,
        *,
        end: datetime | None,
        bytes_per_s: float | None,
    ) -> None:
        self._observe = observe
        self._clock = clock
        self._end = end
        self._bytes_per_s = bytes_per_s
        self._waiting = {mirror.key for mirror in mirrors}
        self._estimates: list[tuple[Estimate, Path | None]] = []

    def add(self, mirror: FleetMirror, estimate: Estimate) -> None:
        """Add the estimate of a mirror."""
        self._estimates.append((estimate, Path(mirror.folder) if mirror.folder is not None else None))
        self.skip(mirror)

    def skip(self, mirror: FleetMirror) -> None:
        """Wait for this mirror no longer: it has an estimate, or ended without one."""
        if mirror.key not in self._waiting:
            return
        self._waiting.discard(mirror.key)
        if not self._waiting and self._estimates:
            self._report()

    def _report(self) -> None:
        left = None if self._end is None else self._end - self._clock.now()
        forecast = make_forecast(self._estimates, left=left, bytes_per_s=self._bytes_per_s)
        self._observe(
            ForecastMade(forecast.mirrors, forecast.changed, forecast.unsized, forecast.bytes, forecast.message)
        )
        for warning in forecast.warnings:
            self._observe(Warned(warning))
