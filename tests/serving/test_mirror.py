"""Test which files of a destination are public: those that a manifest names."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.builders import export
from tests.support.simulator import EXPORT, Simulator
from tests.support.tile_server import mirror_files, running_server
from tilesync.core.http_headers import IMMUTABLE_CACHE_CONTROL, REVALIDATE_CACHE_CONTROL
from tilesync.model import Layout

FILES = export(2) | {"tiles/.named.glb": b"glTF-named", "empty.glb": b""}
FOREIGN = ("private.txt", "tiles/private.glb", ".git/config", "tiles/.git/config", ".hidden")


def put_foreign_files(folder: Path) -> None:
    for name in FOREIGN:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"secret")


def test_the_flat_layout_has_the_names_of_its_manifest(tmp_path: Path) -> None:
    """Beside the files of the version nothing is served, hidden or not; a new version brings its names."""
    flat = mirror_files(tmp_path / "d", FILES, layout=Layout.FLAT)
    put_foreign_files(flat)
    with running_server(flat) as server:
        for name, data in FILES.items():
            answer = server.request(f"/{quote(name)}")
            assert (answer.status, answer.body) == (200, data), name
        assert [server.request(f"/{name}").status for name in (*FOREIGN, "new.glb")] == [404] * 6
        more = FILES | {"new.glb": b"glTF-new", "tiles/.new.glb": b"glTF"}
        del more["tiles/.named.glb"]
        with Simulator() as sim:
            sim.offer_export(more, export_id="next", lastModified="2026-03-09T08:30:00Z")
            assert sim.mirror(flat, layout=Layout.FLAT).error is None
        for name in ("new.glb", "tiles/.new.glb"):
            assert server.request(f"/{name}").body == more[name]
        assert server.request("/tiles/.named.glb").status == 404


def test_hidden_files_of_a_version(tmp_path: Path) -> None:
    """Below a version a hidden name is served if the manifest has it, and only then."""
    dest = mirror_files(tmp_path / "d", FILES)
    put_foreign_files(dest / "versions" / EXPORT)
    with running_server(dest) as server:
        for folder in (f"versions/{EXPORT}", "current"):
            assert server.request(f"/{folder}/tiles/.named.glb").body == FILES["tiles/.named.glb"]
            for name in (".git/config", "tiles/.git/config", ".hidden"):
                assert server.request(f"/{folder}/{name}").status == 404


@pytest.mark.parametrize(
    ("name", "expected"), [("empty.glb", REVALIDATE_CACHE_CONTROL), ("tileset.json", IMMUTABLE_CACHE_CONTROL)]
)
def test_an_empty_file_is_asked_for_again(tmp_path: Path, name: str, expected: str) -> None:
    """An empty file may be a damaged one, so caches do not keep it for a year, unlike all others."""
    with running_server(mirror_files(tmp_path / "d", FILES)) as server:
        assert server.request(f"/versions/{EXPORT}/{name}").headers["cache-control"] == expected
