"""Test long histories: random changes, faults and kills, and readers that read all the time."""

from __future__ import annotations

import json
import random
import shutil
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.builders import glb, read_tree, tileset
from tests.support.faults import (
    blob_name,
    call_before,
    error_response,
    flip_last_bit,
    is_blob,
    is_listing,
    is_storage,
    truncate_body,
)
from tests.support.killed_runs import assert_pointer_complete, kill_after, start_mirror
from tests.support.reading_threads import ReadingThreads
from tests.support.simulator import Simulator, read_latest, rollback, verify
from tilesync.app import commands
from tilesync.app.requests import Target
from tilesync.core.guards import DeleteLimit
from tilesync.core.retention import RetentionPolicy
from tilesync.events import Event, VersionPublished, VersionRetired
from tilesync.model import Inventory, Layout

MAX_SERVICE_EXPORTS = 5
"""Number of exports that the service keeps."""


def make_export_id(number: int) -> str:
    return f"{number:08d}-0000-4000-8000-000000000000"


class ChangingModel:
    """Changing iModel: tiles, tilesets that reference them, and exports."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.tiles = {f"tiles/{number:03d}.glb": self.make_tile() for number in range(14)}

    def make_tile(self) -> bytes:
        """A tile that no other is like."""
        return glb(self.dice.randbytes(self.dice.randint(8, 4000)))

    def change(self) -> None:
        """One to five tiles are added, removed, changed, renamed, or get the content of another."""
        for _ in range(self.dice.randint(1, 5)):
            name = self.dice.choice(sorted(self.tiles))
            fresh = f"{self.dice.choice(['tiles', 'more/deep', 'ä b+%20'])}/{self.dice.randrange(10**6)}.glb"
            match self.dice.choice(["add", "remove", "change", "rename", "copy", "swap"]):
                case "add":
                    self.tiles[fresh] = self.make_tile()
                case "remove" if len(self.tiles) > 8:
                    del self.tiles[name]
                case "rename":
                    self.tiles[fresh] = self.tiles.pop(name)
                case "copy":
                    self.tiles[fresh] = self.tiles[name]
                case "swap":
                    other = self.dice.choice(sorted(self.tiles))
                    self.tiles[name], self.tiles[other] = self.tiles[other], self.tiles[name]
                case _:
                    self.tiles[name] = self.make_tile()

    def export(self) -> dict[str, bytes]:
        """The files of an export of it now: half of the tiles lie behind an external tileset."""
        names = sorted(self.tiles)
        outer, inner = names[::2], names[1::2]
        return {
            **self.tiles,
            "tileset.json": tileset("inner/tileset.json", *map(quote, outer)),
            "inner/tileset.json": tileset(*(f"../{quote(name)}" for name in inner)),
        }


def inject_random_faults(sim: Simulator, dice: random.Random, *, md5: bool) -> None:
    """Inject a few faults into the next run, each of which it tolerates. Wrong bytes of the right length and shape are
    known by their MD5 alone.
    """
    effects = [
        (is_blob, truncate_body(dice.randint(0, 300))),
        (is_storage, error_response(503, "ServerBusy")),
        (is_blob, error_response(500, "InternalError")),
        (is_listing, truncate_body(dice.randint(1, 2000))),
        (is_storage, error_response(403, "AuthenticationFailed")),
    ]
    if md5:
        effects.append((is_blob, flip_last_bit))
    for when, effect in dice.sample(effects, dice.randint(0, 3)):
        sim.add_fault(when, effect, skip=dice.randint(0, 9), optional=True)


def run_with_kills(sim: Simulator, dice: random.Random, dest: Path, *options: str) -> int:
    """Kill a few runs with SIGKILL, at a blocked request or some time later; return how many."""
    count = 0
    for more in range(dice.randint(1, 2)):
        asked, killed = threading.Event(), threading.Event()
        later = dice.choice([0.0, 0.0, dice.uniform(0.0, 0.25)])
        answer = call_before(asked.set, lambda: later or killed.wait(20))  # noqa: B023 - called before the next round
        fault = sim.add_fault(is_storage, answer, skip=0 if more else dice.randint(0, 2), optional=True)
        ended = kill_after(start_mirror(sim, dest, *options), asked, later)
        killed.set()
        sim.faults.remove(fault)
        count += ended
        if not ended:
            break
    return count


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
def test_a_history_of_thirty_versions(tmp_path: Path, seed: int) -> None:
    """Thirty random versions under random faults and kills: each has exactly the exported bytes, the pointer is right
    after every run, all of it proven by verify; nothing is fetched that lies there by a known MD5.
    """
    dice = random.Random(seed)
    model, expected, ids, known = ChangingModel(dice), dict[str, dict[str, bytes]](), list[str](), set[bytes]()
    kill_count = 0
    with Simulator(page_size=9, delay_s=0.002) as sim:
        while len(expected) < 30:
            model.change()
            md5 = dice.random() < 0.8
            if ids and dice.random() < 0.25:
                sim.regenerate(model.export(), export_id=ids[-1], md5=md5)
            else:
                ids.append(make_export_id(len(ids) + 1))
                day = f"{2026 + len(ids) // 300}-{len(ids) // 25 % 12 + 1:02d}-{len(ids) % 25 + 1:02d}"
                modified = f"{day}T08:30:00Z"
                sim.offer_export(model.export(), export_id=ids[-1], md5=md5, lastModified=modified)
            for old in ids[:-MAX_SERVICE_EXPORTS]:
                sim.delete(old)
            inject_random_faults(sim, dice, md5=md5)
            inventory = dice.choice([Inventory.LIST, Inventory.LIST, Inventory.WALK])
            if dice.random() < 0.3:
                kill_count += run_with_kills(sim, dice, tmp_path, "--inventory", inventory)
                assert_pointer_complete(tmp_path)  # whatever the pointer leads to is whole
            if dice.random() < 0.1:
                shutil.rmtree(tmp_path / ".tilesync", ignore_errors=True)
            sim.clear_requests()
            run = sim.mirror(tmp_path, inventory=inventory, allow_shrink=True)
            assert run.error is None
            if md5 and inventory is Inventory.LIST:
                assert not {
                    name for name in map(blob_name, sim.blob_requests()) if name and model.export()[name] in known
                }
            known |= set(model.export().values()) if md5 else set()
            current = read_latest(tmp_path)["version"]
            assert current.startswith(ids[-1])
            expected.setdefault(current, model.export())
            assert read_tree(tmp_path / "versions" / current) == model.export() == expected[current]
            if len(expected) > 1 and dice.random() < 0.2:
                assert rollback(tmp_path).error is None
                assert_pointer_complete(tmp_path)
                assert sim.mirror(tmp_path, inventory=inventory).error is None
                assert rollback(tmp_path, latest=True).error is None
                assert read_latest(tmp_path)["version"] == current
            assert_pointer_complete(tmp_path)
            sim.faults.clear()
    assert kill_count >= 3
    assert {path.name for path in (tmp_path / "versions").iterdir()} >= expected.keys()
    for name, files in expected.items():
        assert read_tree(tmp_path / "versions" / name) == files, name
    assert verify(tmp_path, every=True).error is None
    row = commands.list_versions(Target(tmp_path), lambda event: None)[0]
    assert {each.version.name for each in row if each.state == "held"} >= expected.keys()
    assert [each.version.name for each in row if each.is_current] == [current]


@pytest.mark.long
def test_a_flat_history(tmp_path: Path) -> None:
    """Thirty exports in the flat layout under faults and kills: after each run exactly its files are present."""
    dice = random.Random(7)
    model, kill_count = ChangingModel(dice), 0
    flat = ("--layout", "flat", "--delete", "--max-delete", "100%", "--allow-shrink")
    with Simulator(page_size=9, delay_s=0.002) as sim:
        for number in range(1, 31):
            model.change()
            md5 = dice.random() < 0.8
            if number > 1 and dice.random() < 0.25:
                sim.regenerate(model.export(), export_id=sim.exports[0]["id"], md5=md5)
            else:
                modified = f"2026-01-{number:02d}T08:30:00Z"
                sim.offer_export(model.export(), export_id=make_export_id(number), md5=md5, lastModified=modified)
            inject_random_faults(sim, dice, md5=md5)
            if dice.random() < 0.4:
                kill_count += run_with_kills(sim, dice, tmp_path, *flat)
            run = sim.mirror(tmp_path, layout=Layout.FLAT, delete_limit=DeleteLimit(percent=100), allow_shrink=True)
            assert run.error is None
            files = {name: data for name, data in read_tree(tmp_path).items() if not name.startswith(".tilesync/")}
            assert files == model.export()
            sim.faults.clear()
    assert kill_count >= 3
    assert verify(tmp_path).error is None


class PointerReaders(ReadingThreads):
    """Threads that follow the pointer to every file, repeatedly, as viewers do."""

    def __init__(self, dest: Path, count: int) -> None:
        super().__init__(count)
        self._dest = dest
        self.errors: list[BaseException] = []
        self.rounds = 0
        self.seen: set[str] = set()

    def read(self, number: int) -> None:
        try:
            while not self.stopped.is_set():
                assert_pointer_complete(self._dest)
                latest = json.loads((self._dest / "latest.json").read_bytes())
                assert (self._dest / latest["tileset"]).stat().st_size
                assert (self._dest / latest["manifest"]).stat().st_size
                assert (self._dest / "current" / "tileset.json").read_bytes().startswith(b"{")
                self.seen.add(latest["version"])
                self.rounds += 1
        except BaseException as error:
            self.errors.append(error)


@pytest.mark.parametrize("keep", [RetentionPolicy(), RetentionPolicy(2, timedelta(seconds=1))])
def test_readers_never_miss_a_file(tmp_path: Path, keep: RetentionPolicy) -> None:
    """While twenty versions are published, one after another, readers of the pointer find every file that it leads to;
    also while old versions retire that nobody reads any more.
    """
    dice = random.Random(5)
    model, retired, published = ChangingModel(dice), list[Event](), list[Event]()
    with Simulator() as sim:
        sim.offer_export(model.export(), export_id=make_export_id(1), lastModified="2026-01-01T08:30:00Z")
        assert sim.mirror(tmp_path).error is None
        with PointerReaders(tmp_path, 2) as readers:
            for number in range(2, 22):
                model.change()
                modified = f"2026-02-{number:02d}T08:30:00Z"
                sim.offer_export(model.export(), export_id=make_export_id(number), lastModified=modified)
                run = sim.mirror(tmp_path, retention=keep, allow_shrink=True)
                assert run.error is None
                retired += run.events_of(VersionRetired)
                published += run.events_of(VersionPublished)
                before = readers.rounds
                _wait_until(lambda: readers.rounds > before + 2 or bool(readers.errors))  # noqa: B023 - called at once
    assert readers.errors == []
    assert len(published) == 20
    assert len(readers.seen) >= 15
    assert bool(retired) == (keep.versions is not None)
    assert verify(tmp_path, every=True).error is None


def _wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)
