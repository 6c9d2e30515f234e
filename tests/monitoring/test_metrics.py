"""Metrics for the textfile collector: their format, and the values that are left out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tilesync.errors import UsageError
from tilesync.model.history import HeldVersion, MirrorHistory, RunRecord
from tilesync.monitoring.metrics import (
    HEALTH_METRIC,
    check_metrics_file,
    format_metrics,
    list_metrics,
    measure_free_bytes,
)
from tilesync.monitoring.status import MirrorStatus, make_status

NOW = datetime(2026, 11, 30, 6, 0, tzinfo=UTC)
HELD = HeldVersion("e1", "e1", "2026-11-29T06:00:00Z", "2026-11-30T02:05:00Z", 440, 8_000_000)
RUN = RunRecord(
    "2026-11-30T02:00:00Z",
    "2026-11-30T02:05:00Z",
    exit=0,
    seconds=300.5,
    export="e1",
    newest="e2",
    newest_modified="2026-11-30T05:00:00Z",
    behind=True,
    fetched=6,
    reused=430,
    kept=4,
    deleted=3,
    failed=2,
    bytes=146_700,
    renewals=1,
    retries=5,
)


def status_of(history: MirrorHistory, name: str = "office") -> MirrorStatus:
    """Make the status of a mirror."""
    return make_status(name, "/srv/tiles/office", history, now=NOW)


def read_back(data: bytes) -> dict[str, dict[str, float]]:
    """Parse metrics by prometheus-client; return the values of each by mirror, and by state if there is one.

    Each family must have a help text and a type.
    """
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(data.decode()):
        assert (family.type, bool(family.documentation)) == ("gauge", True), family.name
        for sample in family.samples:
            key = " ".join(sample.labels[label] for label in ("mirror", "state") if label in sample.labels)
            assert set(sample.labels) <= {"mirror", "state"}
            assert key not in found.setdefault(sample.name, {}), "each series is there once"
            found[sample.name][key] = sample.value
    return found


def test_all_values_of_a_mirror() -> None:
    """Each metric has the value of the status, in the unit of its name."""
    status = status_of(MirrorHistory().with_run(RUN, HELD))
    found = read_back(format_metrics([status], now=NOW, disk_free={"office": 10**15}))
    health = found.pop(HEALTH_METRIC)
    assert health == {"office failing": 0, "office never": 0, "office stale": 0, "office fresh": 1}
    assert {name.removeprefix("tilesync_"): values["office"] for name, values in found.items()} == {
        "last_run_timestamp_seconds": datetime(2026, 11, 30, 2, 0, tzinfo=UTC).timestamp(),
        "last_success_timestamp_seconds": datetime(2026, 11, 30, 2, 5, tzinfo=UTC).timestamp(),
        "last_run_exit_code": 0,
        "last_run_duration_seconds": 300.5,
        "last_run_fetched_files": 6,
        "last_run_reused_files": 430,
        "last_run_deleted_files": 3,
        "last_run_failed_files": 2,
        "last_run_transferred_bytes": 146_700,
        "last_run_link_renewals": 1,
        "last_run_retries": 5,
        "consecutive_failures": 0,
        "held_files": 440,
        "held_bytes": 8_000_000,
        "behind": 1,
        "published_export_timestamp_seconds": datetime(2026, 11, 29, 6, 0, tzinfo=UTC).timestamp(),
        "newest_export_timestamp_seconds": datetime(2026, 11, 30, 5, 0, tzinfo=UTC).timestamp(),
        "published_export_age_seconds": 86_400,
        "newest_export_age_seconds": 3_600,
        "disk_free_bytes": 1e15,
    }
    assert list_metrics().keys() == found.keys() | {HEALTH_METRIC}


def test_unknown_values_are_left_out() -> None:
    """A mirror without a run has no times, counts or sizes, not even zeros; its state is known."""
    found = read_back(format_metrics([status_of(MirrorHistory())], now=NOW, disk_free={}))
    assert found == {
        "tilesync_consecutive_failures": {"office": 0},
        HEALTH_METRIC: {"office failing": 0, "office never": 1, "office stale": 0, "office fresh": 0},
    }


def test_a_killed_run_has_a_start_but_no_counts() -> None:
    """Of a run that never ended only the start is known; what is held and the last success stay."""
    history = MirrorHistory().with_run(replace(RUN, started="2026-11-29T02:00:00Z"), HELD)
    found = read_back(
        format_metrics([status_of(history.with_run(RunRecord("2026-11-30T02:00:00Z")))], now=NOW, disk_free={})
    )
    assert not [name for name in found if name.startswith("tilesync_last_run") and "timestamp" not in name]
    assert found["tilesync_last_run_timestamp_seconds"]["office"] == datetime(2026, 11, 30, 2, tzinfo=UTC).timestamp()
    assert found["tilesync_last_success_timestamp_seconds"]["office"] > 0
    assert found["tilesync_held_files"]["office"] == 440
    assert found["tilesync_consecutive_failures"]["office"] == 1


def test_failures_since_the_last_good_run_are_counted() -> None:
    """Only failures after the last success count."""
    history = MirrorHistory()
    for day, exit_code in enumerate((6, 0, 6, 8, 3), 1):
        history = history.with_run(replace(RUN, started=f"2026-11-{day:02d}T02:00:00Z", exit=exit_code))
    found = read_back(format_metrics([status_of(history)], now=NOW, disk_free={}))
    assert found["tilesync_consecutive_failures"] == {"office": 3}
    assert found["tilesync_last_run_exit_code"] == {"office": 3}


def test_a_run_that_goes_on_is_no_failure() -> None:
    """While a run goes on, the failures are those before it, and its counts are not known."""
    history = MirrorHistory().with_run(replace(RUN, exit=6)).with_run(RunRecord("2026-11-30T05:00:00Z"))
    status = make_status("office", "/d", history, now=NOW, is_running=True)
    found = read_back(format_metrics([status], now=NOW, disk_free={}))
    assert found["tilesync_consecutive_failures"] == {"office": 1}
    assert "tilesync_last_run_exit_code" not in found


def test_the_newest_export_is_as_old_as_the_held_one_if_they_are_the_same() -> None:
    """If the run does not tell the time of the newest export, that of the same held export counts."""
    history = MirrorHistory().with_run(replace(RUN, newest="e1", newest_modified="", behind=False), HELD)
    found = read_back(format_metrics([status_of(history)], now=NOW, disk_free={}))
    assert found["tilesync_newest_export_age_seconds"] == {"office": 86_400}
    assert found["tilesync_behind"] == {"office": 0}


@pytest.mark.parametrize(
    "name",
    [
        'a "quoted" name',
        "C:\\tiles\\new",
        "two\nlines",
        "tab\tand\rreturn",
        "Gebäude ☂ 橋 🏗",
        " spaces ",
        "a,b={c}",
        "",
    ],
)
def test_any_name_is_a_label(name: str) -> None:
    """Quotes, backslashes, line breaks and letters of any language are read back as they are."""
    statuses = [status_of(MirrorHistory().with_run(RUN, HELD), each) for each in (name, "another")]
    data = format_metrics(statuses, now=NOW, disk_free={name: 5})
    assert data.endswith(b"\n")
    families = {family.name: family.samples for family in text_string_to_metric_families(data.decode())}
    assert [sample.labels["mirror"] for sample in families["tilesync_held_files"]] == [name, "another"]
    assert [(sample.labels, sample.value) for sample in families["tilesync_disk_free_bytes"]] == [({"mirror": name}, 5)]


def test_a_name_that_is_no_text_is_written_too() -> None:
    """A path whose bytes are no UTF-8 has question marks in its place."""
    status = status_of(MirrorHistory().with_run(RUN), "/srv/\udcff")
    assert read_back(format_metrics([status], now=NOW, disk_free={}))["tilesync_last_run_exit_code"] == {"/srv/?": 0}


def test_no_mirror_gives_no_series() -> None:
    """A fleet without mirrors has a file without values."""
    assert [
        family.samples for family in text_string_to_metric_families(format_metrics([], now=NOW, disk_free={}).decode())
    ] == [[]]


@pytest.mark.parametrize("name", ["metrics", "metrics.txt", "metrics.prom.txt", ".prom", "metrics.PROM"])
def test_another_ending_is_refused(name: str) -> None:
    """The textfile collector reads files that end in .prom only."""
    with pytest.raises(UsageError, match=r"does not end in \.prom") as caught:
        check_metrics_file(Path("/var/lib/node") / name)
    assert ".prom, in the folder of" in caught.value.hint
    check_metrics_file(Path("/var/lib/node/tilesync.prom"))


def test_free_bytes_of_a_folder_that_does_not_exist_yet(tmp_path: Path) -> None:
    """The file system of the nearest folder that exists is measured."""
    found = measure_free_bytes(tmp_path / "a" / "b")
    assert found is not None
    assert found > 0
    assert measure_free_bytes(Path("/dev/null/x")) is None


def test_the_table_of_metrics_is_complete() -> None:
    """The page of formats has each metric with its help text, in the order of the file."""
    page = Path(__file__).parents[2] / "docs/formats.md"
    lines = [line.strip("| ").split(" | ") for line in page.read_text(encoding="utf-8").splitlines()]
    rows = {cells[0].strip("`"): cells for cells in lines if cells[0].startswith("`tilesync_")}
    assert [(name, cells[-1]) for name, cells in rows.items()] == [*list_metrics().items()]
    assert all(len(cells) == 3 and cells[1] for cells in rows.values())
