"""Inventory of a listing: names, folders, doubles and free space, checked page by page."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import export, read_manifest, referenced_export
from tests.support.faults import (
    call_before,
    is_blob,
    is_listing,
    wait_for,
)
from tests.support.simulator import EXPORT, Simulator, both_inventories, read_version
from tilesync.demo.fake_service import StoredBlob
from tilesync.demo.loopback_server import FakeResponse
from tilesync.errors import (
    DiskFull,
    UnsafeName,
)
from tilesync.events import (
    Warned,
)
from tilesync.model import Globs, Inventory, Layout, Selector
from tilesync.stores.local.writer import LocalFiles


def test_folder_placeholders_are_ignored(tmp_path: Path) -> None:
    """Empty blobs that stand for folders, with a slash or with the name of a folder, are not files."""
    with Simulator(page_size=4) as sim:
        files = sim.offer_export()
        sim.containers[EXPORT].update({"tiles": StoredBlob(b""), "tiles/": StoredBlob(b""), "data/": StoredBlob(b"")})
        run = sim.mirror(tmp_path)
    assert run.error is None
    assert read_version(tmp_path) == files
    assert run.stats.listed == len(files)


def test_a_name_that_is_file_and_folder_stops_before_publishing(tmp_path: Path) -> None:
    """A blob with bytes whose name is a folder of others: exit 8, nothing published."""
    with Simulator(page_size=1) as sim:
        sim.offer_export()
        sim.containers[EXPORT]["tiles"] = StoredBlob(b"bytes")
        run = sim.mirror(tmp_path)
    assert run.exit_code == 8
    assert not (tmp_path / "tileset.json").exists()
    assert not (tmp_path / "manifests").exists()


def test_a_name_listed_twice_stops_before_publishing(tmp_path: Path) -> None:
    """The same name on two pages: exit 3, nothing published; the next run lists again and succeeds."""
    with Simulator(page_size=6) as sim:
        files = sim.offer_export()
        sim.add_fault(
            lambda r: is_listing(r) and r.query.get("marker", "").endswith("!6"),
            lambda _, proceed: _with_entry_of_first_page(proceed()),
        )
        run = sim.mirror(tmp_path)
        assert run.exit_code == 3
        assert "twice" in str(run.error)
        assert not (tmp_path / "tileset.json").exists()
        assert sim.mirror(tmp_path).exit_code == 0
    assert read_version(tmp_path) == files


def test_what_was_requested_after_a_malformed_page_is_not_used(tmp_path: Path) -> None:
    """A page that is malformed but has its end, which names another page: that one is requested, and left out."""

    def damage(_: Any, proceed: Callable[[], FakeResponse]) -> FakeResponse:
        response = proceed()
        return replace(response, body=response.body.replace(b"</Name>", b"", 1).replace(b"2!8", b"2!16"))

    with Simulator(page_size=4) as sim:
        files = sim.offer_export()
        sim.add_fault(is_listing, damage, skip=1)
        run = sim.mirror(tmp_path)
        assert run.exit_code == 0
        markers = [request.query.get("marker") for request in sim.listing_requests]
    assert markers.count("2!4") == 2
    assert read_version(tmp_path) == files


def _with_entry_of_first_page(answer: Any) -> Any:
    properties = b"<Properties><Etag>0x1</Etag><Content-Length>0</Content-Length></Properties>"
    entry = b"<Blob><Name>data/empty</Name>" + properties + b"</Blob>"
    return replace(answer, body=answer.body.replace(b"</Blobs>", entry + b"</Blobs>"))


HOSTILE = [
    "../outside", "a/../../outside", "/etc/outside", "a\\..\\outside", "a\x01b", "a//b", "./a", "n" * 256,
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_writes_nothing(tmp_path: Path, name: str) -> None:
    """A name that is unsafe in a folder: exit 8, no file of its page, nothing outside DEST."""
    with Simulator() as sim:
        sim.offer_export()
        sim.containers[EXPORT][name] = StoredBlob(b"outside")
        run = sim.mirror(tmp_path / "in" / "dest")
        assert sim.blob_requests() == []
    assert isinstance(run.error, UnsafeName)
    assert not (tmp_path / "in/dest/tileset.json").exists()
    assert read_version(tmp_path / "in/dest") == {}
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
    assert [p.name for p in (tmp_path / "in").iterdir()] == ["dest"]


@both_inventories
@pytest.mark.parametrize("count", [1, 2])
def test_impossible_dates_are_warned_of_once(inventory: Inventory, count: int, tmp_path: Path) -> None:
    """By listing and by walk: the warning counts them, and they are stored as unknown."""
    with Simulator() as sim:
        files = sim.offer_export()
        for name in list(files)[:count]:
            sim.blob(name).modified = datetime(9999, 12, 31, tzinfo=UTC)
        run = sim.mirror(tmp_path, inventory=inventory)
    assert run.exit_code == 0
    (warned,) = run.events_of(Warned)
    assert f"impossible modification time for {count} file{'s' if count > 1 else ''}:" in warned.message
    _, lines = read_manifest(tmp_path, EXPORT)
    assert [lines[name].get("last_modified") for name in list(files)[:count]] == [None] * count


def test_an_export_that_does_not_fit_is_refused_before_its_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first page needs more than the free space: exit 8, no blob requested; with space the next run continues."""
    monkeypatch.setattr(LocalFiles, "free_bytes", lambda _: 1000)
    with Simulator() as sim:
        files = sim.offer_export()
        run = sim.mirror(tmp_path)
        assert isinstance(run.error, DiskFull)
        assert run.exit_code == 8
        assert sim.blob_requests() == []
        monkeypatch.undo()
        assert sim.mirror(tmp_path).exit_code == 0
    assert read_version(tmp_path) == files


def test_free_space_is_checked_page_by_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later page that does not fit ends the run with 8, and fetched files are kept."""
    files = export(30)
    total = sum(map(len, files.values()))
    monkeypatch.setattr(LocalFiles, "free_bytes", lambda _: total // 2)
    with Simulator(page_size=4) as sim:
        sim.offer_export(files)
        fetched = threading.Event()
        sim.add_fault(is_blob, call_before(fetched.set))
        sim.add_fault(lambda r: is_listing(r) and r.query.get("marker") == "2!4", wait_for(fetched))
        monkeypatch.setattr(LocalFiles, "free_bytes", lambda _: len(files["tileset.json"]) + 2500)
        run = sim.mirror(tmp_path)
        assert run.exit_code == 8
        assert not (tmp_path / "tileset.json").exists()
        monkeypatch.undo()
        assert sim.mirror(tmp_path).exit_code == 0
    assert read_version(tmp_path) == files


@both_inventories
@pytest.mark.parametrize("plan", [False, True])
def test_a_glob_without_matches_is_warned_of(tmp_path: Path, inventory: Inventory, plan: bool) -> None:
    """One warning for each, in a run and in its plan, with the number of files; a walk adds what it cannot know. A glob
    that matches anything, also an excluded file, gives no warning.
    """
    globs = Globs(include=("tiles/*",), exclude=("*.jpg", "*/00[1-3].glb", "*/001.glb"))
    with Simulator() as sim:
        files = sim.offer_export(referenced_export())
        run = (sim.dry_run if plan else sim.mirror)(tmp_path, inventory=inventory, globs=globs)
    assert run.error is None
    (message,) = run.warnings
    assert message.startswith(f"--exclude '*.jpg' matches none of the {len(files)} files that ")
    assert ("only excluded files reference" in message) is (inventory is Inventory.WALK)
    assert ("textures" in message) is (plan and inventory is Inventory.WALK)


@both_inventories
@pytest.mark.parametrize("layout", list(Layout))
def test_a_first_version_of_the_root_alone_is_warned_of(tmp_path: Path, inventory: Inventory, layout: Layout) -> None:
    """Without an earlier version it is published, with a warning."""
    with Simulator() as sim:
        sim.offer_export(referenced_export())
        run = sim.mirror(tmp_path, inventory=inventory, globs=Globs(include=("*.glbb",)), layout=layout)
    assert run.error is None
    assert [("'*.glbb' matches none" in message, "only the root" in message) for message in run.warnings] == [
        (True, False),
        (False, True),
    ]


def test_filters_of_a_copy_are_compared_with_those_of_its_source(tmp_path: Path) -> None:
    """With the same filters for a mirror and a copy of it, there is no warning about files that the mirror excluded."""
    some, more = Globs(exclude=("*/001.glb",)), Globs(exclude=("*/001.glb", "*/0x1.glb"))
    with Simulator() as sim:
        sim.offer_export(referenced_export())
        assert sim.mirror(tmp_path / "one", globs=some).error is None
        for globs, count in ((some, 0), (more, 1)):
            run = sim.mirror(
                tmp_path / f"copy{count}", source_mirror=tmp_path / "one", selector=Selector(), globs=globs
            )
            assert run.error is None
            assert len(run.warnings) == count
