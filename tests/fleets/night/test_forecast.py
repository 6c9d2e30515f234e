"""Forecast of a night: estimates, the sentence, and what will not fit."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from tilesync.fleets.night.forecast import Estimate, NightForecast, estimate_transfer, find_existing, make_forecast
from tilesync.model import Export, Resolution
from tilesync.model.history import HeldVersion

GB = 1_000_000_000

HELD = HeldVersion("v1", "e1", modified="2026-03-01T00:00:00Z", bytes=7)


def resolved(export_id: str, modified: str = "2026-03-01T00:00:00Z", size: int | None = None) -> Resolution:
    return Resolution(Export(export_id, "Complete", modified=modified, size=size), export_id)


@pytest.mark.parametrize(
    ("resolution", "held", "estimate"),
    [
        (resolved("e1"), HELD, Estimate(0, is_changed=False)),
        (resolved("e1", size=5), HELD, Estimate(0, is_changed=False)),
        (resolved("e1", "2026-03-02T00:00:00Z", 5), HELD, Estimate(5)),
        (resolved("e2", size=5), HELD, Estimate(5)),
        (resolved("e2", size=0), HELD, Estimate(0)),
        (resolved("e2"), HELD, Estimate(7)),
        (resolved("e2", size=5), None, Estimate(5)),
        (resolved("e2"), None, Estimate(0, is_known=False)),
    ],
)
def test_estimates(resolution: Resolution, held: HeldVersion | None, estimate: Estimate) -> None:
    """An export that is held costs nothing; another one its size, else that of the last, else it is unknown."""
    assert estimate_transfer(resolution, held) == estimate


def forecast(*estimates: Estimate, left: timedelta | None = None, rate: float | None = None) -> NightForecast:
    return make_forecast([(estimate, None) for estimate in estimates], left=left, bytes_per_s=rate)


def test_the_sentence() -> None:
    """The forecast says how many mirrors have a new export, how much that is at most, and of how many it is unknown."""
    same, new, unknown = Estimate(0, is_changed=False), Estimate(2 * GB), Estimate(0, is_known=False)
    assert forecast(same).message == "1 mirror: nothing to move"
    assert forecast(same, new, new).message == "3 mirrors: 2 with a new export, at most 4.0 GB; 1 unchanged"
    assert forecast(new, unknown).message == (
        "2 mirrors: 2 with a new export, at most 2.0 GB, and 1 of unknown size; 0 unchanged"
    )
    made = forecast(same, new, unknown)
    assert (made.mirrors, made.changed, made.unsized, made.bytes) == (3, 2, 1, 2 * GB)


def test_a_window_that_is_too_short() -> None:
    """A warning says that the rate of earlier nights does not fit the window; without rate or window there is none."""
    hour, new = timedelta(hours=1), Estimate(10 * GB)
    (warning,) = forecast(new, left=hour, rate=1_000_000).warnings
    assert warning == (
        "at the rate of earlier nights this takes 2 h 46 min, and the window ends in 1 h: the next night continues"
    )
    assert forecast(new, left=3 * hour, rate=1_000_000).warnings == ()
    assert forecast(new, left=hour).warnings == ()
    assert forecast(new, rate=1).warnings == ()
    assert forecast(Estimate(0, is_changed=False), left=hour, rate=1).warnings == ()


def test_a_disk_that_is_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of all mirrors on one file system are compared with its free space; folders need not be there yet."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=3 * GB))
    rows: list[tuple[Estimate, Path | None]] = [
        (Estimate(2 * GB), tmp_path / "a" / "b"),
        (Estimate(2 * GB), tmp_path),
        (Estimate(9 * GB), None),
        (Estimate(0, is_changed=False), tmp_path),
    ]
    (warning,) = make_forecast(rows, left=None, bytes_per_s=None).warnings
    assert warning == f"up to 4.0 GB are to be stored on the file system of {tmp_path}, which has 3.0 GB free"
    assert make_forecast(rows[1:], left=None, bytes_per_s=None).warnings == ()


def test_the_nearest_folder(tmp_path: Path) -> None:
    """The nearest folder that exists stands for one that does not."""
    assert find_existing(tmp_path / "x" / "y") == tmp_path
    assert find_existing(tmp_path) == tmp_path
    assert find_existing(Path("relative/missing")) == Path()
