"""What was lost or carried elsewhere: manifests, latest.json, the state, mtimes; each is recovered, or said."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from builders import IMODEL, export, glb, manifest_of, stored, tree
from faults import any_blob, error
from kills import Killed
from nights import DIFFERS, FIRST, SECOND, THIRD, mirrored, offer
from simulator import Run, Simulator, latest, rollback, verify

from tilesync import wiring
from tilesync.events import Published, Retired, Warned
from tilesync.model import Globs, Layout, Selector
from tilesync.rules.retention import Keep
from tilesync.stores.catalog import Catalog
from tilesync.stores.publication import Publication


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    """Two versions, the second one current."""
    return mirrored(tmp_path / "d", FIRST, SECOND)


def night(dest: Path, *ids: str, **wishes: object) -> Run:
    with Simulator() as sim:
        offer(sim, *(ids or (FIRST, SECOND)))
        return sim.mirror(dest, **wishes)


# --- manifests ---


@pytest.mark.parametrize("which", [FIRST, SECOND])
def test_a_lost_manifest_is_written_again(dest: Path, which: str) -> None:
    """That of any version; it is said, nothing is fetched, and the pointer is not called moved."""
    path = dest / "manifests" / f"{which}.jsonl"
    was = manifest_of(dest, which)
    path.unlink()
    assert verify(dest).exit == (10 if which == SECOND else 0)
    run = night(dest)
    assert run.error is None
    assert run.tally.fetched == 0
    assert run.of(Published) == []
    assert any(which in event.message for event in run.of(Warned)) == (which == FIRST)  # verify had found the other
    assert manifest_of(dest, which) == was
    assert verify(dest, every=True).error is None


@pytest.mark.parametrize("which", [FIRST, SECOND])
@pytest.mark.parametrize("torn", ["", "{", '{"version": "x"}\n'])
def test_a_torn_manifest_that_verify_found_is_written_again(dest: Path, which: str, torn: str) -> None:
    """As verify promises: the next run mends it."""
    was = manifest_of(dest, which)
    (dest / "manifests" / f"{which}.jsonl").write_text(torn)
    assert verify(dest, every=True).exit == 10
    assert night(dest).error is None
    assert manifest_of(dest, which)[1] == was[1]
    assert verify(dest, every=True).error is None


def test_back_to_a_version_whose_manifest_was_lost(dest: Path) -> None:
    """It is written again before the pointer leads there."""
    (dest / "manifests" / f"{FIRST}.jsonl").unlink()
    assert rollback(dest).error is None
    assert verify(dest).error is None


# --- latest.json ---


def test_without_latest_json_the_current_version_is_known(dest: Path) -> None:
    """Verify audits it and finds latest.json missing; going back goes to the version before; the guard holds."""
    (dest / "latest.json").unlink()
    run = verify(dest)
    assert run.exit == 10
    assert run.tally.verified == len(export(6))
    with Simulator() as sim:
        sim.hold(export(1), export_id=THIRD, lastModified="2026-03-03T08:30:00Z")
        assert sim.mirror(dest).exit == 11
    assert rollback(dest).error is None
    assert latest(dest)["version"] == FIRST


@pytest.mark.parametrize("lost", [False, True])
def test_what_the_pointer_leads_to_never_retires(dest: Path, monkeypatch: pytest.MonkeyPatch, lost: bool) -> None:
    """Killed between the pointer and latest.json, or with latest.json lost: the version stays that viewers see."""
    if lost:
        (dest / "latest.json").unlink()
        current = SECOND
    else:
        current = THIRD

        def kill(*_: object) -> None:
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(Publication, "_tell_latest", kill)
            with pytest.raises(Killed):
                night(dest, FIRST, SECOND, THIRD)
    with Simulator() as sim:
        offer(sim, FIRST, SECOND, THIRD)
        files = export(6) | {DIFFERS: glb(b"fourth")}
        sim.hold(files, export_id="dddddddd-0000-4000-8000-000000000004", lastModified="2026-03-04T08:30:00Z")
        run = sim.mirror(dest, publish=False, keep=Keep(1, timedelta(microseconds=1)))
    assert run.error is None
    assert current not in {event.version for event in run.of(Retired)}
    assert f"versions/{current}/" in (dest / "tileset.json").read_text()
    assert (dest / "versions" / current / "tileset.json").is_file()


# --- retirement, and what comes after ---


@pytest.mark.parametrize("step", ["retire", "drop_files"])
def test_after_a_kill_in_retirement_the_next_export_comes(
    dest: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """What is on its way to the trash is no one's twin: the next export shares with others, or is fetched."""

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Publication if step == "retire" else Catalog, step, kill)
        with pytest.raises(Killed):
            night(dest, keep=Keep(1, timedelta(microseconds=1)))
    with Simulator() as sim:
        files = export(6) | {DIFFERS: glb(FIRST.encode())}
        sim.hold(files, export_id=THIRD, lastModified="2026-03-03T08:30:00Z")
        run = sim.mirror(dest)
    assert run.error is None
    assert tree(dest / "versions" / THIRD) == files
    assert not (dest / "versions" / FIRST).exists()
    assert verify(dest, every=True).error is None


def test_a_file_that_comes_back_in_the_flat_layout(tmp_path: Path) -> None:
    """Gone in one export and there again in the next: what was left of it is no reason to stumble."""
    with Simulator() as sim:
        first = export(8)
        for number, files in enumerate((first, export(6), first, export(6), first)):
            sim.hold(files, export_id=f"{number}-export", lastModified=f"2026-03-0{number + 1}T08:30:00Z")
            run = sim.mirror(tmp_path, layout=Layout.FLAT)
            assert run.error is None
            assert files.items() <= tree(tmp_path).items()
    assert verify(tmp_path).error is None


# --- copies ---


@pytest.fixture
def copied(dest: Path, tmp_path: Path) -> Path:
    """The destination, copied without its mtimes, as `cp -r` does."""
    target = tmp_path / "copy"
    shutil.copytree(dest, target, symlinks=True, copy_function=shutil.copyfile)
    return target


def test_a_copy_without_mtimes_is_whole(copied: Path) -> None:
    """Its bytes decide: it can be gone back in, nothing is fetched or called damaged, and its files are known again."""
    assert rollback(copied, FIRST).error is None
    assert rollback(copied, latest=True).error is None
    (copied / "latest.json").unlink()
    run = night(copied)
    assert run.error is None
    assert run.tally.fetched == 0
    assert run.of(Warned) == []
    states = {each.state for each in wiring.holdings(copied, Run(), state_dir=None)}
    assert states == {"held"}


def test_a_copy_with_a_rotten_file_is_not(copied: Path) -> None:
    """What is not right is found, though everything looks changed."""
    (copied / "versions" / FIRST / DIFFERS).write_bytes(b"rotten")
    assert rollback(copied, FIRST).exit == 10


# --- the state ---


def test_what_lay_there_before_the_state_was_lost_is_swept(tmp_path: Path) -> None:
    """A version that takes the folder of one that was never finished has exactly the container's files in the end."""
    with Simulator() as sim:
        sim.hold(export(12))
        fault = sim.fault(any_blob, error(404, "BlobNotFound"), skip=9)
        assert sim.mirror(tmp_path).exit == 3
        sim.faults.remove(fault)
        shutil.rmtree(tmp_path / ".tilesync")
        folder = tmp_path / "versions" / FIRST
        (folder / "stray/deep").mkdir(parents=True)
        (folder / "stray/deep/file").write_text("stray")
        (folder / "stray/link").symlink_to("deep")
        files = export(4)
        sim.regenerate(files)
        assert sim.mirror(tmp_path, globs=Globs(exclude=("data/*",))).error is None
    wanted = {name for name in files if not name.startswith("data/")}
    assert tree(folder).keys() == wanted
    assert not (folder / "stray").exists()


@pytest.fixture
def stranger() -> Iterator[Path]:
    """A folder that anyone may enter, and for the time of the test a user who owns nothing."""
    if os.geteuid() != 0:
        pytest.skip("only root can be another user for a while")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_another_user_may_look(stranger: Path) -> None:
    """Whoever may read the files but not the state sees the versions and can prove them; nothing is called a bug."""
    mirrored(stranger / "d", FIRST, SECOND)
    os.seteuid(65534)
    try:
        rows = wiring.holdings(stranger / "d", Run(), state_dir=None)
        audit = verify(stranger / "d", every=True)
        with Simulator() as sim:
            offer(sim, FIRST, SECOND)
            plan = sim.preview(stranger / "d")
        back = rollback(stranger / "d")
    finally:
        os.seteuid(0)
    assert [row.version.name for row in rows] == [SECOND, FIRST]
    assert audit.error is None
    assert (plan.exit, back.exit) == (8, 8)


def test_a_container_that_changed_while_an_old_version_was_healed(dest: Path) -> None:
    """The old version stays the older one: going forward again leads to the newest."""
    (dest / "versions" / FIRST / DIFFERS).unlink()
    verify(dest, every=True)
    selector = Selector(imodel=IMODEL, export_type="3DTiles", export_id=FIRST)
    with Simulator() as sim:
        offer(sim, FIRST, SECOND)
        sim.containers[FIRST] |= stored({DIFFERS: glb(b"another")})
        assert sim.mirror(dest, selector=selector, publish=False).error is None
    rollback(dest, FIRST)
    assert rollback(dest, latest=True).error is None
    assert latest(dest)["version"] == SECOND
