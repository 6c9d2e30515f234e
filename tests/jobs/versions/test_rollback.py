"""Rollback to an older version, its pin, and the way forward again."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.crash_injection import SimulatedCrash
from tests.support.sequential_exports import FIRST as EXPORT
from tests.support.sequential_exports import SECOND as OTHER
from tests.support.sequential_exports import THIRD, mirror_each, offer_exports
from tests.support.simulator import Simulator, read_latest, rollback, verify
from tilesync.core.retention import RetentionPolicy
from tilesync.events import PointerKept, VersionPublished, VersionRetired
from tilesync.model import Version
from tilesync.stores.local.publication import LocalPublication


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    """Two versions, the second one current."""
    return mirror_each(tmp_path, EXPORT, OTHER)


def test_roll_back_to_the_version_before(dest: Path) -> None:
    """Without a name the pointer moves to the version before the current one, and is pinned there."""
    run = rollback(dest)
    assert run.error is None
    assert [event.version for event in run.events_of(VersionPublished)] == [EXPORT]
    assert read_latest(dest)["version"] == EXPORT
    assert read_latest(dest)["pinned"] is True
    assert (dest / "current").readlink() == Path("versions") / EXPORT
    assert verify(dest).error is None
    assert rollback(dest).exit_code == 2


def test_later_runs_mirror_and_leave_the_pointer(dest: Path) -> None:
    """While the pointer is pinned, new exports are stored but not published; without the pin, it follows again."""
    rollback(dest)
    with Simulator() as sim:
        offer_exports(sim, EXPORT, OTHER, THIRD)
        run = sim.mirror(dest)
        assert run.error is None
        assert (dest / "versions" / THIRD / "tileset.json").is_file()
        assert read_latest(dest)["version"] == EXPORT
        assert ["pinned" in event.message for event in run.events_of(PointerKept)] == [True]
        unchanged = sim.mirror(dest)
        assert len(unchanged.events_of(PointerKept)) == 1
        assert rollback(dest, latest=True).error is None
        assert read_latest(dest)["version"] == THIRD
        assert "pinned" not in read_latest(dest)
        assert sim.mirror(dest).events_of(PointerKept) == []


def test_names_may_be_shortened(dest: Path) -> None:
    """A unique prefix of a version name is enough; with any other, nothing moves."""
    assert rollback(dest, "aaaa").error is None
    assert read_latest(dest)["version"] == EXPORT
    for name in ("x", "", "aaaa-"):
        run = rollback(dest, name)
        assert run.exit_code == 2
    assert read_latest(dest)["version"] == EXPORT


def test_the_current_version_is_pinned_where_it_is(dest: Path) -> None:
    """`current` pins the version that the pointer names; the pointer does not move."""
    run = rollback(dest, "current")
    assert run.error is None
    assert run.events_of(VersionPublished) == []
    assert (read_latest(dest)["version"], read_latest(dest)["pinned"]) == (OTHER, True)


def test_damaged_version_is_refused(dest: Path) -> None:
    """The pointer stays, and the hint says how to repair the version."""
    (dest / "versions" / EXPORT / "tiles/001.glb").unlink()
    run = rollback(dest, EXPORT)
    assert run.exit_code == 10
    assert run.error is not None
    assert "--export-id" in run.error.hint
    assert read_latest(dest)["version"] == OTHER


def test_pin_survives_loss_of_the_catalog(dest: Path) -> None:
    """The pin is in `latest.json` too, so it survives the loss of the state folder."""
    rollback(dest)
    shutil.rmtree(dest / ".tilesync")
    with Simulator() as sim:
        offer_exports(sim, EXPORT, OTHER, THIRD)
        assert sim.mirror(dest).error is None
    assert read_latest(dest)["version"] == EXPORT


def test_pinned_version_never_retires(dest: Path) -> None:
    """Retention never retires the version that the pointer names."""
    rollback(dest)
    with Simulator() as sim:
        offer_exports(sim, EXPORT, OTHER, THIRD)
        run = sim.mirror(dest, retention=RetentionPolicy(1, timedelta()))
    assert [event.version for event in run.events_of(VersionRetired)] == [OTHER]
    assert read_latest(dest)["version"] == EXPORT
    assert verify(dest).error is None


def test_kill_between_pin_and_pointer(dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a kill between the pin and the move, the next run moves the pointer."""

    def kill(self: LocalPublication, version: Version, pointer: object, latest: object) -> None:
        raise SimulatedCrash

    with monkeypatch.context() as patch:
        patch.setattr(LocalPublication, "point_at", kill)
        with pytest.raises(SimulatedCrash):
            rollback(dest)
    assert read_latest(dest)["version"] == OTHER
    with Simulator() as sim:
        offer_exports(sim, EXPORT, OTHER)
        assert sim.mirror(dest).error is None
    assert read_latest(dest)["version"] == EXPORT


def test_empty_destination_is_an_error(tmp_path: Path) -> None:
    """An empty or missing folder is an error, and is not created."""
    assert rollback(tmp_path / "missing").exit_code == 8
    assert not (tmp_path / "missing").exists()
    assert rollback(tmp_path).exit_code == 8
    assert list(tmp_path.iterdir()) == []
