"""Symlinks and FIFOs planted during a run: nothing outside is touched, nothing hangs, the error names the path."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import export, glb, read_tree
from tests.support.commandline import run_tilesync
from tests.support.faults import is_blob
from tests.support.simulator import EXPORT, OTHER_EXPORT, JobOutcome, Simulator, verify
from tilesync.app import commands, shared
from tilesync.core.retention import RetentionPolicy
from tilesync.events import Event, Finding, PageListed, VersionChosen
from tilesync.model import Layout

TILES = 1500
REQUESTS_BEFORE_SWAP = 1200
"""Requests after which the workers are at work."""


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """Make a folder outside the destination, which must not change."""
    folder = tmp_path / "outside"
    (folder / "tiles").mkdir(parents=True)
    (folder / "tiles/000.glb").write_bytes(b"precious")
    (folder / "tileset.json").write_bytes(b"{}")
    before = read_tree(folder)
    yield folder
    assert read_tree(folder) == before


def replace_by_link(folder: Path, target: Path) -> None:
    """Replace a folder by a symlink, even if the run creates the folder again in between."""
    for number in range(1000):
        folder.rename(folder.with_name("aside" + "." * number))
        with suppress(FileExistsError):
            folder.symlink_to(target)
            return


def is_symlink_refused(run: JobOutcome, link: Path) -> bool:
    """Return whether a run ended with 8 and named the link."""
    assert run.error is not None
    assert f"a symlink where a folder is needed: {link}" in str(run.error), run.error
    return run.exit_code == 8


LAYOUTS = {Layout.VERSIONED: "versions", Layout.FLAT: ".tilesync/staged"}


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("inner", [".", "tiles"])
@pytest.mark.parametrize("number", [3, 17])
def test_a_folder_that_is_swapped_for_a_link_while_files_arrive(
    tmp_path: Path, outside: Path, layout: Layout, inner: str, number: int
) -> None:
    """The next file in a replaced folder ends the run; after the link is removed the next run succeeds."""
    dest = tmp_path / "d"
    folder = dest / LAYOUTS[layout] / EXPORT / inner
    target = outside if inner == "." else outside / "tiles"
    with Simulator() as sim:
        files = sim.offer_export(export(16) | {"tiles/large.glb": glb(bytes(9_000_000))})

        def plant() -> None:
            folder.mkdir(parents=True, exist_ok=True)
            replace_by_link(folder, target)

        sim.run_before_request(number, is_blob, plant)
        assert is_symlink_refused(sim.mirror(dest, layout=layout, transfers=1), folder)
        assert not (dest / "tileset.json").exists()
        folder.unlink()
        folder.with_name("aside").rename(folder)
        sim.faults.clear()
        assert sim.mirror(dest, layout=layout).error is None
    assert verify(dest).error is None
    assert all((dest / ("" if layout is Layout.FLAT else "current") / name).is_file() for name in files)


def test_workers_write_nothing_through_a_link(tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers open folders by themselves, and refuse links too."""
    monkeypatch.setattr(shared, "count_cores", lambda: 2)
    with Simulator() as sim:
        sim.offer_export(export(TILES))
        sim.run_before_request(
            REQUESTS_BEFORE_SWAP, is_blob, lambda: replace_by_link(tmp_path / "d/versions" / EXPORT, outside)
        )
        assert is_symlink_refused(sim.mirror(tmp_path / "d"), tmp_path / "d/versions" / EXPORT)


def test_a_moved_version_that_is_linked_back_is_left_alone(tmp_path: Path) -> None:
    """A version folder that was moved outside and linked back is left alone."""
    moved, folder, before = tmp_path / "moved", tmp_path / "d/versions" / EXPORT, dict[str, bytes]()

    def move() -> None:
        folder.rename(moved)
        folder.symlink_to(moved)
        before.update(read_tree(moved))

    with Simulator() as sim:
        sim.offer_export(export(16))
        sim.run_before_request(9, is_blob, move)
        assert is_symlink_refused(sim.mirror(tmp_path / "d", transfers=1), folder)
    assert read_tree(moved) == before


class OutcomeWithAction(JobOutcome):
    """Result of a run that performs an action at a chosen event."""

    def __init__(self, when: Callable[[Event], bool], do: Callable[[], object]) -> None:
        super().__init__()
        self.is_due, self.action, self.done = when, do, False

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if not self.done and self.is_due(event):
            self.done = True
            self.action()


def run_mirror(sim: Simulator, run: OutcomeWithAction, dest: Path, **changes: Any) -> JobOutcome:
    """Run the mirror job with an observer that plants something."""
    request = sim.mirror_request(dest, **changes)
    run.error = sim._run_job(lambda *_: commands.mirror(request, run, run.stats), request).error
    return run


@pytest.mark.parametrize("place", ["versions", ".tilesync/parts", ".tilesync"])
def test_other_folders_that_are_swapped_in_mid_run(tmp_path: Path, outside: Path, place: str) -> None:
    """A folder is replaced exactly when the listing is complete and transfers run."""
    dest = tmp_path / "d"
    with Simulator() as sim:
        sim.offer_export(export(16))
        sim.run_before_request(4, is_blob, lambda: replace_by_link(dest / place, outside))
        run = sim.mirror(dest, transfers=1)
    assert is_symlink_refused(run, dest / place)


@pytest.mark.parametrize("place", ["manifests", ".tilesync/trash", "versions"])
def test_folders_that_are_links_when_a_version_retires(tmp_path: Path, outside: Path, place: str) -> None:
    """Whether or not a second version is published, files outside are neither moved nor deleted."""
    dest = tmp_path / "d"
    with Simulator() as sim:
        sim.offer_export(export(8))
        assert sim.mirror(dest).error is None
        sim.offer_export(export(9), export_id=OTHER_EXPORT)
        (dest / place).mkdir(exist_ok=True)
        (outside / "20000101T000000Z-old").mkdir()
        (outside / "20000101T000000Z-old/file").write_bytes(b"precious")
        replace_by_link(dest / place, outside)
        run = sim.mirror(dest, retention=RetentionPolicy(1))
        assert is_symlink_refused(run, dest / place)
    assert (outside / "20000101T000000Z-old/file").read_bytes() == b"precious"
    (outside / "20000101T000000Z-old/file").unlink()
    (outside / "20000101T000000Z-old").rmdir()


def test_files_of_a_swapped_version_do_not_count_as_stored(tmp_path: Path, outside: Path) -> None:
    """In a run without changes, files behind the link do not count as the version."""
    dest = tmp_path / "d"
    with Simulator() as sim:
        sim.offer_export(export(8))
        assert sim.mirror(dest).error is None
        replace_by_link(dest / "versions" / EXPORT, outside)
        assert is_symlink_refused(sim.mirror(dest), dest / "versions" / EXPORT)
    assert verify(dest).exit_code == 10


def test_flat_a_folder_in_place_that_becomes_a_link(tmp_path: Path, outside: Path) -> None:
    """The next version is not written through the link."""
    dest = tmp_path / "d"
    with Simulator() as sim:
        sim.offer_export(export(8))
        assert sim.mirror(dest, layout=Layout.FLAT).error is None
        sim.offer_export(export(8, seed=2), export_id=OTHER_EXPORT)
        run = OutcomeWithAction(
            lambda event: isinstance(event, PageListed), lambda: replace_by_link(dest / "tiles", outside / "tiles")
        )
        run_mirror(sim, run, dest, layout=Layout.FLAT)
    assert run.done
    assert run.exit_code == 8
    assert "another file or folder is in the way" in str(run.error)


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("place", ["latest.json", "manifest", "tileset.json", "tile"])
def test_a_fifo_in_a_destination_hangs_nothing(tmp_path: Path, layout: Layout, place: str) -> None:
    """Each command ends by itself, with an error or a finding, or repairs the file."""
    dest = tmp_path / "d"
    state = dest / ".tilesync" if layout is Layout.FLAT else dest
    files = dest if layout is Layout.FLAT else dest / "versions" / EXPORT
    path = {
        "latest.json": state / "latest.json",
        "manifest": state / f"manifests/{EXPORT}.jsonl",
        "tileset.json": dest / "tileset.json",
        "tile": files / "tiles/003.glb",
    }[place]
    with Simulator() as sim:
        sim.offer_export(export(8))
        assert sim.mirror(dest, layout=layout).error is None
        path.unlink()
        os.mkfifo(path)
        assert run_tilesync("verify", dest).exit_code == (8 if place == "latest.json" else 10)
        assert run_tilesync("versions", dest).exit_code in {0, 8}
        assert run_tilesync("mirror", dest, tmp_path / "copy").exit_code in (
            {0} if path == dest / "tileset.json" != files / "tileset.json" else {3, 8}
        )
        assert sim.mirror_program(dest, "--layout", str(layout)).exit_code in {0, 8}


@pytest.mark.parametrize("place", ["latest.json", f"manifests/{EXPORT}.jsonl", f"versions/{EXPORT}/tiles/003.glb"])
def test_a_fifo_in_a_source_hangs_nothing(tmp_path: Path, place: str) -> None:
    """A copy of a mirror with a FIFO fails and names the file."""
    with Simulator() as sim:
        sim.offer_export(export(8))
        assert sim.mirror(tmp_path / "d").error is None
    (tmp_path / "d" / place).unlink()
    os.mkfifo(tmp_path / "d" / place)
    done = run_tilesync("mirror", tmp_path / "d", tmp_path / "copy")
    assert done.exit_code in {3, 8}
    assert "FIFO" in done.stderr


def test_a_token_file_may_be_a_pipe(tmp_path: Path) -> None:
    """A FIFO as token file, as with `--token-file <(command)`, is read to its end."""
    os.mkfifo(tmp_path / "token")
    with Simulator() as sim:
        sim.offer_export(export(4))

        def write() -> None:
            (tmp_path / "token").write_text(sim.token)

        writer = threading.Thread(target=write)
        writer.start()
        done = run_tilesync(
            "exports", "11111111-2222-3333-4444-555555555555", "--token-file", tmp_path / "token",
            TILESYNC_API_URL=sim.url,
        )  # fmt: skip
        writer.join(10)
    assert done.exit_code == 0, done.stderr


def test_an_audit_reports_files_in_a_linked_folder(tmp_path: Path, outside: Path) -> None:
    """Files in a folder of a version that became a link are reported, neither as missing nor as correct."""
    dest = tmp_path / "d"
    with Simulator() as sim:
        sim.offer_export(export(4))
        assert sim.mirror(dest).error is None
    replace_by_link(dest / "versions" / EXPORT / "tiles", outside / "tiles")
    run = verify(dest)
    assert {finding.problem for finding in run.events_of(Finding) if finding.name.startswith("tiles/")} == {
        "unreadable"
    }
    assert run.events_of(VersionChosen) == []
