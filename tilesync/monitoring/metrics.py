"""Metrics of mirrors in the text format of Prometheus, for the textfile collector of node_exporter."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

from tilesync.errors import UsageError
from tilesync.model.history import RunRecord
from tilesync.monitoring.status import Health, MirrorStatus, parse_time
from tilesync.values import dataclass

FILE_ENDING: Final = ".prom"
"""Ending of the files that the textfile collector reads. Source: node_exporter, collector/textfile.go."""

HEALTH_METRIC: Final = "tilesync_health"


@dataclass(frozen=True, slots=True)
class Metric:
    """Gauge with a value for each mirror. `read` returns the value at a time; None if it is unknown."""

    name: str
    help: str
    read: Callable[[MirrorStatus, datetime], float | None]


def format_metrics(statuses: Sequence[MirrorStatus], *, now: datetime, disk_free: Mapping[str, int]) -> bytes:
    """Format the metrics of mirrors. `disk_free`: free bytes at the destination, by the name of the mirror.

    Unknown values are left out. Each metric has the label `mirror`, which is the name of the mirror.
    """
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.exposition import generate_latest
    from prometheus_client.registry import Collector

    class StatusCollector(Collector):
        """Collector of the values of the mirrors, as they are now."""

        def collect(self) -> Iterator[GaugeMetricFamily]:
            """Yield a family for each metric that is known of a mirror."""
            for metric in METRICS:
                values = ((status, metric.read(status, now)) for status in statuses)
                yield from _make_family(metric.name, metric.help, values)
            values = ((status, disk_free.get(status.name)) for status in statuses)
            yield from _make_family(*DISK_FREE_METRIC, values)
            health = GaugeMetricFamily(HEALTH_METRIC, HEALTH_HELP, labels=["mirror", "state"])
            for status in statuses:
                for state in Health:
                    health.add_metric([_encode_label(status.name), state.value], float(status.health is state))
            yield health

    def _make_family(
        name: str, text: str, values: Iterable[tuple[MirrorStatus, float | None]]
    ) -> Iterator[GaugeMetricFamily]:
        known = [(status, value) for status, value in values if value is not None]
        family = GaugeMetricFamily(name, text, labels=["mirror"])
        for status, value in known:
            family.add_metric([_encode_label(status.name)], float(value))
        if known:
            yield family

    return generate_latest(StatusCollector())


def check_metrics_file(path: Path) -> None:
    """Raise UsageError for a name that the textfile collector does not read."""
    if not path.name.endswith(FILE_ENDING) or path.name == FILE_ENDING:
        raise UsageError(
            f"the name of the metrics file {path} does not end in {FILE_ENDING}: the textfile collector would not"
            " read it",
            hint=f"name it {path.stem.strip('.') or 'tilesync'}{FILE_ENDING}, in the folder of node_exporter's"
            " --collector.textfile.directory",
        )


def measure_free_bytes(folder: Path) -> int | None:
    """Return the free bytes of the file system of a folder, which need not exist yet; None if they are unknown."""
    for place in (folder, *folder.absolute().parents):
        try:
            return shutil.disk_usage(place).free
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None


def list_metrics() -> dict[str, str]:
    """Return the help text of each metric by its name, in the order of the file."""
    names = {metric.name: metric.help for metric in METRICS}
    return names | dict([DISK_FREE_METRIC, (HEALTH_METRIC, HEALTH_HELP)])


def _encode_label(text: str) -> str:
    """Return a text that can be encoded: bytes of a path that are no text become question marks."""
    return text.encode(errors="replace").decode()


def _of_last_run(read: Callable[[RunRecord], float]) -> Callable[[MirrorStatus, datetime], float | None]:
    """Read a value of the last run; None while there was none, or if it was killed."""

    def read_status(status: MirrorStatus, now: datetime) -> float | None:
        run = status.history.last_run
        return None if run is None or run.exit is None else read(run)

    return read_status


def _timestamp(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _age(moment: datetime | None, now: datetime) -> float | None:
    return None if moment is None else (now - moment).total_seconds()


def _last_start(status: MirrorStatus, now: datetime) -> float | None:
    run = status.history.last_run
    return None if run is None else _timestamp(parse_time(run.started))


def _last_success(status: MirrorStatus, now: datetime) -> float | None:
    return _timestamp(parse_time(status.history.last_success))


def _consecutive_failures(status: MirrorStatus, now: datetime) -> float:
    runs = status.history.runs[:-1] if status.is_running else status.history.runs
    return sum(1 for _ in takewhile(lambda run: not run.is_success, reversed(runs)))


def _behind(status: MirrorStatus, now: datetime) -> float | None:
    history = status.history
    return None if history.newest is None else float(history.behind_since is not None)


def _held_count(name: str) -> Callable[[MirrorStatus, datetime], Any]:
    """Read a count of the held version; None if no version is known."""
    return lambda status, now: getattr(status.history.held, name, None)


def _published_export_time(status: MirrorStatus) -> datetime | None:
    """Return when the service exported the held version, or else when it was published."""
    held = status.history.held
    return None if held is None else parse_time(held.modified or held.published)


def _newest_export_time(status: MirrorStatus) -> datetime | None:
    history = status.history
    if history.newest_modified:
        return parse_time(history.newest_modified)
    is_held = history.held is not None and history.held.export == history.newest
    return _published_export_time(status) if is_held else None


METRICS: Final = (
    Metric("tilesync_last_run_timestamp_seconds", "Start of the last run, in seconds since 1970.", _last_start),
    Metric(
        "tilesync_last_success_timestamp_seconds",
        "End of the last run that ended well, in seconds since 1970.",
        _last_success,
    ),
    Metric(
        "tilesync_last_run_exit_code",
        "Exit code of the last run: 0 is good.",
        _of_last_run(lambda run: run.exit or 0),
    ),
    Metric(
        "tilesync_last_run_duration_seconds",
        "Duration of the last run, in seconds.",
        _of_last_run(lambda run: run.seconds),
    ),
    Metric(
        "tilesync_last_run_fetched_files", "Files that the last run fetched.", _of_last_run(lambda run: run.fetched)
    ),
    Metric(
        "tilesync_last_run_reused_files",
        "Files that the last run took from another version.",
        _of_last_run(lambda run: run.reused),
    ),
    Metric(
        "tilesync_last_run_deleted_files", "Files that the last run deleted.", _of_last_run(lambda run: run.deleted)
    ),
    Metric(
        "tilesync_last_run_failed_files",
        "Files that the last run could not fetch, or found damaged.",
        _of_last_run(lambda run: run.failed),
    ),
    Metric(
        "tilesync_last_run_transferred_bytes",
        "Bytes that the last run transferred.",
        _of_last_run(lambda run: run.bytes),
    ),
    Metric(
        "tilesync_last_run_link_renewals",
        "Fresh links that the last run fetched, after the first one.",
        _of_last_run(lambda run: run.renewals),
    ),
    Metric("tilesync_last_run_retries", "Requests that the last run repeated.", _of_last_run(lambda run: run.retries)),
    Metric(
        "tilesync_consecutive_failures",
        "Runs since the last one that ended well, 30 at most.",
        _consecutive_failures,
    ),
    Metric("tilesync_held_files", "Files of the version that the pointer names.", _held_count("files")),
    Metric("tilesync_held_bytes", "Bytes of the version that the pointer names.", _held_count("bytes")),
    Metric("tilesync_behind", "1 while the newest export could not be mirrored, else 0.", _behind),
    Metric(
        "tilesync_published_export_timestamp_seconds",
        "When the service made the published export, in seconds since 1970.",
        lambda status, now: _timestamp(_published_export_time(status)),
    ),
    Metric(
        "tilesync_newest_export_timestamp_seconds",
        "When the service made the newest export, in seconds since 1970.",
        lambda status, now: _timestamp(_newest_export_time(status)),
    ),
    Metric(
        "tilesync_published_export_age_seconds",
        "Age of the published export when this file was written, in seconds.",
        lambda status, now: _age(_published_export_time(status), now),
    ),
    Metric(
        "tilesync_newest_export_age_seconds",
        "Age of the newest export when this file was written, in seconds.",
        lambda status, now: _age(_newest_export_time(status), now),
    ),
)

DISK_FREE_METRIC: Final = ("tilesync_disk_free_bytes", "Free bytes of the file system of the destination.")
HEALTH_HELP: Final = "1 for the present state of the mirror, else 0. States: failing, never, stale, fresh."
