"""Exports with files that are broken, or of no use for who asks for them: what is published, what is told, what is not.

Each is mirrored by its listing and by a walk, since they come to what is asked for in different ways.
"""

from __future__ import annotations

import gzip
import json
import random
import struct
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.broken_exports import PAGE, TILE, failure_messages, implicit, mirror, remarked_problems, subtree
from tests.support.builders import b3dm, gltf_as_glb, make_stored_blobs, read_manifest, read_tree, tileset
from tests.support.commandline import run_tilesync
from tests.support.faults import flip_last_bit, is_blob_named
from tests.support.simulator import EXPORT, Simulator, both_inventories, read_version, verify
from tilesync.events import FileFailed, Finding, Warned
from tilesync.model import Content, Globs, Inventory, Layout


def i3dm(uri: bytes) -> bytes:
    """Build an i3dm that references a model by URI."""
    return struct.pack("<4s7I", b"i3dm", 1, 32 + len(uri), 0, 0, 0, 0, 0) + uri


# --- contents and schemas ---

NO_JSON = {
    "a page": PAGE,
    "UTF-16": tileset("b.glb").decode().encode("utf-16"),
    "a list": b"[",
    "no bytes": b"",
    "cut off": tileset("b.glb")[:-9],
    "NULs behind it": tileset("b.glb") + b"\0\0",
    "bytes behind it": tileset("b.glb") + b"x",
    "a page within gzip": gzip.compress(PAGE),
}


@both_inventories
@pytest.mark.parametrize("data", NO_JSON.values(), ids=NO_JSON)
@pytest.mark.parametrize("name", ["e.json", "e.gltf"])
def test_a_content_that_is_no_json_is_an_error(name: str, data: bytes, inventory: Inventory, tmp_path: Path) -> None:
    """A .json content that is no JSON loses its branch: exit 3, nothing is published."""
    files = {"tileset.json": tileset(name, "a.glb"), name: data, "a.glb": TILE, "b.glb": TILE}
    run = mirror(files, tmp_path, inventory)
    assert run.exit_code == 3
    assert len(run.events_of(FileFailed)) == 1
    assert name in run.events_of(FileFailed)[0].message + run.events_of(FileFailed)[0].name
    assert not (tmp_path / "tileset.json").exists()


@both_inventories
@pytest.mark.parametrize("data", [PAGE, b"", b'{"id"', b'{"id": "s"}\0'], ids=["page", "empty", "cut", "padded"])
@pytest.mark.parametrize("name", ["s.json", "schema"])
def test_a_broken_schema_is_an_error(name: str, data: bytes, inventory: Inventory, tmp_path: Path) -> None:
    """A broken schema fails the run: viewers show nothing of a tileset without its schema."""
    if name == "schema" and data == b'{"id": "s"}\0':
        data = b"\0\0\0\0"
    run = mirror({"tileset.json": tileset("a.glb", schemaUri=name), name: data, "a.glb": TILE}, tmp_path, inventory)
    assert (run.exit_code, set(failure_messages(run))) == (3, {name})


@both_inventories
@pytest.mark.parametrize(
    "data", [tileset("a.glb") + b"\0", PAGE, b"[]", b"", tileset("a.glb").decode().encode("utf-16")]
)
def test_a_root_that_is_no_json_is_an_error(data: bytes, inventory: Inventory, tmp_path: Path) -> None:
    """A broken root fails the run: every viewer reads it."""
    run = mirror({"tileset.json": data, "a.glb": TILE}, tmp_path, inventory)
    assert run.exit_code == 3
    assert not (tmp_path / "tileset.json").exists()


@both_inventories
@pytest.mark.parametrize("data", [TILE, b"\x89PNG\r\n\x1a\n...."], ids=["tile", "image"])
@pytest.mark.parametrize("name", ["s.json", "schema"])
def test_a_schema_of_another_format_is_an_error(name: str, data: bytes, inventory: Inventory, tmp_path: Path) -> None:
    """A valid file of another kind is no schema, whatever its name."""
    run = mirror({"tileset.json": tileset("a.glb", schemaUri=name), name: data, "a.glb": TILE}, tmp_path, inventory)
    assert (run.exit_code, set(failure_messages(run))) == (3, {name})


NO_TILESET = {
    "nothing": b"{}",
    "an error": b'{"error": {"code": "NotFound"}}',
    "no root": b'{"asset": {"version": "1.1"}, "geometricError": 64}',
    "root null": b'{"asset": {"version": "1.1"}, "geometricError": 64, "root": null}',
    "a tile": TILE,
}


@both_inventories
@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("data", NO_TILESET.values(), ids=NO_TILESET)
def test_a_root_that_is_no_tileset_is_an_error(
    data: bytes, layout: Layout, inventory: Inventory, tmp_path: Path
) -> None:
    """A root that no viewer can read: exit 3 with a hint before a manifest is written, with or without a pointer."""
    for publish in (True, False):
        run = mirror({"tileset.json": data, "a.glb": TILE}, tmp_path, inventory, layout=layout, publish=publish)
        assert (run.exit_code, set(failure_messages(run))) == (3, {"tileset.json"})
        assert run.error is not None
        assert "create it again" in run.error.hint
        assert "--exclude" not in run.error.hint
    assert not list((tmp_path / "manifests").glob("*"))


@both_inventories
@pytest.mark.parametrize("root", [None, [], "x"])
def test_a_tileset_below_without_a_root_tile_is_an_error(root: object, inventory: Inventory, tmp_path: Path) -> None:
    """An external tileset without a root tile, which looks like a glTF, loses its branch: exit 3."""
    data = json.dumps({"asset": {"version": "1.1"}, "geometricError": 1, "root": root}).encode()
    run = mirror({"tileset.json": tileset("e.json", "a.glb"), "e.json": data, "a.glb": TILE}, tmp_path, inventory)
    assert (run.exit_code, set(failure_messages(run))) == (3, {"e.json"})


@both_inventories
def test_a_byte_order_mark_is_accepted(inventory: Inventory, tmp_path: Path) -> None:
    """A UTF-8 byte order mark is accepted in tilesets and schemas, as viewers do."""
    mark = b"\xef\xbb\xbf"
    files = {"tileset.json": mark + tileset("e.json", schemaUri="s.json"), "e.json": mark + tileset("a.glb"),
             "s.json": mark + b"{}", "a.glb": TILE}  # fmt: skip
    assert mirror(files, tmp_path, inventory).exit_code == 0
    assert read_version(tmp_path) == files


@both_inventories
def test_a_page_in_place_of_a_tile_is_an_error(inventory: Inventory, tmp_path: Path) -> None:
    """An HTML page instead of a tile is an error, whatever its name."""
    for number, name in enumerate(["a.b3dm", "a.tile", "a", "a.pnts"]):
        run = mirror({"tileset.json": tileset(name), name: PAGE}, tmp_path / str(number), inventory)
        assert (run.exit_code, set(failure_messages(run))) == (3, {name})


@both_inventories
def test_broken_bytes_without_a_checksum_are_fetched_twice(inventory: Inventory, tmp_path: Path) -> None:
    """Broken bytes without a checksum are requested twice before they are accepted as the content."""
    files = {"tileset.json": tileset("e.json"), "e.json": tileset("a.glb"), "a.glb": TILE}
    with Simulator() as sim:
        sim.offer_export(files, md5=False)
        sim.add_fault(
            is_blob_named("e.json"), lambda request, proceed: _with_body(proceed(), PAGE.ljust(len(files["e.json"])))
        )
        run = sim.mirror(tmp_path, inventory=inventory)
        assert len(sim.blob_requests("e.json")) >= 2
    assert run.exit_code == 0
    assert read_version(tmp_path) == files


def _with_body(answer: Any, body: bytes) -> Any:
    answer.body = body
    return answer


@both_inventories
def test_a_failed_file_is_fetched_again_by_the_next_run(inventory: Inventory, tmp_path: Path) -> None:
    """A failed file is not stored: after the container is repaired, the same command fetches it."""
    files = {"tileset.json": tileset("e.json"), "e.json": PAGE, "a.glb": TILE}
    with Simulator() as sim:
        sim.offer_export(files)
        first = sim.mirror(tmp_path, inventory=inventory)
        assert (first.exit_code, first.stats.failed) == (3, 1)
        stats = first.stats
        assert stats.listed == stats.fetched + stats.kept + stats.reused + stats.failed
        assert not (tmp_path / "tileset.json").exists()
        files["e.json"] = tileset("a.glb")
        sim.containers[EXPORT].update(make_stored_blobs({"e.json": files["e.json"]}))
        assert sim.mirror(tmp_path, inventory=inventory).exit_code == 0
    assert read_version(tmp_path) == files
    assert verify(tmp_path).exit_code == 0


# --- what nothing asks for ---

ORPHANS = {
    "log.json": b'{"a":1',
    "old/broken.glb": TILE[:-10],
    "upload.tmp.b3dm": struct.pack("<4s6I", b"b3dm", 1, 100, 0, 0, 0, 0) + b"x" * 12,
    "old/page.glb": PAGE,
    "old/cut.json.gz": gzip.compress(b"some text")[:-4],
}


@pytest.mark.parametrize("md5", [True, False])
@pytest.mark.parametrize("content", list(Content))
def test_broken_unreferenced_files_are_published(content: Content, md5: bool, tmp_path: Path) -> None:
    """Each broken unreferenced file is reported and recorded in the manifest; verify and later runs accept it. One that
    cannot be unpacked is stored packed.
    """
    files = {"tileset.json": tileset("a.glb"), "a.glb": TILE, **ORPHANS}
    with Simulator() as sim:
        sim.offer_export(files, md5=md5)
        run = sim.mirror(tmp_path, content=content)
        assert run.exit_code == 0
        assert remarked_problems(run) == {(name, "damaged orphan") for name in ORPHANS}
        assert any(str(warned.message).startswith("damaged orphan: ") for warned in run.events_of(Warned))
        assert all(len(sim.blob_requests(name)) == (1 if md5 else 2) for name in ORPHANS)
        assert sim.mirror(tmp_path, content=content).exit_code == 0
    assert read_version(tmp_path) == files
    head, rows = read_manifest(tmp_path, EXPORT)
    assert head["damaged_names"] == sorted(ORPHANS)
    assert (head["orphans"], head["missing"], set(rows)) == (len(ORPHANS), 0, set(files))
    audit = verify(tmp_path)
    assert (audit.exit_code, audit.events_of(Finding)) == (0, [])
    assert ("log.json", "damaged orphan") in remarked_problems(audit)


def test_a_flat_destination_takes_broken_orphans_too(tmp_path: Path) -> None:
    """A flat destination accepts broken unreferenced files too."""
    files = {"tileset.json": tileset("a.glb"), "a.glb": TILE, **ORPHANS}
    assert mirror(files, tmp_path, Inventory.LIST, layout=Layout.FLAT).exit_code == 0
    assert {name: data for name, data in read_tree(tmp_path).items() if not name.startswith(".")} == files
    assert verify(tmp_path).exit_code == 0
    broken = {"tileset.json": tileset("a.glb", "e.json"), "a.glb": TILE, "e.json": PAGE}
    assert mirror(broken, tmp_path / "b", Inventory.LIST, layout=Layout.FLAT).exit_code == 3
    assert not (tmp_path / "b/tileset.json").exists()


def test_a_broken_orphan_that_changes_on_the_disk_is_found(tmp_path: Path) -> None:
    """A broken unreferenced file that changes on the disk is found: how it was broken is recorded."""
    mirror({"tileset.json": tileset("a.glb"), "a.glb": TILE, **ORPHANS}, tmp_path, Inventory.LIST)
    path = tmp_path / "versions" / EXPORT / "old/broken.glb"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    (result,) = verify(tmp_path).events_of(Finding)
    assert (result.name, result.problem) == ("old/broken.glb", "content")


def test_an_orphan_damaged_in_transit_is_an_error(tmp_path: Path) -> None:
    """Damage in transit is not accepted: the file is fetched again, and fails the run if the damage stays."""
    with Simulator() as sim:
        sim.offer_export({"tileset.json": tileset("a.glb"), "a.glb": TILE, "log.json": b"{}"})
        sim.add_fault(is_blob_named("log.json"), flip_last_bit, times=None)
        run = sim.mirror(tmp_path)
    assert (run.exit_code, set(failure_messages(run))) == (3, {"log.json"})


def test_a_lost_catalog_and_a_copy_know_broken_orphans(tmp_path: Path) -> None:
    """A destination with broken unreferenced files can be rebuilt from its manifests, and be a SOURCE."""
    mirror({"tileset.json": tileset("a.glb"), "a.glb": TILE, **ORPHANS}, tmp_path / "a", Inventory.LIST)
    (tmp_path / "a/.tilesync/catalog.sqlite3").unlink()
    files = {"tileset.json": tileset("a.glb", "b.glb"), "a.glb": TILE, "b.glb": TILE, **ORPHANS}
    with Simulator() as sim:
        sim.offer_export(files, lastModified="2026-03-02T08:30:00Z")
        run = sim.mirror(tmp_path / "a")
        assert run.exit_code == 0
        assert not {name for name in ORPHANS if sim.blob_requests(name)}
    copied = run_tilesync("mirror", tmp_path / "a", tmp_path / "b", "--json")
    assert copied.exit_code == 0
    (version,) = read_tree(tmp_path / "b/manifests")
    for place in ("a", "b"):
        assert read_tree(tmp_path / place / "versions" / version.removesuffix(".jsonl")) == files
        assert read_manifest(tmp_path / place, version.removesuffix(".jsonl"))[0]["damaged_names"] == sorted(ORPHANS)


@both_inventories
def test_excluded_broken_files_do_not_fail_the_run(inventory: Inventory, tmp_path: Path) -> None:
    """If a glob excludes the broken file, the others are published."""
    files = {"tileset.json": tileset("a.glb", "e.json"), "a.glb": TILE, "e.json": PAGE}
    run = mirror(files, tmp_path, inventory, globs=Globs(exclude=("e.json",)))
    assert run.exit_code == 0
    assert read_version(tmp_path).keys() == {"tileset.json", "a.glb"}


def test_a_large_broken_gzip_file_is_stored_packed(tmp_path: Path) -> None:
    """A large broken gzip file is stored packed, also when it is continued from a partial file."""
    dice = random.Random(1)
    cut = gzip.compress(dice.randbytes(3_000_000))[:-9]
    files = {"tileset.json": tileset("a.glb"), "a.glb": TILE, "big.bin": cut, "big.gz": gzip.compress(cut)}
    run = mirror(files, tmp_path, Inventory.LIST, content=Content.DECODED)
    assert (run.exit_code, remarked_problems(run)) == (0, {("big.bin", "damaged orphan")})
    assert read_version(tmp_path) == {**files, "big.gz": cut}
    assert verify(tmp_path).exit_code == 0


# --- tiles of another format than their names say ---


@both_inventories
def test_references_of_a_glb_in_another_format_are_followed(inventory: Inventory, tmp_path: Path) -> None:
    """A .glb in another tile format gives a warning, and its references are followed, as viewers do."""
    document = json.dumps({"asset": {"version": "2.0"}, "images": [{"uri": "t.png"}]}).encode()
    files = {"tileset.json": tileset("b.glb", "g.glb"), "b.glb": b3dm(TILE), "g.glb": document, "t.png": b"\x89PNG...."}
    run = mirror(files, tmp_path, inventory)
    assert run.exit_code == 0
    assert remarked_problems(run) == {("b.glb", "other format"), ("g.glb", "other format")}
    assert len(run.events_of(Warned)) == 1
    assert read_version(tmp_path) == files
    assert verify(tmp_path).exit_code == 0


@both_inventories
def test_a_glb_without_bytes_is_a_missing_content(inventory: Inventory, tmp_path: Path) -> None:
    """A GLB without bytes counts as missing: exit 3; with --allow-missing it is published and recorded."""
    files = {"tileset.json": tileset("a.glb", "b.glb"), "a.glb": b"", "b.glb": TILE}
    run = mirror(files, tmp_path / "no", inventory)
    assert (run.exit_code, failure_messages(run)) == (
        3,
        {"a.glb": "a.glb is empty; tileset.json refers to it (content)"},
    )
    assert run.error is not None
    assert str(run.error).endswith("not in the container, or empty")
    assert "--allow-missing" in run.error.hint
    assert not run.events_of(Warned)
    dest = tmp_path / "allowed"
    with Simulator() as sim:
        sim.offer_export(files)
        run = sim.mirror(dest, inventory=inventory, allow_missing=True)
        assert (run.exit_code, run.stats.completeness.missing) == (0, 1)
        assert read_version(dest) == files
        assert read_manifest(dest, EXPORT)[0]["missing_names"] == ["a.glb"]
        assert verify(dest).exit_code == 0
        sim.exports[0]["lastModified"] = "2026-03-02T08:30:00Z"
        night = sim.mirror(dest, inventory=inventory)
        assert night.exit_code == 0
        assert [path.name for path in (dest / "versions").iterdir()] == [EXPORT]


def test_an_empty_unreferenced_glb_is_not_missing(tmp_path: Path) -> None:
    """An empty unreferenced GLB is not reported as missing."""
    run = mirror({"tileset.json": tileset("b.glb"), "a.glb": b"", "b.glb": TILE}, tmp_path, Inventory.LIST)
    assert (run.exit_code, run.stats.completeness.missing) == (0, 0)


# --- images and buffers ---

TEXTURED = gltf_as_glb(images=[{"uri": "t.png"}], buffers=[{"byteLength": 100, "uri": "x.bin"}])
GOOD = {"t.png": b"\x89PNG\r\n\x1a\n", "x.bin": b"\0" * 100}
FAULTY = {
    "an empty image": ("t.png", b""),
    "a page as an image": ("t.png", PAGE),
    "JSON as an image": ("t.png", b'{"error": {"code": "x"}}'),
    "text as an image": ("t.png", b"what is this"),
    "a short buffer": ("x.bin", b"ab"),
    "an empty buffer": ("x.bin", b""),
    "a page as a buffer": ("x.bin", PAGE.ljust(200)),
}
faulty_contents = pytest.mark.parametrize(("name", "data"), FAULTY.values(), ids=FAULTY)


@both_inventories
@faulty_contents
def test_unusable_images_and_buffers_give_a_warning(
    name: str, data: bytes, inventory: Inventory, tmp_path: Path
) -> None:
    """Unusable images and buffers whose MD5 the container confirms: published, with a warning and a record."""
    files = {"tileset.json": tileset("a.glb"), "a.glb": TEXTURED, **GOOD, name: data}
    run = mirror(files, tmp_path, inventory)
    assert run.exit_code == 0
    assert remarked_problems(run) == {(name, "damaged")}
    assert any(str(warned.message).startswith(f"damaged: {name}: ") for warned in run.events_of(Warned))
    assert read_manifest(tmp_path, EXPORT)[0]["damaged_names"] == [name]
    assert read_version(tmp_path) == files
    assert verify(tmp_path).exit_code == 0


@faulty_contents
def test_a_walk_refuses_an_html_page_without_an_md5(name: str, data: bytes, tmp_path: Path) -> None:
    """Without an MD5 an HTML page may come from a gateway: exit 3, fetched again by the next run, or allowed."""
    files = {"tileset.json": tileset("a.glb"), "a.glb": TEXTURED, **GOOD, name: data}
    with Simulator() as sim:
        sim.offer_export(files, md5=False)
        run = sim.mirror(tmp_path, inventory=Inventory.WALK)
        assert (run.exit_code, set(failure_messages(run))) == (3, {name})
        sim.containers[EXPORT].update(make_stored_blobs({name: GOOD[name]}, md5=False))
        assert sim.mirror(tmp_path, inventory=Inventory.WALK).exit_code == 0
        assert read_version(tmp_path) == {**files, **GOOD}
    allowed = mirror(files, tmp_path / "b", Inventory.WALK, md5=False, allow_missing=True)
    assert (allowed.exit_code, remarked_problems(allowed)) == (0, {(name, "damaged")})
    assert verify(tmp_path / "b").exit_code == 0


ERRORS = {
    "XML": b"\xef\xbb\xbf<?xml version='1.0' encoding='utf-8'?><Error><Code>BlobNotFound</Code></Error>",
    "JSON": b'{ "error" : {"code": "ExportNotFound"}}',
    "HTML behind a comment": b"<!-- proxy -->\n<?xml version='1.0'?>\n<!DOCTYPE html><html></html>",
    "half a page": b"<head><title>404",
}
storage_error_bodies = pytest.mark.parametrize("body", [*ERRORS.values(), PAGE], ids=[*ERRORS, "HTML"])


@both_inventories
@storage_error_bodies
@pytest.mark.parametrize("asks", ["tileset", "i3dm", "subtree"])
def test_an_error_in_place_of_a_part_of_the_scene(asks: str, body: bytes, inventory: Inventory, tmp_path: Path) -> None:
    """An error page of a server instead of a file is broken, whatever its name: exit 3."""
    views = [{"buffer": 0, "byteOffset": 0, "byteLength": 1}]
    buffers = [{"uri": "../../../part", "byteLength": 1}]
    bits = subtree(buffers=buffers, bufferViews=views, contentAvailability=[{"bitstream": 0}])
    files = {
        "tileset": {"tileset.json": tileset("b.glb", "part"), "b.glb": TILE},
        "i3dm": {"tileset.json": tileset("a.i3dm"), "a.i3dm": i3dm(b"part")},
        "subtree": {"tileset.json": implicit(), "s/0/0/0": bits, "c/0/0/0.glb": TILE},
    }[asks]
    run = mirror({**files, "part": body}, tmp_path, inventory)
    assert (run.exit_code, set(failure_messages(run))) == (3, {"part"})
    assert run.error is not None
    assert "--exclude" in run.error.hint


@both_inventories
@storage_error_bodies
@pytest.mark.parametrize("name", ["t", "x.bin", "s"])
def test_an_error_page_instead_of_a_file_is_reported(
    name: str, body: bytes, inventory: Inventory, tmp_path: Path
) -> None:
    """An error page instead of an image, buffer or schema is reported; an error if the whole scene needs it."""
    model = gltf_as_glb(images=[{"uri": "t"}], buffers=[{"byteLength": 4, "uri": "x.bin"}])
    good = {"t": b"\x89PNG\r\n\x1a\n", "x.bin": b"\0" * 100, "s": b'{"id": "s", "classes": {}}'}
    files = {"tileset.json": tileset("a.glb", schemaUri="s"), "a.glb": model, **good}
    assert remarked_problems(mirror(files, tmp_path / "good", inventory)) == set()
    run = mirror({**files, name: body}, tmp_path / "d", inventory)
    assert (run.exit_code, set(failure_messages(run))) == ((3, {"s"}) if name == "s" else (0, set()))
    assert name == "s" or remarked_problems(run) == {(name, "damaged")}


@both_inventories
@pytest.mark.parametrize("code", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["ext/tileset", "ext/t.bin", "ext/t.b3dm", "ext/t.json"])
def test_a_tileset_in_utf_16_is_never_lost(name: str, code: str, inventory: Inventory, tmp_path: Path) -> None:
    """A tileset in UTF-16 is an error, whatever its name: its branch would be lost."""
    document = tileset("b.glb").decode().encode(code)
    files = {"tileset.json": tileset(name, "a.glb"), name: document, "a.glb": TILE, "ext/b.glb": TILE}
    run = mirror(files, tmp_path, inventory)
    assert (run.exit_code, set(failure_messages(run))) == (3, {name})


@both_inventories
@pytest.mark.parametrize("role", ["content", "model"])
def test_unusable_content_is_published_with_a_warning(role: str, inventory: Inventory, tmp_path: Path) -> None:
    """An image as a tile, or a wrong format as the model of an i3dm: published with a warning."""
    odd = b"\x89PNG\r\n\x1a\n" if role == "content" else b"not found"
    files = {"tileset.json": tileset("b.glb", "t"), "b.glb": TILE, "t": odd}
    if role == "model":
        files = {"tileset.json": tileset("b.glb", "a.i3dm"), "b.glb": TILE, "a.i3dm": i3dm(b"t"), "t": odd}
    run = mirror(files, tmp_path, inventory)
    assert (run.exit_code, remarked_problems(run)) == (0, {("t", "unknown content")})
    assert len(run.events_of(Warned)) == 1


@both_inventories
def test_nuls_after_the_json_of_a_model_give_a_warning(inventory: Inventory, tmp_path: Path) -> None:
    """NULs after the JSON of a model give a warning: JSON readers and viewers refuse them."""
    text = b'{"asset":{"version":"2.0"}}'.ljust(32, b"\0")
    data = struct.pack("<5I", 0x46546C67, 2, 20 + len(text), len(text), 0x4E4F534A) + text
    run = mirror({"tileset.json": tileset("a.glb"), "a.glb": data}, tmp_path, inventory)
    assert (run.exit_code, remarked_problems(run)) == (0, {("a.glb", "NULs")})
    assert len(run.events_of(Warned)) == 1


@both_inventories
def test_the_last_of_two_equal_keys_counts(inventory: Inventory, tmp_path: Path) -> None:
    """The last of two equal keys counts, as in browsers: no reference is lost."""
    root = implicit(subtreeLevels=2, availableLevels=2).replace(
        b'"subtreeLevels"', b'"subtreeLevels": 1, "subtreeLevels"'
    )
    below = {f"c/1/{x}/{y}.glb": TILE for x in (0, 1) for y in (0, 1)}
    files = {"tileset.json": root, "s/0/0/0": subtree(), "c/0/0/0.glb": TILE, **below}
    run = mirror(files, tmp_path, inventory)
    assert (run.exit_code, run.stats.completeness.orphans) == (0, 0)
    assert read_version(tmp_path) == files


@both_inventories
@pytest.mark.parametrize("length", [100, 100.0])
def test_a_buffer_length_may_be_written_with_a_point(length: float, inventory: Inventory, tmp_path: Path) -> None:
    """A length is accepted as 100 or 100.0: JSON makes no difference."""
    model = gltf_as_glb(buffers=[{"byteLength": length, "uri": "x.bin"}])
    run = mirror({"tileset.json": tileset("a.glb"), "a.glb": model, "x.bin": b"ab"}, tmp_path / "a", inventory)
    assert (run.exit_code, remarked_problems(run)) == (0, {("x.bin", "damaged")})
    inside = mirror({"tileset.json": tileset("a.glb"), "a.glb": gltf_as_glb(buffers=[{"byteLength": length}])},
                    tmp_path / "b", inventory)  # fmt: skip
    assert (inside.exit_code, set(failure_messages(inside))) == (3, {"a.glb"})


@pytest.mark.parametrize(("lost", "allowed"), [("t.png", True), ("x.bin", True), ("a.glb", False)])
def test_the_hint_names_allow_missing_only_if_it_helps(lost: str, allowed: bool, tmp_path: Path) -> None:
    """The hint names --allow-missing only if it helps: for images and buffers, not for a part of the scene."""
    files = {"tileset.json": tileset("a.glb"), "a.glb": TEXTURED, **GOOD, lost: b"" if lost != "a.glb" else b"<html>"}
    run = mirror(files, tmp_path, Inventory.WALK, md5=False, retry_for=timedelta())
    assert (run.exit_code, set(failure_messages(run))) == (3, {lost})
    assert run.error is not None
    if allowed:
        assert "--allow-missing" in run.error.hint
        assert mirror(files, tmp_path, Inventory.WALK, md5=False, allow_missing=True).exit_code == 0


@both_inventories
def test_images_and_buffers_that_viewers_take(inventory: Inventory, tmp_path: Path) -> None:
    """Formats are detected by their magic; unknown formats and buffers with extra bytes are accepted."""
    images = {"a.png": b"\x89PNG", "b.jpg": b"\xff\xd8\xff\xe0", "c.webp": b"RIFF....WEBP", "d.ktx2": b"\xabKTX 20\xbb",
              "e.dds": b"DDS ....", "f": b"\x89PNG", "g.basis": b"sB.."}  # fmt: skip
    document = {"images": [{"uri": name} for name in images], "buffers": [{"byteLength": 3, "uri": "x.bin"}]}
    files = {"tileset.json": tileset("a.glb"), "a.glb": gltf_as_glb(**document), **images, "x.bin": b"long"}
    run = mirror(files, tmp_path, inventory, md5=False)
    assert (run.exit_code, remarked_problems(run)) == (0, set())


@both_inventories
@pytest.mark.parametrize("encoding", ["gzip", ""])
@pytest.mark.parametrize(
    ("size", "problems"), [(100, set()), (99, {("x.bin", "damaged")}), (0, {("x.bin", "damaged")})]
)
@pytest.mark.parametrize("content", list(Content))
def test_the_length_of_a_gzip_buffer_is_that_of_its_unpacked_bytes(
    content: Content, size: int, problems: set[tuple[str, str]], encoding: str, inventory: Inventory, tmp_path: Path
) -> None:
    """The length of a gzip buffer is that of its unpacked bytes, which viewers get."""
    with Simulator() as sim:
        sim.offer_export(
            {"tileset.json": tileset("a.glb"), "a.glb": TEXTURED, **GOOD, "x.bin": gzip.compress(bytes(size))}
        )
        sim.blob("x.bin").content_encoding = encoding
        run = sim.mirror(tmp_path, inventory=inventory, content=content)
    assert (run.exit_code, remarked_problems(run)) == (0, problems)


# --- shaders, and metadata of a subtree ---


@both_inventories
def test_shaders_of_techniques_are_followed(inventory: Inventory, tmp_path: Path) -> None:
    """References of KHR_techniques_webgl are followed: it names shaders as glTF 1.0 did."""
    document = {"shaders": [{"type": 35632, "uri": "fs.glsl"}, {"type": 35633, "bufferView": 0}], "programs": []}
    model = json.dumps({"asset": {"version": "2.0"}, "extensions": {"KHR_techniques_webgl": document}}).encode()
    files = {"tileset.json": tileset("a.gltf"), "a.gltf": model, "fs.glsl": b"void main(){}"}
    run = mirror(files, tmp_path, inventory)
    assert (run.exit_code, run.stats.completeness.unfollowed, run.stats.completeness.orphans) == (0, 0, 0)
    assert read_version(tmp_path) == files


# --- implicit tilesets ---


@both_inventories
def test_an_index_may_be_written_with_a_point(inventory: Inventory, tmp_path: Path) -> None:
    """An index written as 0.0 instead of 0 is accepted in the metadata of a subtree."""
    tables: dict[str, Any] = {"propertyTables": [{"class": "t", "count": 1, "properties": {"h": {"values": 0}}}],
              "buffers": [{"byteLength": 0}], "bufferViews": [{"buffer": 0, "byteLength": 0}]}  # fmt: skip
    choices: list[dict[str, Any]] = [{"tileMetadata": 0.0}, {"contentMetadata": [0.0]}, {"tileMetadata": 0}]
    for number, chosen in enumerate(choices):
        files = {"tileset.json": implicit(), "s/0/0/0": subtree(**tables, **chosen), "c/0/0/0.glb": TILE}
        assert mirror(files, tmp_path / str(number), inventory).exit_code == 0


@both_inventories
def test_a_shader_without_bytes_gives_a_warning(inventory: Inventory, tmp_path: Path) -> None:
    """A shader without bytes gives a warning, like an image without bytes."""
    document = {"extensions": {"KHR_techniques_webgl": {"shaders": [{"uri": "fs.glsl"}]}}}
    files = {"tileset.json": tileset("a.glb"), "a.glb": gltf_as_glb(**document), "fs.glsl": b""}
    run = mirror(files, tmp_path, inventory)
    assert (run.exit_code, remarked_problems(run)) == (0, {("fs.glsl", "damaged")})
    assert [event.message for event in run.events_of(Warned)] == [
        "damaged: fs.glsl: it is empty; a.glb refers to it (shader)"
    ]
